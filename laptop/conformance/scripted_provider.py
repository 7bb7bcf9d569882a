"""A small deterministic provider in a file, made for comparing engines.

Types: `Thing` and `Widget` (auto-named; `zone` and `target` force replacement) and `Named` (its name is given, so a
replacement deletes first). Ids count the creations of a name, so two engines that make the same calls get the same
ids.
"""

from __future__ import annotations

import copy
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from laptop.conformance.program_edits import NAMED
from laptop.engine.paths import changed_paths, write_path
from laptop.engine.provider import Created, Diff, ResourceCall, is_provider
from pipelines.declarations.errors import MlopsError

REPLACES = frozenset({"zone", "name", "target"})
COMPUTED = ("arn", "name")


class ScriptedProvider:
    """Provider of the package `edits`. Its resources are in a JSON file, which outlives the process.

    Attributes:
        refused: calls that fail, as (`verb`, logical name).
        calls: the changes made so far, as (verb, logical name, id).
        adopts: a create of a name that exists returns the existing one, as an idempotent API does.
        around: called as `around(moment, verb, name)` before and after every change.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.RLock()
        self.refused: set[tuple[str, str]] = set()
        self.adopts = False
        self.calls: list[tuple[str, str, str]] = []
        self.around: Callable[[str, str, str], None] = lambda moment, verb, name: None

    @contextmanager
    def open(self) -> Iterator[dict[str, Any]]:
        """Yield the content: `things` by id, and how often each name was created. Changes are written at the end."""
        with self._lock:
            text = self._file.read_text(encoding="utf-8") if self._file.exists() else '{"things": {}, "made": {}}'
            content: dict[str, Any] = json.loads(text)
            yield content
            draft = self._file.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps(content), encoding="utf-8")
            draft.replace(self._file)

    def things(self) -> dict[str, Any]:
        """Return the existing resources by id."""
        with self.open() as content:
            things: dict[str, Any] = content["things"]
            return things

    def _change(self, verb: str, call: ResourceCall, id_: str) -> str:
        name = call.urn.rpartition("::")[2]
        self.around("before", verb, name)
        if (verb, name) in self.refused:
            raise MlopsError(f"the cloud refuses to {verb} {name}")
        self.calls.append((verb, name, id_))
        return name

    def check(self, type_: str, name: str, inputs: dict[str, Any], old_inputs: dict[str, Any] | None) -> dict[str, Any]:
        """Fill in the name, and a default size."""
        if is_provider(type_):
            return inputs
        if "invalid" in inputs:
            raise MlopsError(f"`invalid` is not allowed: {inputs['invalid']}")
        checked = {"grade": "standard", **inputs}
        if "name" not in checked:
            if old_inputs is not None and old_inputs.get("auto"):
                checked["name"] = old_inputs["name"]
            else:
                with self.open() as content:
                    checked["name"] = f"{name}-{content['made'].get(name, 0)}"
            checked["auto"] = True
        return checked

    def diff(self, call: ResourceCall) -> Diff:
        """Compare all inputs but the note that the name is automatic."""
        changed = [path for path in changed_paths(call.old_inputs, call.inputs) if path[0] != "auto"]
        replaces = tuple(write_path(path) for path in changed if path[0] in REPLACES)
        return Diff(tuple(map(write_path, changed)), replaces, call.type == NAMED and bool(replaces))

    def create(self, call: ResourceCall) -> Created:
        """Create a thing. When resuming, adopt one of the same name."""
        name = call.urn.rpartition("::")[2]
        with self.open() as content:
            known = [id_ for id_, thing in content["things"].items() if thing["name"] == call.inputs["name"]]
            number = content["made"].get(name, 0)
        id_ = known[0] if known and (call.resuming or self.adopts) else f"{call.inputs['name']}#{number}"
        self._change("create", call, id_)
        with self.open() as content:
            content["made"][name] = number + 1
            content["things"][id_] = _outputs(id_, call.inputs)
        self.around("after", "create", name)
        return Created(id_, _outputs(id_, call.inputs))

    def read(self, call: ResourceCall) -> dict[str, Any] | None:
        """Return the live outputs."""
        return copy.deepcopy(self.things().get(call.id))

    def update(self, call: ResourceCall) -> Created:
        """Change a thing in place."""
        name = self._change("update", call, call.id)
        with self.open() as content:
            content["things"][call.id] = _outputs(call.id, call.inputs)
        self.around("after", "update", name)
        return Created(call.id, _outputs(call.id, call.inputs))

    def delete(self, call: ResourceCall) -> None:
        """Delete a thing."""
        name = self._change("delete", call, call.id)
        with self.open() as content:
            content["things"].pop(call.id, None)
        self.around("after", "delete", name)

    def recorded(self, type_: str, inputs: dict[str, Any]) -> dict[str, str]:
        """Every property has an effect."""
        return {}

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments."""
        return args

    def imported_inputs(self, type_: str, outputs: dict[str, Any]) -> dict[str, Any]:
        """Return the outputs that are inputs as well."""
        return {key: value for key, value in outputs.items() if key != "arn"}

    def computed(self, type_: str) -> Iterable[str]:
        """Name the outputs that a preview does not know."""
        return COMPUTED


def _outputs(id_: str, inputs: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy({**{key: value for key, value in inputs.items() if key != "auto"}, "arn": f"arn:{id_}"})
