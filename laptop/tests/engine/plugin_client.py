"""Start a plugin as the Pulumi CLI does, and an engine for it to talk to."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import grpc
import psutil
from google.protobuf import empty_pb2
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, resource_pb2, resource_pb2_grpc

from laptop.engine.plugin_process import start_server
from laptop.engine.values import Properties
from laptop.engine.wire import encode

WITHIN = 30.0
"""Seconds in which a plugin must answer or end."""


class Subject(TypedDict):
    """The fields by which each request of the provider protocol names its resource."""

    urn: str
    type: str
    name: str


def subject(type_: str, name: str) -> Subject:
    """Return the fields of a request about a resource of the stack `dev`."""
    return {"urn": f"urn:pulumi:dev::shop::{type_}::{name}", "type": type_, "name": name}


def wire(*secrets: str, **values: Any) -> Any:
    """Return properties as on the wire. `secrets` names those that are secret."""
    return encode(Properties(values, frozenset((name,) for name in secrets)))


@contextlib.contextmanager
def started(
    executable: Path, *arguments: str, environ: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], grpc.Channel]]:
    """Start a plugin; yield its process and a channel to it. Ends it with SIGINT, as the CLI does."""
    process = subprocess.Popen(
        [str(executable), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **(environ or {})},
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        port = int(process.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield process, channel
    finally:
        process.send_signal(2)
        process.stdin.close()
        process.wait(WITHIN)
        process.stdout.close()


def wait_until_ended(pids: Sequence[int]) -> None:
    """Wait until processes have ended; raise AssertionError if one has not within `WITHIN`."""
    found = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, living = psutil.wait_procs(found, timeout=WITHIN)
    assert not [process for process in living if process.status() != psutil.STATUS_ZOMBIE]


class Engine(resource_pb2_grpc.ResourceMonitorServicer, engine_pb2_grpc.EngineServicer):
    """Answers a program and keeps what it registered and logged."""

    def __init__(self) -> None:
        self.registered: list[Any] = []
        self.outputs: dict[str, Any] = {}
        self.logged: list[tuple[int, str]] = []
        self.called = threading.Event()

    def GetDeploymentInfo(self, request: Any, context: Any) -> Any:  # noqa: N802 - Pulumi's names
        return resource_pb2.DeploymentInfo(
            supportedFeatures=[
                resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS,
                resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_REFERENCES,
            ]
        )

    def SupportsFeature(self, request: Any, context: Any) -> Any:  # noqa: N802
        return resource_pb2.SupportsFeatureResponse(hasSupport=request.id in ("secrets", "resourceReferences"))

    def RegisterResource(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.registered.append(request)
        self.called.set()
        urn = f"urn:pulumi:{request.type}::{request.name}"
        return resource_pb2.RegisterResourceResponse(urn=urn, id="id", object=request.object)

    def RegisterResourceOutputs(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.outputs[request.urn] = request.outputs
        return empty_pb2.Empty()

    def SignalAndWaitForShutdown(self, request: Any, context: Any) -> Any:  # noqa: N802
        return empty_pb2.Empty()

    def Log(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.severity != engine_pb2.DEBUG:
            self.logged.append((request.severity, request.message))
        return empty_pb2.Empty()


@contextlib.contextmanager
def engine() -> Iterator[tuple[Engine, str]]:
    """Serve an `Engine`; yield it and its address."""
    served = Engine()

    def register(server: grpc.Server) -> None:
        resource_pb2_grpc.add_ResourceMonitorServicer_to_server(served, server)
        engine_pb2_grpc.add_EngineServicer_to_server(served, server)

    server, port = start_server(register)
    try:
        yield served, f"127.0.0.1:{port}"
    finally:
        server.stop(None)
