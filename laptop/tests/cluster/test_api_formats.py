"""Formats of the API: OpenAPI v2, protobuf bodies, YAML, metadata only."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from laptop.cluster import openapi_v2, protobuf_bodies
from laptop.cluster.kinds import KINDS
from laptop.tests.cluster.bare_api import running_api

OPENAPI = openapi_v2.PROTOBUF


@pytest.fixture(scope="module")
def api() -> Any:
    with running_api() as client:
        yield client


def fields(data: bytes) -> list[tuple[int, Any]]:
    return list(protobuf_bodies._fields(data))


def test_openapi_v2_describes_every_kind_and_resolves_every_reference(api: httpx.Client) -> None:
    document = api.get("/openapi/v2").json()
    kinds = {
        (each["group"], each["version"], each["kind"])
        for schema in document["definitions"].values()
        for each in schema.get("x-kubernetes-group-version-kind", ())
    }
    assert kinds == {(kind.group, kind.version, kind.name) for kind in KINDS}
    text = json.dumps(document)
    for name in set(text.split('"#/definitions/')[1:]):
        assert name.partition('"')[0] in document["definitions"]
    ports = document["definitions"]["io.k8s.api.core.v1.Container"]["properties"]["ports"]
    assert ports["x-kubernetes-list-map-keys"] == ["containerPort", "protocol"]


def test_openapi_v2_in_protobuf_holds_the_same_definitions(api: httpx.Client) -> None:
    answer = api.get("/openapi/v2", headers={"Accept": OPENAPI})
    assert answer.headers["Content-Type"] == openapi_v2.ANSWERED
    document = dict(fields(answer.content))
    assert document[1] == b"2.0"
    named = [dict(fields(value)) for number, value in fields(document[9]) if number == 1]
    assert [item[1].decode() for item in named] == list(openapi_v2.document()["definitions"])
    (container,) = [item[2] for item in named if item[1] == b"io.k8s.api.core.v1.Container"]
    properties = [dict(fields(value)) for _, value in fields(dict(fields(container))[25])]
    assert {item[1].decode() for item in properties} >= {"name", "image", "env", "ports"}


def varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def envelope(api_version: str, kind: str, body: bytes) -> bytes:
    type_ = message(1, api_version.encode()) + message(2, kind.encode())
    return b"k8s\x00" + message(1, type_) + message(2, body)


def test_an_object_is_created_from_protobuf(api: httpx.Client) -> None:
    entry = message(1, b"k") + message(2, b"v")
    body = envelope("v1", "ConfigMap", message(1, message(1, b"from-protobuf")) + message(2, entry))
    path = "/api/v1/namespaces/default/configmaps"
    answer = api.post(path, content=body, headers={"Content-Type": protobuf_bodies.MEDIA_TYPE})
    assert answer.status_code == 201
    assert api.get(f"{path}/from-protobuf").json()["data"] == {"k": "v"}


def test_a_pointer_to_zero_is_kept_and_a_plain_zero_is_not() -> None:
    spec = varint(1 << 3) + b"\x00" + varint(5 << 3) + b"\x00"  # replicas, minReadySeconds
    found = protobuf_bodies.decode(envelope("apps/v1", "Deployment", message(2, spec)))
    assert found["spec"] == {"replicas": 0}


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"k8s\x00", b"k8s\x00\xff", envelope("v1", "Thing", b""), envelope("v1", "ConfigMap", b"\x0a\x7f")],
)
def test_a_body_that_is_not_protobuf_is_refused(api: httpx.Client, body: bytes) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    answer = api.post(path, content=body, headers={"Content-Type": protobuf_bodies.MEDIA_TYPE})
    assert answer.status_code == 400
    assert answer.json()["reason"] == "BadRequest"


@given(st.binary(max_size=40))
@settings(max_examples=200)
def test_no_bytes_end_in_another_error(data: bytes) -> None:
    try:
        found = protobuf_bodies.decode(envelope("v1", "Pod", data))
    except protobuf_bodies.ProtobufError:
        return
    assert found["kind"] == "Pod"


def test_yaml_is_read_and_written(api: httpx.Client) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    text = "metadata: {name: from-yaml}\ndata: {a: b}\n"
    made = api.post(path, content=text, headers={"Content-Type": "application/yaml", "Accept": "application/yaml"})
    assert made.status_code == 201
    assert yaml.safe_load(made.text)["data"] == {"a": "b"}
