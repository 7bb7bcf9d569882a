"""Programs as data, the Pulumi program that registers one, and edits of a program.

A sequence of programs stands for a user who edits a program and applies it after each edit. Everything is JSON-like,
so a sequence can be printed, shortened, and passed to another process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Any

import pulumi

PACKAGE = "edits"
THING = "edits:index:Thing"
WIDGET = "edits:index:Widget"
NAMED = "edits:index:Named"
GROUP = "edits:index:Group"
TEAM = "edits:index:Team"
PROVIDER = "pulumi:providers:edits"

PROJECT = "shop"
TOKEN = "a-secret-token"
COMPONENTS = frozenset({GROUP, TEAM})

Tagged = dict[str, Any]
"""A value that the program computes: `{"$ref": key, "output": name}`, `{"$secret": value}`, `{"$config": key}`,
`{"$text": [parts]}` or `{"$stack": name, "output": name}`."""


@dataclass(frozen=True)
class ProgramNode:
    """One resource of a program.

    Attributes:
        key: identity within the program; a rename keeps it.
        inputs: property → value, possibly `Tagged`.
        outputs: what a component registers, or None if it registers nothing.
        parent, provider, deleted_with: keys of other nodes, or "".
        depends_on, replace_with: keys of other nodes.
        aliases: each with `name`, `type`, `parent` (a key, or "" for the stack) or `urn`.
        read: id of an existing resource that the program reads, or "".
        import_: id of an existing resource that the stack takes over, or "".
    """

    key: str
    name: str
    type: str = THING
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] | None = None
    parent: str = ""
    provider: str = ""
    depends_on: tuple[str, ...] = ()
    protect: bool | None = None
    retain: bool = False
    delete_first: bool | None = None
    ignore: tuple[str, ...] = ()
    replace_on: tuple[str, ...] = ()
    replace_with: tuple[str, ...] = ()
    secret_outputs: tuple[str, ...] = ()
    aliases: tuple[dict[str, str], ...] = ()
    deleted_with: str = ""
    read: str = ""
    import_: str = ""

    @property
    def component(self) -> bool:
        return self.type in COMPONENTS


@dataclass(frozen=True)
class Program:
    """A program: resources in the order of their registration, and stack outputs."""

    nodes: tuple[ProgramNode, ...] = ()
    exports: dict[str, Any] = field(default_factory=dict)

    def find(self, key: str) -> ProgramNode:
        return next(node for node in self.nodes if node.key == key)

    def put(self, node: ProgramNode) -> Program:
        """Replace the node with the same key."""
        return replace(self, nodes=tuple(node if old.key == node.key else old for old in self.nodes))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, document: dict[str, Any]) -> Program:
        """Return the program that `to_json` described."""
        nodes: list[ProgramNode] = []
        for item in document["nodes"]:
            fields: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in item.items()
            }
            nodes.append(ProgramNode(**fields))
        return cls(tuple(nodes), document["exports"])


# The Pulumi program


class _Custom(pulumi.CustomResource):
    def __init__(self, type_: str, name: str, inputs: dict[str, Any], options: pulumi.ResourceOptions) -> None:
        super().__init__(type_, name, {"arn": None, "name": None, **inputs}, options)


class _Component(pulumi.ComponentResource):
    pass


class _Provider(pulumi.ProviderResource):
    def __init__(self, name: str, inputs: dict[str, Any], options: pulumi.ResourceOptions) -> None:
        super().__init__(PACKAGE, name, inputs, options)


def register(program: Program) -> None:
    """Register the resources and outputs of a program with the engine that runs it."""
    made: dict[str, pulumi.Resource] = {}
    for node in program.nodes:
        inputs = {key: _resolve(value, made) for key, value in node.inputs.items()}
        options = _options(node, made)
        if node.component:
            made[node.key] = _Component(node.type, node.name, inputs or None, options)
        elif node.type == PROVIDER:
            made[node.key] = _Provider(node.name, inputs, options)
        else:
            made[node.key] = _Custom(node.type, node.name, inputs, options)
    for node in program.nodes:
        if node.component and node.outputs is not None:
            component = made[node.key]
            assert isinstance(component, pulumi.ComponentResource)
            component.register_outputs({key: _resolve(value, made) for key, value in node.outputs.items()})
    for name, value in program.exports.items():
        pulumi.export(name, _resolve(value, made))


def _resolve(value: Any, made: dict[str, pulumi.Resource]) -> Any:
    if isinstance(value, list):
        return [_resolve(item, made) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return getattr(made[value["$ref"]], value["output"])
    if "$secret" in value:
        return pulumi.Output.secret(_resolve(value["$secret"], made))
    if "$config" in value:
        return pulumi.Config().require_secret(value["$config"])
    if "$text" in value:
        return pulumi.Output.concat(*(_resolve(part, made) for part in value["$text"]))
    if "$stack" in value:
        name = value["$stack"]
        if name not in made:
            made[name] = pulumi.StackReference(name)
        reference = made[name]
        assert isinstance(reference, pulumi.StackReference)
        return reference.get_output(value["output"])
    return {key: _resolve(item, made) for key, item in value.items()}


def _options(node: ProgramNode, made: dict[str, pulumi.Resource]) -> pulumi.ResourceOptions:
    provider = made[node.provider] if node.provider else None
    assert provider is None or isinstance(provider, pulumi.ProviderResource)
    return pulumi.ResourceOptions(
        parent=made[node.parent] if node.parent else None,
        provider=provider,
        depends_on=[made[key] for key in node.depends_on] or None,
        protect=node.protect,
        retain_on_delete=node.retain or None,
        delete_before_replace=node.delete_first,
        ignore_changes=list(node.ignore) or None,
        replace_on_changes=list(node.replace_on) or None,
        replace_with=[made[key] for key in node.replace_with] or None,
        additional_secret_outputs=list(node.secret_outputs) or None,
        aliases=[_alias(alias, made) for alias in node.aliases] or None,
        deleted_with=made[node.deleted_with] if node.deleted_with else None,
        id=node.read or None,
        import_=node.import_ or None,
    )


def _alias(alias: dict[str, str], made: dict[str, pulumi.Resource]) -> pulumi.Alias | str:
    if "urn" in alias:
        return alias["urn"]
    given: dict[str, Any] = {"name": alias.get("name", ...), "type_": alias.get("type", ...)}
    if "parent" in alias:
        given["parent"] = made[alias["parent"]] if alias["parent"] else pulumi.ROOT_STACK_RESOURCE
    return pulumi.Alias(**given)


# Edits

Edit = Callable[[Program, Random], Program | None]
"""Returns the edited program, or None if the program offers nothing to edit in this way."""

EDITS: dict[str, Edit] = {}


def _edit(edit: Edit) -> Edit:
    EDITS[edit.__name__] = edit
    return edit


def _pick(program: Program, rng: Random, test: Callable[[ProgramNode], bool] = lambda node: True) -> ProgramNode | None:
    found = [node for node in program.nodes if test(node)]
    return rng.choice(found) if found else None


def _managed(node: ProgramNode) -> bool:
    return not node.component and node.type != PROVIDER and not node.read and not node.import_


def _fresh(program: Program, rng: Random, prefix: str) -> str:
    """Return a name that neither the program nor, in all likelihood, an earlier state of it uses."""
    return f"{prefix}{rng.randrange(10**6)}"


def references(value: Any) -> Iterator[str]:
    """Yield the keys of the nodes that a value refers to."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def needs(node: ProgramNode) -> set[str]:
    """Return the keys of the nodes that must be registered before a node."""
    aliased = {alias["parent"] for alias in node.aliases if alias.get("parent")}
    others = {node.parent, node.provider, node.deleted_with, *node.depends_on, *node.replace_with, *aliased}
    return (others | set(references(node.inputs))) - {""}


