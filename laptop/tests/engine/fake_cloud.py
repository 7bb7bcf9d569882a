"""A fake cloud in one file and a provider for it. Tests can inspect it, change it and make it fail.

Types: `fake:index:Thing` (auto-named, `zone` forces replacement), `fake:index:Named` (its name is its id, so a
replacement deletes first), `fake:index:Paper` (recorded in the state only).
"""

from __future__ import annotations

import copy
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from laptop.engine.paths import changed_paths, write_path
from laptop.engine.provider import Created, Diff, ResourceCall
from pipelines.declarations.errors import MlopsError

REPLACES = {"zone", "name", "target"}

Things = dict[str, dict[str, Any]]


class FakeCloud:
    """Things by id in a JSON file, under a lock across processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    @contextmanager
    def open(self) -> Iterator[Things]:
        with self._lock, FileLock(self._path.with_suffix(".lock")):
            things: Things = json.loads(self._path.read_text()) if self._path.exists() else {}
            before = copy.deepcopy(things)
            yield things
            if things != before:
                draft = self._path.with_suffix(f".{os.getpid()}")
                draft.write_text(json.dumps(things))
                draft.replace(self._path)

    def things(self) -> Things:
        with self.open() as things:
            return copy.deepcopy(things)


class FakeProvider:
    """Provider of a `FakeCloud`. Calls `hook(moment, what)` before and after every access."""

    def __init__(self, cloud: FakeCloud, hook: Callable[[str, str], None] = lambda moment, what: None) -> None:
        self.cloud = cloud
        self.calls: list[tuple[str, str]] = []
        self.names = 0
        self._hook = hook

    def _moment(self, verb: str, name: str) -> None:
        self.calls.append((verb, name))
        self._hook("before", f"{verb} {name}")

    def check(self, type_: str, name: str, inputs: dict[str, Any], old_inputs: dict[str, Any] | None) -> dict[str, Any]:
        json.dumps(inputs)  # fails for anything that is not JSON
        if inputs.get("bad"):
            raise MlopsError(f"`bad` is not allowed: {inputs['bad']}")
        checked = {"size": 1, **inputs}
        if "name" not in checked:
            if old_inputs is not None and old_inputs.get("__auto"):
                checked["name"] = old_inputs["name"]
            else:
                self.names += 1
                checked["name"] = f"{name}-{os.urandom(4).hex()}"
            checked["__auto"] = True
        return checked

    def diff(self, call: ResourceCall) -> Diff:
        json.dumps([call.old_inputs, call.inputs, call.outputs])
        changed = [path for path in changed_paths(call.old_inputs, call.inputs) if path[0] != "__auto"]
        replace = [write_path(path) for path in changed if path[0] in REPLACES]
        return Diff(
            changed=tuple(write_path(path) for path in changed),
            replace=tuple(replace),
            delete_before_replace=call.type == "fake:index:Named" and bool(replace),
        )

    def create(self, call: ResourceCall) -> Created:
        logical, inputs = call.urn.rpartition("::")[2], call.inputs
        self._moment("create", logical)
        if call.type == "fake:index:Paper":
            return Created(f"paper-{logical}", dict(inputs), recorded="the cloud has no paper")
        if inputs.get("fail"):
            raise MlopsError(f"the cloud refuses: {inputs['fail']}")
        if inputs.get("explode"):
            raise ConnectionResetError("the cloud hung up")
        with self.cloud.open() as things:
            same = [key for key, thing in things.items() if thing["name"] == inputs["name"]]
            if same and not call.resuming:
                raise MlopsError(f"there is already a thing called {inputs['name']}")
            identity = same[0] if same else f"id-{inputs['name']}"
            things[identity] = self._outputs(call.type, identity, inputs)
            outputs = copy.deepcopy(things[identity])
        self._hook("after", f"create {logical}")
        return Created(identity, outputs)

    @staticmethod
    def _outputs(type_: str, identity: str, inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = {key: value for key, value in inputs.items() if key != "__auto"}
        return {**outputs, "type": type_, "arn": f"arn:{identity}"}

    def read(self, call: ResourceCall) -> dict[str, Any] | None:
        self._moment("read", call.id)
        if call.inputs.get("unreadable"):
            raise MlopsError("the cloud does not answer")
        return self.cloud.things().get(call.id)

    def update(self, call: ResourceCall) -> Created:
        logical = call.urn.rpartition("::")[2]
        self._moment("update", logical)
        if call.inputs.get("fail"):
            raise MlopsError(f"the cloud refuses: {call.inputs['fail']}")
        with self.cloud.open() as things:
            if call.id not in things:
                raise MlopsError(f"there is no {call.id}")
            things[call.id] = self._outputs(call.type, call.id, call.inputs)
            outputs = copy.deepcopy(things[call.id])
        self._hook("after", f"update {logical}")
        return Created(call.id, outputs)

    def delete(self, call: ResourceCall) -> None:
        logical = call.urn.rpartition("::")[2]
        self._moment("delete", logical)
        if call.inputs.get("stuck"):
            raise MlopsError("it is still in use")
        with self.cloud.open() as things:
            for key, thing in things.items():
                if key != call.id and thing.get("target") == f"arn:{call.id}":
                    raise MlopsError(f"{key} still points to {call.id}")
            things.pop(call.id, None)
        self._hook("after", f"delete {logical}")

    def recorded(self, type_: str, inputs: dict[str, Any]) -> dict[str, str]:
        if type_ == "fake:index:Paper":
            return {"": "the cloud has no paper"}
        return {"scent": "the cloud cannot smell"} if "scent" in inputs else {}

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(("invoke", token))
        if token != "fake:index:echo":
            raise MlopsError(f"there is no function {token}")
        return {"said": args["say"]}
