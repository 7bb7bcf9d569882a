"""A small cloud in one file, and a provider for it: what it holds can be seen, drifted and made to fail.

Types: `fake:index:Thing` (auto-named, `zone` forces replacement), `fake:index:Named` (its name is its id, so a
replacement has to delete first), `fake:index:Paper` (the cloud cannot hold it: recorded only).
"""

from __future__ import annotations

import copy
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from laptop.engine.paths import changed_paths, write_path
from laptop.engine.provider import Created, Diff
from pipelines.declarations.errors import MlopsError

REPLACES = {"zone", "name", "target"}

Things = dict[str, dict[str, Any]]


class Cloud:
    """Things by id, in a JSON file; every access is alone on it, across processes too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    @contextmanager
    def open(self) -> Iterator[Things]:
        with self._lock, self._path.with_suffix(".lock").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
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
    """Applies to a `Cloud`. `hook(moment, what)` is called before and after everything that touches the cloud."""

    def __init__(self, cloud: Cloud, hook: Callable[[str, str], None] = lambda moment, what: None) -> None:
        self.cloud = cloud
        self.calls: list[tuple[str, str]] = []
        self.names = 0
        self._hook = hook

    def _moment(self, verb: str, name: str) -> None:
        self.calls.append((verb, name))
        self._hook("before", f"{verb} {name}")

    def check(self, type_: str, name: str, inputs: dict[str, Any], old_inputs: dict[str, Any] | None) -> dict[str, Any]:
        json.dumps(inputs)  # nothing but JSON may arrive here
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

    def diff(
        self,
        type_: str,
        old_inputs: dict[str, Any],
        new_inputs: dict[str, Any],
        old_outputs: dict[str, Any],
    ) -> Diff:
        json.dumps([old_inputs, new_inputs, old_outputs])
        changed = [path for path in changed_paths(old_inputs, new_inputs) if path[0] != "__auto"]
        replace = [write_path(path) for path in changed if path[0] in REPLACES]
        return Diff(
            changed=tuple(write_path(path) for path in changed),
            replace=tuple(replace),
            delete_before_replace=type_ == "fake:index:Named" and bool(replace),
        )

    def create(self, urn: str, type_: str, inputs: dict[str, Any], *, resuming: bool = False) -> Created:
        logical = urn.rpartition("::")[2]
        self._moment("create", logical)
        if type_ == "fake:index:Paper":
            return Created(f"paper-{logical}", dict(inputs), recorded="the cloud has no paper")
        if inputs.get("fail"):
            raise MlopsError(f"the cloud refuses: {inputs['fail']}")
        if inputs.get("explode"):
            raise ConnectionResetError("the cloud hung up")
        with self.cloud.open() as things:
            same = [key for key, thing in things.items() if thing["name"] == inputs["name"]]
            if same and not resuming:
                raise MlopsError(f"there is already a thing called {inputs['name']}")
            identity = same[0] if same else f"id-{inputs['name']}"
            things[identity] = self._outputs(type_, identity, inputs)
            outputs = copy.deepcopy(things[identity])
        self._hook("after", f"create {logical}")
        return Created(identity, outputs)

    @staticmethod
    def _outputs(type_: str, identity: str, inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = {key: value for key, value in inputs.items() if key != "__auto"}
        return {**outputs, "type": type_, "arn": f"arn:{identity}"}

    def read(self, type_: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any] | None:
        self._moment("read", id_)
        if inputs.get("unreadable"):
            raise MlopsError("the cloud does not answer")
        return self.cloud.things().get(id_)

    def update(
        self,
        urn: str,
        type_: str,
        id_: str,
        old_inputs: dict[str, Any],
        new_inputs: dict[str, Any],
        old_outputs: dict[str, Any],
    ) -> Created:
        logical = urn.rpartition("::")[2]
        self._moment("update", logical)
        if new_inputs.get("fail"):
            raise MlopsError(f"the cloud refuses: {new_inputs['fail']}")
        with self.cloud.open() as things:
            if id_ not in things:
                raise MlopsError(f"there is no {id_}")
            things[id_] = self._outputs(type_, id_, new_inputs)
            outputs = copy.deepcopy(things[id_])
        self._hook("after", f"update {logical}")
        return Created(id_, outputs)

    def delete(self, urn: str, type_: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        logical = urn.rpartition("::")[2]
        self._moment("delete", logical)
        if inputs.get("stuck"):
            raise MlopsError("it is still in use")
        with self.cloud.open() as things:
            for key, thing in things.items():
                if key != id_ and thing.get("target") == f"arn:{id_}":
                    raise MlopsError(f"{key} still points to {id_}")
            things.pop(id_, None)
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