def in_order(program: Program) -> Program:
    """Sort the nodes so each comes after those it needs; otherwise keep their order."""
    left, done, ordered = list(program.nodes), set[str](), list[ProgramNode]()
    while left:
        node = next((node for node in left if needs(node) <= done), None)
        if node is None:
            raise ValueError("the program refers to a resource that does not exist, or to itself")
        left.remove(node)
        done.add(node.key)
        ordered.append(node)
    return replace(program, nodes=tuple(ordered))


def waits_for_itself(program: Program) -> bool:
    """Return True if the program would never end, because a resource depends on a component that it is part of.

    To depend on a component is to wait for all its descendants.
    """
    children: dict[str, list[str]] = {}
    for node in program.nodes:
        children.setdefault(node.parent, []).append(node.key)

    def descendants(key: str) -> set[str]:
        return {key}.union(*(descendants(child) for child in children.get(key, ())))

    left = {
        node.key: needs(node).union(*(descendants(key) for key in node.depends_on), ()) - {""} for node in program.nodes
    }
    while left:
        ready = [key for key, needed in left.items() if not needed & left.keys()]
        if not ready:
            return True
        for key in ready:
            del left[key]
    return False


def without(program: Program, key: str) -> Program:
    """Remove a node with its children and everything that refers to it."""
    gone = {key}
    while True:
        more = {node.key for node in program.nodes if node.parent in gone or node.provider in gone} - gone
        if not more:
            break
        gone |= more
    kept = []
    for node in program.nodes:
        if node.key in gone:
            continue
        inputs = {name: value for name, value in node.inputs.items() if not gone & set(references(value))}
        outputs = node.outputs
        if outputs is not None:
            outputs = {name: value for name, value in outputs.items() if not gone & set(references(value))}
        kept.append(
            replace(
                node,
                inputs=inputs,
                outputs=outputs,
                depends_on=tuple(other for other in node.depends_on if other not in gone),
                replace_with=tuple(other for other in node.replace_with if other not in gone),
                deleted_with="" if node.deleted_with in gone else node.deleted_with,
                aliases=tuple(alias for alias in node.aliases if alias.get("parent") not in gone),
            )
        )
    exports = {name: value for name, value in program.exports.items() if not gone & set(references(value))}
    return Program(tuple(kept), exports)


