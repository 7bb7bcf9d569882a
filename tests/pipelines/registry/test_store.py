from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from pipelines.declarations.errors import MlopsError
from pipelines.registry import store

SERVING = {
    "boto3",
    "botocore",
    "cryptography",
    "httptools",
    "msgspec",
    "numpy",
    "onnxruntime",
    "pydantic",
    "rfc8785",
    "yaml",
}


def client(**options: Any) -> Any:
    """Make a client of an endpoint that does not exist."""
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    return boto3.client("s3", region_name="eu-west-1", endpoint_url="http://127.0.0.1:9", **keys, **options)


def answers(*codes: tuple[str, int] | None, message: str = "") -> Any:
    """Make a client whose writes end with these error codes in turn; None is a success."""
    stubbed = client()
    stub = Stubber(stubbed)
    for code in codes:
        if code is None:
            stub.add_response("put_object", {"ETag": '"1"'})
        else:
            stub.add_client_error("put_object", code[0], message, http_status_code=code[1])
    stub.activate()
    return stubbed


def test_a_denied_write_says_what_to_grant() -> None:
    with pytest.raises(store.AccessDeniedError) as caught:
        store.put_new("b", "ledger/x", b"", client=answers(("AccessDenied", 403)))
    assert caught.value.what == "s3:PutObject on s3://b/ledger/x was denied"
    assert caught.value.fix == "grant the caller's role s3:PutObject on this prefix"


@pytest.mark.parametrize("resource", ["arn:aws:kms:eu-west-1:1:key/7", '"arn:aws:kms:eu-west-1:1:key/7"'])
def test_a_write_that_is_denied_for_its_key_names_the_right_to_the_key(resource: str) -> None:
    missed = f"is not authorized to perform: kms:GenerateDataKey on resource: {resource}"
    message = f"User: arn:aws:iam::1:user/ada {missed} because no identity-based policy allows it"
    with pytest.raises(store.AccessDeniedError) as caught:
        store.put_new("b", "ledger/x", b"", client=answers(("AccessDenied", 403), message=message))
    key = "kms:GenerateDataKey on arn:aws:kms:eu-west-1:1:key/7"
    assert caught.value.what == f"s3:PutObject on s3://b/ledger/x was denied: it needs {key}"
    assert caught.value.fix == f"grant the caller's role {key}"


@pytest.mark.parametrize(
    "message", ["Access Denied", "x is not authorized to perform: s3:PutObject on resource: arn:x"]
)
def test_a_write_that_is_denied_for_itself_says_no_more(message: str) -> None:
    with pytest.raises(store.AccessDeniedError) as caught:
        store.put_new("b", "k", b"", client=answers(("AccessDenied", 403), message=message))
    assert caught.value.what == "s3:PutObject on s3://b/k was denied"


def test_a_write_that_conflicts_with_another_is_retried() -> None:
    conflict = ("ConditionalRequestConflict", 409)
    assert store.put_new("b", "k", b"", client=answers(conflict, conflict, None)) == '"1"'
    with pytest.raises(store.PreconditionFailedError):
        store.put_new("b", "k", b"", client=answers(conflict, ("PreconditionFailed", 412)))
    with pytest.raises(MlopsError, match="another write of s3://b/k is in progress"):
        store.put_new("b", "k", b"", client=answers(*[conflict] * store.ATTEMPTS))


def test_a_service_failure_is_an_error_with_its_reason() -> None:
    with pytest.raises(MlopsError, match=r"s3:PutObject on s3://b/k failed: .*SlowDown") as failed:
        store.put_new("b", "k", b"", client=answers(("SlowDown", 503)))
    assert failed.value.fix.startswith("run this again when")


def test_an_unreachable_endpoint_is_an_error_with_a_fix() -> None:
    once = Config(retries={"total_max_attempts": 1}, connect_timeout=1)
    with pytest.raises(MlopsError, match="s3:GetObject on s3://b/k failed") as caught:
        store.get("b", "k", limit=1, client=client(config=once))
    assert caught.value.fix == "check the AWS credentials, region and endpoint"


def test_an_s3_url_is_split_into_bucket_and_key() -> None:
    assert store.split_url("s3://bucket/some/key") == ("bucket", "some/key")
    for url in ("http://bucket/key", "s3://bucket", "s3://bucket/", "s3:///key", "bucket/key"):
        with pytest.raises(ValueError, match="expected s3://<bucket>/<key>"):
            store.split_url(url)


def test_the_registry_needs_only_what_the_serving_image_installs() -> None:
    for path in Path(store.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                package = name.split(".")[0]
                ours = name.startswith(("pipelines.registry", "pipelines.declarations"))
                assert package in SERVING | set(sys.stdlib_module_names) or ours, f"{path.name} imports {name}"


def test_a_wrong_clock_is_named_and_not_taken_for_a_missing_right() -> None:
    class Refusing:
        def get_object(self, **_: object) -> None:
            error = {"Code": "RequestTimeTooSkewed", "Message": "The difference is too large."}
            raise ClientError({"Error": error, "ResponseMetadata": {"HTTPStatusCode": 403}}, "GetObject")

    with pytest.raises(MlopsError, match="refused because of its time") as caught:
        store.get("bucket", "key", limit=1, client=Refusing())
    assert caught.value.fix == "set the clock of this machine"
