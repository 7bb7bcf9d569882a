"""AWS account for tests: a moto server on 127.0.0.1, without IAM enforcement."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import boto3

from pipelines.declarations.contract import Contract
from pipelines.declarations.environment import EnvironmentDescriptor, ImageReferences, Repositories
from pipelines.declarations.names import table_name

REGION = "eu-west-1"
ACCOUNT = "123456789012"


@dataclass(frozen=True)
class EmulatedAccount:
    """A running moto server.

    Attributes:
        endpoint: base URL of all services.
        denied: buckets for which every request is denied.
    """

    endpoint: str
    denied: set[str] = field(default_factory=set)

    def environ(self) -> dict[str, str]:
        """Return the environment variables that point AWS SDKs to the account."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


class _Gateway:
    """Serialise requests, because moto's conditional writes are not atomic; and deny access to some buckets.

    Updates of a Glue table are conditional, too: moto ignores the version that they name.
    """

    def __init__(self, application: Any, denied: set[str]) -> None:
        self._application = application
        self._denied = denied
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"].split("/")[1] in self._denied:
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        with self._lock:
            if environ.get("HTTP_X_AMZ_TARGET") == "AWSGlue.UpdateTable" and _is_outdated(environ):
                start_response("400 Bad Request", [("Content-Type", "application/x-amz-json-1.1")])
                return [b'{"__type": "ConcurrentModificationException", "Message": "concurrent modifications"}']
            return list(self._application(environ, start_response))


def _is_outdated(environ: dict[str, Any]) -> bool:
    """Return True if a Glue table no longer has the version that a request wants to update."""
    from moto.glue.models import glue_backends

    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    environ["wsgi.input"] = io.BytesIO(body)
    given = json.loads(body)
    table = glue_backends[ACCOUNT][REGION].get_table(given["DatabaseName"], given["TableInput"]["Name"])
    return given.get("VersionId") not in (None, str(table.as_dict()["VersionId"]))


@contextmanager
def emulated_account() -> Iterator[EmulatedAccount]:
    """Start an account, and point the SDKs of this process to it until the block ends."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        account = EmulatedAccount(f"http://{host}:{port}")
        # moto keeps one state for all servers of a process.
        urllib.request.urlopen(urllib.request.Request(f"{account.endpoint}/moto-api/reset", method="POST")).close()
        server._server.app = _Gateway(server._server.app, account.denied)  # type: ignore[union-attr]
        others = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MLOPS_"))}
        with mock.patch.dict(os.environ, {**others, **account.environ()}, clear=True):
            boto3.setup_default_session()
            yield account
    finally:
        server.stop()
        boto3.setup_default_session()


def make_environment(name: str = "dev", *contracts: Contract) -> EnvironmentDescriptor:
    """Create the buckets, Glue database and empty Iceberg tables of an environment, with unique names.

    Args:
        name: name of the environment.
        contracts: contracts to create tables for.
    """
    unique = uuid.uuid4().hex[:12]
    buckets = {kind: f"{name}-{kind}-{unique}" for kind in ("landing", "lake", "logs", "registry")}
    s3 = boto3.client("s3")
    for bucket in buckets.values():
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    database = f"{name}_{unique}"
    boto3.client("glue").create_database(DatabaseInput={"Name": database})
    descriptor = EnvironmentDescriptor(
        name=name,
        promotes_from=None,
        region=REGION,
        account=ACCOUNT,
        landing_bucket=buckets["landing"],
        lake_bucket=buckets["lake"],
        logs_bucket=buckets["logs"],
        registry_bucket=buckets["registry"],
        catalog_database=database,
        signing_key=f"arn:aws:kms:{REGION}:{ACCOUNT}:key/none",
        trusted_keys={},
        cluster=f"mlops-{name}",
        namespace=f"models-{name}",
        images=ImageReferences(training=None, serving=None),
        repositories=Repositories(training="none", serving="none"),
    )
    for contract in contracts:
        make_table(descriptor, contract)
    return descriptor


def make_table(descriptor: EnvironmentDescriptor, contract: Contract) -> None:
    """Create the empty Iceberg table of a contract."""
    from pipelines.data.catalog import open_catalog
    from pipelines.data.columns import iceberg_schema

    table = table_name(contract.name)
    open_catalog(descriptor).create_table(
        (descriptor.catalog_database, table),
        iceberg_schema(contract),
        location=f"s3://{descriptor.lake_bucket}/{descriptor.catalog_database}/{table}",
        properties={"format-version": "2"},
    )