def _before(program: Program, key: str) -> list[ProgramNode]:
    """Return the nodes that may be referred to by a node, which are those registered before it."""
    keys = [node.key for node in program.nodes]
    return list(program.nodes[: keys.index(key)])


def _changed(program: Program, rng: Random, name: str, value: Any, types: tuple[str, ...] = ()) -> Program | None:
    node = _pick(program, rng, lambda node: _managed(node) and (not types or node.type in types))
    return program.put(replace(node, inputs={**node.inputs, name: value})) if node is not None else None


@_edit
def add_a_resource(program: Program, rng: Random) -> Program | None:
    name = _fresh(program, rng, "n")
    inputs: dict[str, Any] = {"size": rng.randrange(5), "zone": rng.choice("xy")}
    sources = [node for node in program.nodes if _managed(node)]
    if sources and rng.random() < 0.6:
        inputs[rng.choice(["target", "uses"])] = {"$ref": rng.choice(sources).key, "output": "arn"}
    type_ = rng.choice([THING, THING, NAMED])
    if type_ == NAMED:
        inputs["name"] = name
    groups = [node.key for node in program.nodes if node.component]
    parent = rng.choice(groups) if groups and rng.random() < 0.5 else ""
    return replace(program, nodes=(*program.nodes, ProgramNode(name, name, type_, inputs, parent=parent)))


@_edit
def add_a_component(program: Program, rng: Random) -> Program | None:
    name = _fresh(program, rng, "g")
    groups = [node.key for node in program.nodes if node.component]
    parent = rng.choice(groups) if groups and rng.random() < 0.5 else ""
    child = ProgramNode(f"{name}-child", f"{name}-child", inputs={"size": 1}, parent=name)
    outputs = {"child": {"$ref": child.key, "output": "arn"}} if rng.random() < 0.7 else None
    group = ProgramNode(name, name, GROUP, outputs=outputs, parent=parent)
    return replace(program, nodes=(*program.nodes, group, child))


@_edit
def remove_a_resource(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, lambda node: not node.protect)
    smaller = without(program, node.key) if node is not None else program
    return smaller if len(smaller.nodes) >= 2 else None


@_edit
def change_an_input(program: Program, rng: Random) -> Program | None:
    return _changed(program, rng, "size", rng.randrange(100, 10**6))


@_edit
def change_nested_inputs(program: Program, rng: Random) -> Program | None:
    value = {"owner": rng.choice("ab"), "deep": [{"n": rng.randrange(10**6)}, rng.choice([True, 1, "1", 1.5])]}
    return _changed(program, rng, "tags", value)


@_edit
def remove_an_input(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, lambda node: _managed(node) and bool({"size", "tags", "uses"} & node.inputs.keys()))
    if node is None:
        return None
    gone = rng.choice(sorted({"size", "tags", "uses"} & node.inputs.keys()))
    return program.put(replace(node, inputs={key: value for key, value in node.inputs.items() if key != gone}))


@_edit
def replace_a_resource(program: Program, rng: Random) -> Program | None:
    return _changed(program, rng, "zone", f"z{rng.randrange(10**6)}", (THING, WIDGET))


