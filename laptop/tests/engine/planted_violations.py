"""Programs that break one rule each, from the examples of the rules, and a provider that creates anything."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.policies import PlannedResource, violations
from laptop.aws.computed_outputs import computed_outputs
from laptop.engine.paths import changed_paths, write_path
from laptop.engine.provider import Created, Diff, ResourceCall, is_provider, package_of
from tests.infra.policies.examples import EXAMPLES, Resources

PLANTED: dict[str, Resources] = {rule: example.breaks[0] for rule, example in EXAMPLES.items()}
"""Rule id → a graph that breaks the rule."""

COMPLIANT: dict[str, Resources] = {}
"""Ids of rules, joined by commas → a graph that complies with them."""

for _graph in {id(example.keeps): example.keeps for example in EXAMPLES.values()}.values():
    COMPLIANT[",".join(rule for rule, example in EXAMPLES.items() if example.keeps is _graph)] = _graph

PACKAGES = ("aws", "kubernetes")

_ROOT = "urn:stack"


def batches() -> list[dict[str, Resources]]:
    """Put planted violations into as few programs as possible, so that none hides another.

    Returns:
        For each program, rule id → the graph that breaks it. The names of a graph begin with the rule's id.
    """
    found: list[dict[str, Resources]] = []
    for rule, graph in PLANTED.items():
        own = {rule: [_renamed(one, rule) for one in graph]}
        home = next((batch for batch in found if _all_found({**batch, **own})), None)
        if home is None:
            found.append(own)
        else:
            home.update(own)
    return found


def _renamed(resource: PlannedResource, rule: str) -> PlannedResource:
    parent = resource.parent if resource.parent == _ROOT else f"{resource.parent} of {rule}"
    return dataclasses.replace(resource, name=f"{rule}.{resource.name}", urn=f"{resource.urn} of {rule}", parent=parent)


def _all_found(batch: Mapping[str, Resources]) -> bool:
    together = {(one.rule, one.urn) for one in violations([one for graph in batch.values() for one in graph])}
    alone = {(one.rule, one.urn) for rule, graph in batch.items() for one in violations(graph) if one.rule == rule}
    return alone <= together


_PROGRAM = """
import json
from pathlib import Path

import pulumi

made = {}


class Component(pulumi.ComponentResource):
    def __init__(self, type_, name, outputs, opts):
        super().__init__(type_, name, None, opts)
        self.register_outputs(outputs)


for given in json.loads(Path(__file__).with_name("resources.json").read_text()):
    opts = pulumi.ResourceOptions(parent=made.get(given["parent"]), protect=given["protect"])
    kind = pulumi.CustomResource if given["type"].partition(":")[0] in ("aws", "kubernetes") else Component
    made[given["urn"]] = kind(given["type"], given["name"], given["props"], opts)
"""


def write_project(folder: Path, resources: Sequence[PlannedResource]) -> Path:
    """Write a Pulumi project that registers a graph, with the stack `dev`, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {"virtualenv": sys.prefix}
    project = {"name": "planted", "runtime": {"name": "python", "options": options}, "main": "."}
    folder.joinpath("Pulumi.yaml").write_text(json.dumps(project))
    folder.joinpath("Pulumi.dev.yaml").write_text("{}\n")
    folder.joinpath("__main__.py").write_text(_PROGRAM)
    folder.joinpath("resources.json").write_text(json.dumps([dataclasses.asdict(one) for one in resources]))
    return folder


class AnyProvider:
    """Creates resources of any type. A preview knows the inputs; afterwards the outputs are the inputs and an ARN."""

    def check(self, type_: str, name: str, inputs: dict[str, Any], old_inputs: dict[str, Any] | None) -> dict[str, Any]:
        return inputs

    def diff(self, call: ResourceCall) -> Diff:
        return Diff(tuple(write_path(path) for path in changed_paths(call.old_inputs, call.inputs)))

    def create(self, call: ResourceCall) -> Created:
        return Created(f"id-{call.urn}", self._outputs(call))

    def read(self, call: ResourceCall) -> dict[str, Any] | None:
        return call.outputs

    def update(self, call: ResourceCall) -> Created:
        return Created(call.id, self._outputs(call))

    def delete(self, call: ResourceCall) -> None:
        pass

    def recorded(self, type_: str, inputs: dict[str, Any]) -> Mapping[str, str]:
        return {}

    def computed(self, type_: str) -> Iterable[str]:
        return () if is_provider(type_) or package_of(type_) != "aws" else computed_outputs(type_)

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError(token)

    def _outputs(self, call: ResourceCall) -> dict[str, Any]:
        return {"arn": f"arn:aws:any:eu-west-1:111122223333:{call.urn}", **call.inputs}
