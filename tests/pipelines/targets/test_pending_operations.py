"""Resolving what a killed Pulumi process left half done."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.targets.import_ids import GENERATED, import_id
from pipelines.targets.interrupted_update import resolve_interrupted_update
from pipelines.targets.pending_operations import adopt_resources, plan_resolution

URN = "urn:pulumi:dev::mlops::aws:s3/bucket:Bucket::"
BUCKET = "aws:s3/bucket:Bucket"


def resource(name: str, **more: Any) -> dict[str, Any]:
    return {"urn": URN + name, "custom": True, "type": BUCKET, "inputs": {"bucket": name}, **more}


def settled(name: str, **more: Any) -> dict[str, Any]:
    return resource(name, id=name, outputs={"bucket": name}, **more)


def export(resources: list[dict[str, Any]], *pending: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    operations = [{"type": kind, "resource": one} for kind, one in pending]
    return {"version": 3, "deployment": {"resources": resources, "pending_operations": operations}}


def account() -> str:
    return "123456789012"


def plan(exported: dict[str, Any]) -> Any:
    return plan_resolution(exported, lambda kind, inputs: import_id(kind, inputs, account))


def test_nothing_is_done_without_unfinished_operations() -> None:
    found = plan(export([settled("a")]))
    assert not found.is_needed
    assert found.targets == ()


def test_a_resource_that_may_exist_is_added_under_its_id_and_read() -> None:
    exported = export([settled("a")], ("creating", resource("b")))
    found = plan(exported)
    assert (found.adopt, found.refresh, found.unidentified) == ({URN + "b": "b"}, (), {})
    changed = adopt_resources(exported, found.adopt)
    assert changed == {"version": 3, "deployment": {"resources": [settled("a"), resource("b", id="b")]}}


@pytest.mark.parametrize("kind", ["updating", "deleting", "reading"])
def test_a_resource_in_the_state_is_read(kind: str) -> None:
    assert plan(export([settled("a")], (kind, settled("a")))).refresh == (URN + "a",)


def test_a_resource_that_was_being_read_into_the_state_and_is_not_in_it_needs_nothing() -> None:
    assert plan(export([], ("reading", settled("a")))).refresh == ()


def test_a_resource_whose_id_is_unknown_is_described() -> None:
    key = {"urn": "urn:pulumi:dev::mlops::aws:kms/key:Key::data", "type": "aws:kms/key:Key"}
    key["inputs"] = {"description": "Encrypts the data of dev", "policy": "{}", "tags": {"a": "b"}}  # type: ignore[assignment]
    found = plan(export([], ("creating", key)))
    assert found.unidentified == {key["urn"]: "aws:kms/key:Key data (description=Encrypts the data of dev)"}
    assert found.adopt == {}


def test_a_provider_needs_nothing() -> None:
    provider = {"urn": "urn:x::y", "type": "pulumi:providers:kubernetes", "inputs": {}}
    assert not plan(export([], ("creating", provider))).is_needed


def test_a_replacement_that_may_exist_is_added_and_the_replaced_copy_is_deleted_later() -> None:
    new = {**resource("a"), "inputs": {"bucket": "a-new"}}
    exported = export([settled("a")], ("creating", new))
    changed = adopt_resources(exported, plan(exported).adopt)
    assert changed["deployment"]["resources"] == [settled("a", delete=True), {**new, "id": "a-new"}]


def test_a_replacement_with_the_id_of_the_replaced_copy_is_read_because_deleting_that_copy_would_delete_it() -> None:
    found = plan(export([settled("a")], ("creating", resource("a"))))
    assert (found.adopt, found.refresh) == ({}, (URN + "a",))


def test_a_resource_that_an_interrupted_resolution_added_is_read() -> None:
    exported = export([settled("a"), resource("b", id="b")])
    assert plan(exported).refresh == (URN + "b",)


class FakePulumi:
    """Keeps the state of a stack; a refresh removes targets that do not exist."""

    def __init__(self, exported: dict[str, Any], *existing: str) -> None:
        self.state = exported
        self.existing = existing
        self.calls: list[str] = []

    def __call__(self, *arguments: str) -> str:
        self.calls.append(" ".join(arguments[:2]))
        match arguments:
            case ["stack", "export"]:
                return json.dumps(self.state)
            case ["stack", "import", "--file", file]:
                with open(file) as opened:  # noqa: PTH123
                    self.state = json.load(opened)
            case ["refresh", "--yes", "--skip-preview", "--non-interactive", *targets]:
                assert targets[::2] == ["--target"] * (len(targets) // 2)
                resources = self.state["deployment"]["resources"]
                gone = [one for one in resources if one["urn"] in targets[1::2] and one["id"] not in self.existing]
                self.state["deployment"]["resources"] = [one for one in resources if one not in gone]
            case _:
                raise AssertionError(arguments)
        return ""


def test_resources_that_exist_stay_in_the_state_and_others_do_not() -> None:
    pulumi = FakePulumi(export([settled("a")], *(("creating", resource(name)) for name in "bc")), "a", "c")
    lines: list[str] = []
    assert resolve_interrupted_update(pulumi, lines.append) is not None
    assert [one["id"] for one in pulumi.state["deployment"]["resources"]] == ["a", "c"]
    assert lines[-2:] == ["b was not created", "c exists, and is in the state now"]
    assert resolve_interrupted_update(pulumi, lines.append) is not None, "the fake does not read outputs"


def test_a_stack_without_unfinished_operations_is_only_read() -> None:
    pulumi = FakePulumi(export([settled("a")]))
    assert resolve_interrupted_update(pulumi, print) is None
    assert pulumi.calls == ["stack export"]


def test_a_resource_with_an_unknown_id_is_dropped_with_a_warning() -> None:
    key = {"urn": "urn:pulumi:dev::mlops::aws:kms/key:Key::data", "type": "aws:kms/key:Key", "inputs": {}}
    pulumi = FakePulumi(export([], ("creating", key)))
    lines: list[str] = []
    resolve_interrupted_update(pulumi, lines.append)
    assert pulumi.calls == ["stack export", "stack import"]
    assert lines[0].startswith("warning: ")
    assert "aws:kms/key:Key data" in lines[0]
    assert resolve_interrupted_update(pulumi, lines.append) is None


@pytest.mark.parametrize(
    ("kind", "inputs", "expected"),
    [
        ("aws:s3/bucketPolicy:BucketPolicy", {"bucket": "lake"}, "lake"),
        ("aws:iam/rolePolicy:RolePolicy", {"role": "r", "name": "p"}, "r:p"),
        ("aws:glue/catalogDatabase:CatalogDatabase", {"name": "db"}, "123456789012:db"),
        ("aws:glue/catalogTable:CatalogTable", {"databaseName": "db", "name": "t"}, "123456789012:db:t"),
        ("aws:glue/catalogTable:CatalogTable", {"catalogId": "9", "databaseName": "db", "name": "t"}, "9:db:t"),
        ("kubernetes:core/v1:Namespace", {"metadata": {"name": "models"}}, "models"),
        ("kubernetes:core/v1:Service", {"metadata": {"namespace": "models", "name": "s"}}, "models/s"),
        ("kubernetes:core/v1:Service", {"metadata": {}}, None),
        ("aws:kms/key:Key", {"description": "d"}, None),
        ("aws:iam/role:Role", {"namePrefix": "p"}, None),
        ("aws:sqs/queue:Queue", {"name": "q"}, None),
    ],
)
def test_an_import_id_follows_from_the_inputs_or_is_unknown(
    kind: str, inputs: dict[str, Any], expected: str | None
) -> None:
    assert import_id(kind, inputs, account) == expected
    assert expected is None or kind not in GENERATED