@_edit
def replace_a_resource_that_is_deleted_first(program: Program, rng: Random) -> Program | None:
    return _changed(program, rng, "zone", f"z{rng.randrange(10**6)}", (NAMED,))


@_edit
def choose_when_to_delete(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, _managed)
    if node is None:
        return None
    inputs = {**node.inputs, "zone": f"z{rng.randrange(10**6)}"}
    return program.put(replace(node, delete_first=rng.choice([True, True, False]), inputs=inputs))


@_edit
def replace_on_a_change(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, _managed)
    if node is None:
        return None
    paths = rng.choice([("size",), ("tags.owner",), ("*",), ("tags",)])
    inputs = {**node.inputs, "size": rng.randrange(10**6), "tags": {"owner": rng.choice("ab")}}
    return program.put(replace(node, replace_on=paths, inputs=inputs))


@_edit
def rename_with_an_alias(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, lambda node: not node.read and not node.import_)
    if node is None:
        return None
    return program.put(replace(node, name=_fresh(program, rng, "r"), aliases=({"name": node.name},)))


@_edit
def rename_without_an_alias(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, lambda node: not node.protect and not node.import_)
    if node is None or any(child.protect for child in program.nodes if child.parent == node.key):
        return None
    return program.put(replace(node, name=_fresh(program, rng, "r"), aliases=()))


@_edit
def change_the_type_with_an_alias(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, lambda node: node.type in (THING, WIDGET, GROUP, TEAM) and not node.import_)
    if node is None or node.read:
        return None
    types = {THING: WIDGET, WIDGET: THING, GROUP: TEAM, TEAM: GROUP}
    return program.put(replace(node, type=types[node.type], aliases=({"type": node.type},)))


@_edit
def move_with_an_alias(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, lambda node: not node.component and node.type != PROVIDER and not node.import_)
    if node is None or node.read:
        return None
    parents = ["", *(other.key for other in program.nodes if other.component)]
    parent = rng.choice([key for key in parents if key != node.parent] or [""])
    if parent == node.parent:
        return None
    moved = replace(node, parent=parent, aliases=({"parent": node.parent},))
    return in_order(program.put(moved))


@_edit
def protect_a_resource(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, lambda node: not node.protect and not node.read)
    return program.put(replace(node, protect=True)) if node is not None else None


@_edit
def unprotect_a_resource(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, lambda node: bool(node.protect))
    return program.put(replace(node, protect=rng.choice([False, None]))) if node is not None else None


@_edit
def unprotect_and_replace(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, lambda node: bool(node.protect) and _managed(node))
    if node is None:
        return None
    inputs = {**node.inputs, "zone": f"z{rng.randrange(10**6)}"}
    return program.put(replace(node, protect=False, inputs=inputs))


@_edit
def retain_or_not(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, _managed)
    return program.put(replace(node, retain=not node.retain)) if node is not None else None


@_edit
def ignore_a_change(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, _managed)
    if node is None:
        return None
    paths = rng.choice([("size",), ("tags.owner",), ("tags",), ("zone",), ()])
    inputs = {**node.inputs, "size": rng.randrange(10**6), "tags": {"owner": rng.choice("ab"), "n": rng.randrange(9)}}
    if "zone" in paths:
        inputs["zone"] = f"z{rng.randrange(10**6)}"
    return program.put(replace(node, ignore=paths, inputs=inputs))


@_edit
def change_dependencies(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, lambda node: bool(_before(program, node.key)) and node.type != PROVIDER)
    if node is None:
        return None
    earlier = [other.key for other in _before(program, node.key) if other.key != node.parent]
    chosen = rng.sample(earlier, k=min(len(earlier), rng.randrange(3)))
    return program.put(replace(node, depends_on=tuple(sorted(chosen))))


@_edit
def change_a_reference(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, lambda node: _managed(node) and bool(_before(program, node.key)))
    if node is None:
        return None
    sources = [other for other in _before(program, node.key) if not other.component and other.type != PROVIDER]
    if not sources:
        return None
    value: Any = {"$ref": rng.choice(sources).key, "output": rng.choice(["arn", "name"])}
    if rng.random() < 0.4:
        value = {"$text": ["see ", value, "!"]}
    name = rng.choice(["target", "uses", "uses"])
    return program.put(replace(node, inputs={**node.inputs, name: value}))


