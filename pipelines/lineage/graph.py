"""Lineage as a graph.

Files and contracts lead to versions, versions and columns to bundles, bundles to releases. Bundles and inputs lead to
batch predictions; an input is a file, or a version that leads to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.printable import printable
from pipelines.lineage.facts import BundleFact, LineageFacts, PredictionFact

Kind = Literal["contract", "column", "file", "version", "bundle", "input", "release", "prediction"]

KINDS: tuple[Kind, ...] = ("contract", "column", "file", "version", "bundle", "input", "release", "prediction")
"""Kinds of nodes, in the direction of the data."""


class LineageNode(NamedTuple):
    """Something that data flows through.

    Attributes:
        kind: what it is.
        name: identifies it among those of its kind: `<dataset>@<version>` of a contract, `<dataset>.<column>`,
            `<environment>/<dataset>/<file>`, `<environment>/<dataset>@<snapshot>`, `<model>@<digest>` of a bundle, and
            `<environment>/<model>` of a release, `<environment>/<model>@<snapshot>` of a batch prediction, and
            `<environment>/<model>/<file>` or `<environment>/<dataset>@<snapshot>` of its input.
    """

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass
class LineageGraph:
    """Nodes and the edges between them.

    Attributes:
        edges: node → the nodes that it leads to.
        back: node → the nodes that lead to it.
        notes: node → what is known about it, for people.
        live: the releases that are live.
    """

    edges: dict[LineageNode, set[LineageNode]] = field(default_factory=dict)
    back: dict[LineageNode, set[LineageNode]] = field(default_factory=dict)
    notes: dict[LineageNode, str] = field(default_factory=dict)
    live: set[tuple[LineageNode, LineageNode]] = field(default_factory=set)

    def add(self, node: LineageNode, note: str = "") -> LineageNode:
        """Add a node; a note replaces the one before."""
        if node not in self.edges:
            self.edges[node], self.back[node] = set(), set()
        if note:
            self.notes[node] = note
        return node

    def connect(self, source: LineageNode, target: LineageNode) -> None:
        """Add an edge, and its nodes."""
        for node in (source, target):
            if node not in self.edges:
                self.add(node)
        self.edges[source].add(target)
        self.back[target].add(source)

    def upstream(self, start: LineageNode) -> set[LineageNode]:
        """Return the nodes that lead to a node, directly or not."""
        return _reachable(self.back, start)

    def downstream(self, start: LineageNode) -> set[LineageNode]:
        """Return the nodes that a node leads to, directly or not."""
        return _reachable(self.edges, start)

    def part(self, nodes: Collection[LineageNode]) -> LineageGraph:
        """Return the graph of some of the nodes.

        Versions between them that are left out are bridged: files lead straight to the version that a bundle names.
        """
        kept = set(nodes)
        made = LineageGraph(live=self.live)
        bridges = _bridges(self.edges, kept)
        for node in sorted(kept):
            made.add(node, self.notes.get(node, ""))
            for target in bridges[node]:
                made.connect(node, target)
        return made


def _reachable(edges: dict[LineageNode, set[LineageNode]], start: LineageNode) -> set[LineageNode]:
    found: set[LineageNode] = set()
    waiting = [start]
    while waiting:
        for node in edges.get(waiting.pop(), ()):
            if node not in found:
                found.add(node)
                waiting.append(node)
    return found


def _bridges(
    edges: dict[LineageNode, set[LineageNode]], kept: set[LineageNode]
) -> dict[LineageNode, frozenset[LineageNode]]:
    """Return the first kept nodes on each way from each node that is left out or kept.

    Each node is looked at once, after those that it leads to. Data does not flow in circles.
    """
    found: dict[LineageNode, frozenset[LineageNode]] = {}
    waiting: list[tuple[LineageNode, bool]] = [(node, False) for node in kept]
    entered: set[LineageNode] = set()
    while waiting:
        node, is_left = waiting.pop()
        if is_left:
            parts = [frozenset((t,)) if t in kept else found.get(t, frozenset()) for t in edges.get(node, ())]
            # One way only is the usual case: a version in a chain shares the set of the next one.
            found[node] = parts[0] if len(parts) == 1 else frozenset().union(*parts)
        elif node not in entered:
            entered.add(node)
            waiting.append((node, True))
            waiting += [(target, False) for target in edges.get(node, ()) if target not in kept]
    return found


def file_node(environment: str, dataset: str, file: str) -> LineageNode:
    """Return the node of a landing file."""
    return LineageNode("file", f"{environment}/{dataset}/{file}")


def version_node(environment: str, dataset: str, snapshot: str) -> LineageNode:
    """Return the node of a dataset version."""
    return LineageNode("version", f"{environment}/{dataset}@{snapshot}")


def contract_node(dataset: str, version: str) -> LineageNode:
    """Return the node of a version of a contract."""
    return LineageNode("contract", f"{dataset}@{version}")


def column_node(dataset: str, column: str) -> LineageNode:
    """Return the node of a column."""
    return LineageNode("column", f"{dataset}.{column}")


def bundle_node(model: str, digest: str) -> LineageNode:
    """Return the node of a bundle."""
    return LineageNode("bundle", f"{model}@{digest}")


def release_node(environment: str, model: str) -> LineageNode:
    """Return the node of the releases of a model in an environment."""
    return LineageNode("release", f"{environment}/{model}")


def prediction_node(environment: str, model: str, snapshot: str) -> LineageNode:
    """Return the node of a batch prediction."""
    return LineageNode("prediction", f"{environment}/{model}@{snapshot}")


def build_graph(facts: LineageFacts) -> LineageGraph:
    """Build the graph of all facts."""
    graph = LineageGraph()
    for version in facts.versions:
        node = version_node(version.environment, version.dataset, version.snapshot)
        rows = f"{version.rows} rows, " if version.rows is not None else ""
        graph.add(node, f"{rows}{version.at:%Y-%m-%d %H:%M} UTC")
        if version.file is not None:
            file = file_node(version.environment, version.dataset, version.file)
            graph.connect(file, node)
            if version.batch is not None:
                graph.add(file, version.batch)
        if version.contract is not None:
            graph.connect(contract_node(version.dataset, version.contract), node)
        if version.parent is not None:
            graph.connect(version_node(version.environment, version.dataset, version.parent), node)
    for bundle in facts.bundles:
        _add_bundle(graph, bundle, facts.targets.get(bundle.model))
    for release in facts.releases:
        if release.bundle is not None:
            source, target = (
                bundle_node(release.model, release.bundle),
                release_node(release.environment, release.model),
            )
            graph.connect(source, target)
            if release.is_live:
                graph.live.add((source, target))
    for prediction in facts.predictions:
        _add_prediction(graph, prediction)
    for node in graph.edges:
        if node.kind == "release":
            live = [source.name.partition("@")[2] for source, target in graph.live if target == node]
            graph.notes[node] = f"live: {live[0][:19]}…" if live else "nothing is live"
    return graph


def _add_bundle(graph: LineageGraph, bundle: BundleFact, target: str | None) -> None:
    node = bundle_node(bundle.model, bundle.digest)
    trained = f"trained {bundle.trained:%Y-%m-%d %H:%M} UTC" if bundle.trained is not None else "no verified evidence"
    graph.add(node, f"{trained}, commit {bundle.commit[:12]}" if bundle.commit else trained)
    graph.connect(version_node(bundle.environment, bundle.dataset, bundle.snapshot), node)
    for column in (*bundle.features, *((target,) if target else ())):
        graph.connect(column_node(bundle.dataset, column), node)


def _add_prediction(graph: LineageGraph, prediction: PredictionFact) -> None:
    node = prediction_node(prediction.environment, prediction.model, prediction.snapshot)
    rows = f"{prediction.rows} rows, " if prediction.rows is not None else ""
    graph.add(node, f"{rows}{prediction.at:%Y-%m-%d %H:%M}")
    graph.connect(bundle_node(prediction.model, prediction.bundle), node)
    if prediction.file is not None:
        graph.connect(LineageNode("input", f"{prediction.environment}/{prediction.model}/{prediction.file}"), node)
    elif prediction.dataset is not None and prediction.read is not None:
        given = LineageNode("input", f"{prediction.environment}/{prediction.dataset}@{prediction.read}")
        graph.connect(version_node(prediction.environment, prediction.dataset, prediction.read), given)
        graph.connect(given, node)


def find_prediction(facts: LineageFacts, model: str, environment: str, snapshot: str = "") -> LineageNode:
    """Return a batch prediction of a model in an environment: by its snapshot, else the latest one.

    Raises:
        MlopsError: there is no such prediction.
    """
    made = [each for each in facts.predictions if (each.model, each.environment) == (model, environment)]
    found = [each for each in made if snapshot in ("", each.snapshot)]
    if not found:
        known = ", ".join(each.snapshot for each in made[-5:]) or "none"
        wanted = f"snapshot {snapshot}" if snapshot else "a batch prediction"
        raise MlopsError(
            f"{model} has no such batch prediction in {environment}: expected {wanted}, found {known}",
            fix=f"predict a file first: mlops predict {model} --file FILE --env {environment}",
        )
    return prediction_node(environment, model, found[-1].snapshot)


def find_bundle(facts: LineageFacts, model: str, digest: str = "", environment: str = "") -> LineageNode:
    """Return a bundle of a model: by its digest or the start of it, else the live one.

    Args:
        facts: the facts.
        model: name of the model.
        digest: digest of the bundle, or at least 8 of its first digits; "" for the live bundle.
        environment: where the bundle is live; "" for the last environment that has one.

    Raises:
        MlopsError: there is no such bundle, or several.
    """
    if digest:
        start = "sha256:" + digest.removeprefix("sha256:")
        found = [each.digest for each in facts.bundles if each.model == model and each.digest.startswith(start)]
        if len(found) != 1 or len(start) < len("sha256:") + 8:
            raise MlopsError(
                f"{model} has {len(found) or 'no'} bundles like {digest!r}: expected one, by 8 digits or more",
                fix=_known(model, (each.digest for each in facts.bundles if each.model == model)),
            )
        return bundle_node(model, found[0])
    live = {
        each.environment: each.bundle
        for each in facts.releases
        if each.model == model and each.is_live and each.bundle and environment in ("", each.environment)
    }
    if not live:
        where = environment or "any environment"
        raise MlopsError(
            f"no bundle of {model} is live in {where}: expected a live bundle, or a digest to trace another one",
            fix=_known(model, (each.digest for each in facts.bundles if each.model == model)),
        )
    last = next(name for name in (*reversed(facts.environments), *live) if name in live)
    return bundle_node(model, live[last])


def _known(model: str, names: Iterable[str]) -> str:
    found = list(names)[-5:]
    if not found:
        return f"train one: mlops train {model}"
    others = f" (or {', '.join(found[:-1])})" if len(found) > 1 else ""
    return f"mlops lineage bundle {model} {found[-1]}{others}"


def find_nodes(graph: LineageGraph, kind: Kind, starts: str = "", ends: str = "") -> list[LineageNode]:
    """Return the nodes of a kind whose name starts and ends with a text, sorted.

    Raises:
        MlopsError: there are none.
    """
    every = sorted(node for node in graph.edges if node.kind == kind)
    found = [node for node in every if node.name.startswith(starts) and node.name.endswith(ends)]
    if not found:
        known = ", ".join(node.name for node in every[:5]) or "none"
        raise MlopsError(f"lineage has no {kind} {starts}{'…' if starts and ends else ''}{ends}: found {known}")
    return found


def trace(graph: LineageGraph, starts: Collection[LineageNode], *, back: bool, forward: bool) -> LineageGraph:
    """Return what leads to some nodes and what they lead to.

    Versions appear only if a bundle or a batch prediction names them, if they are a start, or if a start is the file
    that they added: the chain of all snapshots says nothing.
    """
    found = set(starts)
    for start in starts:
        found |= graph.upstream(start) if back else set()
        found |= graph.downstream(start) if forward else set()
    shown = {
        node
        for node in found
        if node.kind != "version"
        or node in starts
        or any(start.kind == "file" and node in graph.edges[start] for start in starts)
        or any(target.kind in ("bundle", "input") and target in found for target in graph.edges[node])
    }
    return graph.part(shown)


def graph_lines(graph: LineageGraph) -> list[str]:
    """Return the lines that show a graph to people: each node, and what it leads to.

    Nodes of a kind that lead to the same ones, such as the columns of a bundle, are grouped above them.
    """
    lines = []
    for kind in KINDS:
        nodes = sorted(node for node in graph.edges if node.kind == kind)
        if not nodes:
            continue
        lines.append(f"{kind}s:" if kind != "version" else "versions:")
        groups: dict[tuple[str, ...], list[str]] = {}
        for node in nodes:
            note = f"  ({graph.notes[node]})" if node in graph.notes else ""
            targets = sorted(graph.edges[node])
            arrows = (f"      → {target}{', live' if (node, target) in graph.live else ''}" for target in targets)
            groups.setdefault(tuple(arrows), []).append(f"  {node.name}{note}")
        without = groups.pop((), [])
        for leads_to, names in groups.items():
            lines += [*names, *leads_to]
        lines += without  # last, so that no arrows of others stand below them
    return [printable(line) for line in lines]


def graph_json(graph: LineageGraph) -> dict[str, object]:
    """Return a graph as JSON values: nodes and edges."""
    return {
        "nodes": [
            {"kind": node.kind, "name": node.name, "note": graph.notes.get(node, "")} for node in sorted(graph.edges)
        ],
        "edges": [
            {"from": str(source), "to": str(target), "live": (source, target) in graph.live}
            for source in sorted(graph.edges)
            for target in sorted(graph.edges[source])
        ],
    }
