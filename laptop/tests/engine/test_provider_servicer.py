from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2
from google.rpc import status_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from infra.policies.resource_graph import UNKNOWN
from laptop.engine.provider_servicer import ProviderServicer, serving
from laptop.engine.wire import decode
from laptop.tests.engine.fake_cloud import FakeCloud, FakeProvider
from laptop.tests.engine.plugin_client import Subject, subject, wire

THING = "fake:index:Thing"


def about(type_: str = THING, name: str = "a") -> Subject:
    return subject(type_, name)


@pytest.fixture
def provider(tmp_path: Path) -> FakeProvider:
    return FakeProvider(FakeCloud(tmp_path / "cloud.json"))


@pytest.fixture
def client(provider: FakeProvider) -> Iterator[Any]:
    with (
        serving(ProviderServicer(provider, "fake", "1.2.3")) as port,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield provider_pb2_grpc.ResourceProviderStub(channel)


def create(client: Any, *secrets: str, **values: Any) -> tuple[str, Any]:
    made = client.Create(provider_pb2.CreateRequest(**about(), properties=wire(*secrets, **values)))
    return made.id, made.properties


def diff(client: Any, old: dict[str, Any], new: dict[str, Any], type_: str = THING) -> Any:
    return client.Diff(
        provider_pb2.DiffRequest(**about(type_), id="i", old_inputs=wire(**old), olds=wire(**old), news=wire(**new))
    )


def test_a_resource_is_checked_created_changed_and_deleted(client: Any, provider: FakeProvider) -> None:
    checked = client.Check(provider_pb2.CheckRequest(**about(), news=wire(tags={"a": 1}))).inputs
    name = decode(checked).values["name"]
    assert name.startswith("a-")
    again = client.Check(provider_pb2.CheckRequest(**about(), olds=checked, news=wire(size=2))).inputs
    assert decode(again).values["name"] == name
    id_, outputs = create(client, **decode(checked).values)
    assert decode(outputs).values["arn"] == f"arn:{id_}"
    request = {**about(), "id": id_, "old_inputs": checked, "olds": outputs, "news": again}
    updated = client.Update(provider_pb2.UpdateRequest(**request)).properties
    assert provider.cloud.things()[id_]["size"] == 2
    client.Delete(provider_pb2.DeleteRequest(**about(), id=id_, old_inputs=again, properties=updated))
    assert provider.cloud.things() == {}


def test_a_difference_says_what_is_added_changed_removed_and_replaced(client: Any) -> None:
    kinds = provider_pb2.PropertyDiff
    found = diff(client, {"zone": "x", "size": 1, "gone": 1}, {"zone": "y", "size": 1, "tags": {"a": 1}})
    assert found.changes == found.DIFF_SOME
    assert list(found.replaces) == ["zone"]
    assert {path: item.kind for path, item in found.detailedDiff.items()} == {
        "zone": kinds.UPDATE_REPLACE,
        "gone": kinds.DELETE,
        "tags": kinds.ADD,
    }
    assert not found.deleteBeforeReplace
    assert diff(client, {"size": 1}, {"size": 1}).changes == found.DIFF_NONE
    assert diff(client, {"zone": "x"}, {"zone": "y"}, "fake:index:Named").deleteBeforeReplace


def test_an_unknown_input_replaces_only_if_the_property_does(client: Any) -> None:
    assert not diff(client, {"size": 1}, {"size": UNKNOWN}).replaces
    assert list(diff(client, {"zone": "x"}, {"zone": UNKNOWN}).replaces) == ["zone"]


def test_a_preview_changes_nothing_and_keeps_unknown_values(client: Any, provider: FakeProvider) -> None:
    request = provider_pb2.CreateRequest(**about(), properties=wire(size=UNKNOWN), preview=True)
    made = client.Create(request)
    assert made.id == ""
    assert decode(made.properties).values == {"size": UNKNOWN}
    change: dict[str, Any] = {
        "old_inputs": wire(size=1),
        "olds": wire(size=1, arn="x"),
        "news": wire(size=2),
        "preview": True,
    }
    assert decode(client.Update(provider_pb2.UpdateRequest(**about(), id="i", **change)).properties).values == {
        "size": 2,
        "arn": "x",
    }
    assert not provider.calls


def test_secrets_keep_their_marks_in_inputs_and_outputs(client: Any) -> None:
    checked = client.Check(provider_pb2.CheckRequest(**about(), news=wire("secret", secret="long-password")))
    assert ("secret",) in decode(checked.inputs).secrets
    id_, outputs = create(client, "secret", secret="long-password", name="n", tags={"copy": "is long-password"})
    assert decode(outputs).secrets == {("secret",), ("tags", "copy")}
    read = client.Read(provider_pb2.ReadRequest(**about(), id=id_, inputs=wire("secret", secret="long-password")))
    assert ("secret",) in decode(read.properties).secrets


def test_a_refresh_returns_what_drifted(client: Any, provider: FakeProvider) -> None:
    id_, outputs = create(client, name="n", size=1)
    with provider.cloud.open() as things:
        things[id_]["size"] = 9
    request = {**about(), "id": id_, "inputs": wire(name="n", size=1), "properties": outputs}
    read = client.Read(provider_pb2.ReadRequest(**request))
    assert decode(read.inputs).values == {"name": "n", "size": 9}
    assert client.Read(provider_pb2.ReadRequest(**{**request, "id": "none"})).id == ""


def test_errors_are_answered_without_a_traceback(client: Any) -> None:
    failures = client.Check(provider_pb2.CheckRequest(**about(), news=wire(bad="x"))).failures
    assert [failure.reason for failure in failures] == ["`bad` is not allowed: x"]
    for values in ({"fail": "no"}, {"explode": "x"}):
        with pytest.raises(grpc.RpcError) as caught:
            create(client, name="n", **values)
        assert caught.value.code() is grpc.StatusCode.UNKNOWN
        assert "Traceback" not in caught.value.details()


def test_a_failed_update_is_marked_as_partly_done(client: Any) -> None:
    id_, outputs = create(client, name="n", size=1)
    request: dict[str, Any] = {
        "old_inputs": wire(name="n", size=1),
        "olds": outputs,
        "news": wire(name="n", size=1, fail="no"),
    }
    with pytest.raises(grpc.RpcError) as caught:
        client.Update(provider_pb2.UpdateRequest(**about(), id=id_, **request))
    status = status_pb2.Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    detail = provider_pb2.ErrorResourceInitFailed()
    assert status.details[0].Unpack(detail)
    assert (detail.id, list(detail.reasons)) == (id_, ["the cloud refuses: no"])
    assert detail.properties == outputs


def test_a_cancelled_plugin_starts_no_change_until_an_engine_connects_again(
    client: Any, provider: FakeProvider
) -> None:
    client.Cancel(empty_pb2.Empty())
    with pytest.raises(grpc.RpcError) as caught:
        create(client, name="n")
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    assert provider.cloud.things() == {}
    client.Handshake(provider_pb2.ProviderHandshakeRequest())
    create(client, name="n")


def test_a_function_is_called(client: Any) -> None:
    answer = client.Invoke(provider_pb2.InvokeRequest(tok="fake:index:echo", args=wire(say="hello")))
    assert decode(getattr(answer, "return")).values == {"said": "hello"}
    with pytest.raises(grpc.RpcError, match="there is no function"):
        client.Invoke(provider_pb2.InvokeRequest(tok="fake:index:other", args=wire(say="hello")))
