from __future__ import annotations

from typing import Any

import pytest

from pipelines.cluster.applied_fields import managers_of_field, owned_by


def resource(fields: dict[str, Any], spec: Any, **entry: Any) -> dict[str, Any]:
    applied = {"manager": "us", "operation": "Apply", "fieldsV1": {"f:spec": fields}} | entry
    return {
        "apiVersion": "v1",
        "kind": "Thing",
        "metadata": {"name": "t", "namespace": "n", "labels": {"theirs": "1"}, "managedFields": [applied]},
        "spec": spec,
    }


@pytest.mark.parametrize(
    ("fields", "value", "expected"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"f:a": {}}, {"a": {"x": 1}, "b": 2}, {"a": {"x": 1}}),
        ({"f:a": {".": {}, "f:x": {}}}, {"a": {"x": 1, "y": 2}}, {"a": {"x": 1}}),
        ({"f:a": {".": {}}}, {"a": {"y": 2}}, {"a": {}}),
        ({"f:gone": {}}, {"b": 2}, {}),
        (
            {"f:l": {'k:{"name":"x"}': {"f:name": {}}}},
            {"l": [{"name": "y"}, {"name": "x", "z": 1}]},
            {"l": [{"name": "x"}]},
        ),
        ({"f:l": {'v:"x"': {}, "v:2": {}}}, {"l": ["y", "x", 2]}, {"l": ["x", 2]}),
        ({"f:l": {"i:1": {}}}, {"l": ["a", "b"]}, {"l": ["b"]}),
        # The API server adds the protocol to the key, and not always to the port.
        ({"f:l": {'k:{"port":80,"protocol":"TCP"}': {"f:port": {}}}}, {"l": [{"port": 80}]}, {"l": [{"port": 80}]}),
        ({"f:l": {'k:{"port":80,"protocol":"TCP"}': {}}}, {"l": [{"port": 80, "protocol": "UDP"}]}, {"l": []}),
    ],
)
def test_what_a_manager_applied_is_extracted(fields: dict[str, Any], value: Any, expected: Any) -> None:
    found = owned_by(resource(fields, value), "us")
    assert found == {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "t", "namespace": "n"}, "spec": expected}


@pytest.mark.parametrize("entry", [{"manager": "them"}, {"operation": "Update"}, {"subresource": "status"}])
def test_fields_that_were_not_applied_by_the_manager_do_not_count(entry: dict[str, str]) -> None:
    assert owned_by(resource({"f:a": {}}, {"a": 1}, **entry), "us") is None


def test_the_managers_of_a_field_are_those_that_applied_it() -> None:
    one = resource({"f:a": {"f:b": {}}}, {"a": {"b": 1}})
    assert managers_of_field(one, ("spec", "a", "b")) == ["us"]
    assert managers_of_field(one, ("spec", "a")) == ["us"]
    assert managers_of_field(one, ("spec", "c")) == []
    assert managers_of_field({"metadata": {}}, ("spec",)) == []