@_edit
def change_a_secret(program: Program, rng: Random) -> Program | None:
    value = rng.choice([{"$secret": f"password-{rng.randrange(10**6)}"}, {"$config": "token"}, "no longer secret"])
    return _changed(program, rng, "password", value)


@_edit
def nest_a_secret(program: Program, rng: Random) -> Program | None:
    value = {"open": rng.randrange(10**6), "closed": {"$secret": {"n": rng.randrange(10**6)}}}
    return _changed(program, rng, "tags", value)


@_edit
def declare_secret_outputs(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, _managed)
    names = rng.choice([(), ("arn",), ("size",), ("arn", "name")])
    return program.put(replace(node, secret_outputs=names)) if node is not None else None


@_edit
def change_stack_outputs(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, lambda node: not node.component and node.type != PROVIDER)
    if node is None:
        return None
    reference = {"$ref": node.key, "output": "arn"}
    value = rng.choice(
        [reference, {"$secret": reference}, {"list": [reference, 1, None, "x"]}, 7, {"$config": "token"}]
    )
    kept = {name: item for name, item in program.exports.items() if rng.random() < 0.7}
    return replace(program, exports={**kept, f"out{rng.randrange(4)}": value})


@_edit
def change_component_outputs(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, lambda node: node.component)
    if node is None:
        return None
    children = [other for other in program.nodes if other.parent == node.key and _managed(other)]
    outputs: dict[str, Any] = {"n": rng.randrange(10**6)}
    if children:
        outputs["child"] = rng.choice(
            [{"$ref": children[0].key, "output": "arn"}, {"$secret": {"$ref": children[0].key, "output": "arn"}}]
        )
    return program.put(replace(node, outputs=rng.choice([outputs, outputs, {}, None])))


@_edit
def change_component_inputs(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, lambda node: node.component)
    return program.put(replace(node, inputs={"n": rng.randrange(10**6)})) if node is not None else None


@_edit
def delete_with_another(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, lambda node: _managed(node) and any(map(_managed, _before(program, node.key))))
    if node is None:
        return None
    others = [other.key for other in _before(program, node.key) if _managed(other)]
    return program.put(replace(node, deleted_with=rng.choice([*others, ""])))


@_edit
def use_a_provider(program: Program, rng: Random) -> Program | None:
    provider = _pick(program, rng, lambda node: node.type == PROVIDER)
    node = _pick(program, rng, lambda node: _managed(node) and not node.provider)
    if node is None:
        return None
    if provider is None:
        key = _fresh(program, rng, "p")
        provider = ProgramNode(key, key, PROVIDER, {"region": rng.choice("ab")})
        program = replace(program, nodes=(provider, *program.nodes))
    return in_order(program.put(replace(node, provider=provider.key)))


@_edit
def change_a_provider(program: Program, rng: Random) -> Program | None:
    node = _pick(program, rng, lambda node: node.type == PROVIDER)
    return program.put(replace(node, inputs={"region": f"r{rng.randrange(10**6)}"})) if node is not None else None


START = in_order(
    Program(
        nodes=(
            ProgramNode("group", "group", GROUP, outputs={"first": {"$ref": "a", "output": "arn"}}),
            ProgramNode("a", "a", inputs={"size": 1, "zone": "x"}, parent="group"),
            ProgramNode("b", "b", inputs={"target": {"$ref": "a", "output": "arn"}, "tags": {"owner": "a"}}),
            ProgramNode("n", "n", NAMED, inputs={"name": "fixed", "zone": "x"}),
            ProgramNode(
                "u", "u", inputs={"uses": {"$ref": "n", "output": "arn"}, "password": {"$secret": "hunter2hunter2"}}
            ),
            ProgramNode("d", "d", inputs={"size": 3}, depends_on=("n",)),
        ),
        exports={"a": {"$ref": "a", "output": "arn"}},
    )
)
"""The program that every sequence begins with."""


def sequence(seed: int, length: int, kinds: list[str]) -> list[tuple[str, Program]]:
    """Return programs that follow each other by one edit, the first being `START`. The same seed, the same sequence.

    Args:
        kinds: names of edits to prefer, in this order; others fill up where one does not apply.
    """
    rng = Random(seed)
    programs = [("start", START)]
    wanted = list(kinds)
    while len(programs) < length:
        name = wanted.pop(0) if wanted else rng.choice(sorted(EDITS))
        current = programs[-1][1]
        edited = EDITS[name](current, rng)
        if edited is not None and edited != current and not waits_for_itself(edited):
            programs.append((name, edited))
    return programs
