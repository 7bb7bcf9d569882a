"""Run a Pulumi program against a mock monitor, and record the resources that it registers."""

from __future__ import annotations

import asyncio
import base64
import contextvars
import functools
import importlib
import json
import os
import re
import runpy
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from google.protobuf import empty_pb2
from pulumi.runtime import config as sdk_config
from pulumi.runtime import rpc
from pulumi.runtime import settings as sdk_settings
from pulumi.runtime.mocks import MockCallArgs, MockMonitor, MockResourceArgs, Mocks
from pulumi.runtime.stack import run_in_stack

from infra.components import association_wait
from infra.policies import PlannedResource

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT = "111122223333"
REGION = "eu-west-1"
IMAGE = "sha256:" + "1a" * 32
BUNDLE = "sha256:" + "b0" * 32
STACK = "pulumi:pulumi:Stack"
AUTHORITY = b"-----BEGIN CERTIFICATE-----\nof every cluster\n-----END CERTIFICATE-----\n"
"""Certificate authority of the cluster that EKS describes and that KUBECONFIG leads to."""


@dataclass
class Recording:
    """The registrations of one run of a program.

    Attributes:
        resources: all resources and components with their outputs, in the order of registration.
        providers: URN → URN of the explicit provider that serves it.
        ignored: URN → properties whose changes are ignored.
        dependencies: URN → URNs of the resources that it depends on.
        former_parents: URN → URNs of the parents that it may have had before.
        outputs: the stack's outputs.
        registered: URNs of the components that registered their outputs.
        invoked: tokens of the functions that were called.
    """

    resources: list[PlannedResource] = field(default_factory=list)
    providers: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, tuple[str, ...]] = field(default_factory=dict)
    dependencies: dict[str, tuple[str, ...]] = field(default_factory=dict)
    former_parents: dict[str, tuple[str, ...]] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    registered: list[str] = field(default_factory=list)
    invoked: list[str] = field(default_factory=list)

    def of_type(self, type_: str) -> dict[str, PlannedResource]:
        """Return the resources of a type, by name."""
        return {resource.name: resource for resource in self.resources if resource.type == type_}

    def one(self, type_: str, name: str) -> PlannedResource:
        """Return the resource of a type and name."""
        return self.of_type(type_)[name]

    def policy(self, role: str) -> list[dict[str, Any]]:
        """Return the statements of the inline policy of a workload's role."""
        statements: list[dict[str, Any]] = json.loads(self.one("aws:iam/rolePolicy:RolePolicy", role).props["policy"])[
            "Statement"
        ]
        return statements


class _Cloud(Mocks):
    """Mocks that compute outputs as the providers do.

    Args:
        descriptors: environment → the output `descriptor` of its stack.
        echo: return the inputs only, as Pulumi's plain mocks do.
        last_outputs: the outputs of the stack's last update.
    """

    def __init__(
        self, recording: Recording, descriptors: Mapping[str, Any], *, echo: bool, last_outputs: Mapping[str, Any]
    ) -> None:
        self._recording = recording
        self._descriptors = descriptors
        self._echo = echo
        self._last_outputs = last_outputs

    def call(self, args: MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        return self._called(args), []

    def _called(self, args: MockCallArgs) -> dict[str, Any]:
        self._recording.invoked.append(args.token)
        if args.token.endswith("getCallerIdentity"):
            return {"accountId": ACCOUNT, "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/deploy/run", "userId": "x"}
        if args.token.endswith("getRegion"):
            return {"region": REGION, "name": REGION}
        if args.token.endswith("getCluster"):
            name = args.args["name"]
            return {
                "arn": f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{name}",
                "certificateAuthorities": [{"data": base64.b64encode(AUTHORITY).decode()}],
            }
        if args.token.endswith("getPublicKey"):
            return {"publicKeyPem": f"PEM of {args.args.get('keyId')}"}
        raise AssertionError(f"the program called {args.token}")

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        inputs = dict(args.inputs)
        if args.typ == "pulumi:pulumi:StackReference":
            stack = args.inputs["name"]
            environment = stack.rpartition("/")[2]
            outputs = {"descriptor": self._descriptors[environment]} if environment in self._descriptors else {}
            if args.name == "last-update":
                outputs = dict(self._last_outputs)
            return args.name, {"name": stack, "outputs": outputs, "secretOutputNames": []}
        if self._echo:
            return f"{args.name}-id", inputs
        arn = f"arn:aws:{args.typ.split(':')[1].split('/')[0]}:{REGION}:{ACCOUNT}:{args.name}"
        known: dict[str, dict[str, Any]] = {
            "aws:s3/bucket:Bucket": {"arn": f"arn:aws:s3:::{inputs.get('bucket')}"},
            "aws:kms/key:Key": {"arn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{args.name}", "keyId": args.name},
            "aws:iam/role:Role": {"arn": f"arn:aws:iam::{ACCOUNT}:role/{inputs.get('name')}"},
            "aws:ecr/repository:Repository": {
                "repositoryUrl": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{inputs.get('name')}"
            },
            "kubernetes:networking.k8s.io/v1:Ingress": {
                "status": {"loadBalancer": {"ingress": [{"hostname": f"{args.name}.elb.example"}]}}
            },
        }
        computed = known.get(args.typ, {"arn": arn} if args.typ.startswith("aws:") else {})
        id_ = str(inputs.get("bucket") or inputs.get("name") or args.name)
        return id_, {**inputs, **computed}


class _Monitor(MockMonitor):
    def __init__(self, recording: Recording, mocks: Mocks, *, preview: bool) -> None:
        super().__init__(mocks)
        self._recording = recording
        self._preview = preview

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802
        if request.type == STACK:
            return super().RegisterResource(request)  # type: ignore[no-untyped-call]
        answer = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        if self._preview and request.custom:
            # In a first preview the inputs are known, and what the provider computes is unknown.
            answer.object.CopyFrom(request.object)
            for name in computed_outputs(request.type) - set(request.object.fields):
                answer.object.fields[name].string_value = rpc.UNKNOWN
            answer.id = ""
        outputs = rpc.deserialize_properties(answer.object, keep_unknowns=True) if request.custom else {}
        self._recording.resources.append(
            PlannedResource(request.type, request.name, answer.urn, outputs, request.protect, request.parent)
        )
        self._recording.providers[answer.urn] = request.provider.rpartition("::")[0]
        self._recording.ignored[answer.urn] = tuple(request.ignoreChanges)
        self._recording.dependencies[answer.urn] = tuple(request.dependencies)
        parents = tuple(alias.spec.parentUrn for alias in request.aliases if alias.spec.parentUrn)
        self._recording.former_parents[answer.urn] = parents
        return answer

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802
        outputs = rpc.deserialize_properties(request.outputs, keep_unknowns=True)
        if STACK in request.urn.split("::")[2:3]:
            self._recording.outputs = outputs
        else:
            self._recording.registered.append(request.urn)
            resources = self._recording.resources
            resources[:] = [replace(one, props=outputs) if one.urn == request.urn else one for one in resources]
        return empty_pb2.Empty()


@functools.cache
def computed_outputs(type_: str) -> frozenset[str]:
    """Return the outputs that AWS sets if the program does not. In a preview they are unknown.

    The SDK declares them as outputs that are never None. A Kubernetes provider computes its preview by a dry run
    instead, so nothing that the rules read is unknown.
    """
    if not type_.startswith("aws:"):
        return frozenset()
    module, name = type_.split(":")[1].partition("/")[0], type_.rpartition(":")[2]
    class_ = getattr(importlib.import_module(f"pulumi_aws.{module}"), name)
    getters: list[Any] = [value.fget for value in vars(class_).values() if isinstance(value, property)]
    optional = re.compile(r"Output\[(typing\.)?Optional\[")
    return frozenset(
        getter._pulumi_name for getter in getters if not optional.search(str(getter.__annotations__["return"]))
    )


async def no_pause(_: float) -> None:
    """Return at once."""


def record(
    project: Path,
    environment: str,
    *,
    descriptors: Mapping[str, Any] | None = None,
    preview: bool = False,
    echo: bool = False,
    last_outputs: Mapping[str, Any] | None = None,
    pause: Callable[[float], Awaitable[None]] = no_pause,
    program: Path = ROOT / "infra" / "__main__.py",
) -> Recording:
    """Run the program of an environment of a project.

    Args:
        project: the folder with `Pulumi.yaml`.
        environment: the stack.
        descriptors: environment → the output `descriptor` of its stack.
        preview: leave values unknown that do not exist yet.
        echo: answer with the inputs only, as Pulumi's plain mocks do.
        last_outputs: the outputs of the stack's last update.
        pause: called instead of waiting for new Pod Identity associations.
        program: the program to run.
    """
    recording = Recording()
    mocks = _Cloud(recording, descriptors or {}, echo=echo, last_outputs=last_outputs or {})
    with patch.object(association_wait, "pause", pause):
        _run(project, environment, program, _Monitor(recording, mocks, preview=preview), preview)
    return recording


def record_bootstrap(project: Path) -> Recording:
    """Run the bootstrap of a project's account. The project must contain `infra/bootstrap`."""
    recording = Recording()
    folder = project / "infra" / "bootstrap"
    monitor = _Monitor(recording, _Cloud(recording, {}, echo=False, last_outputs={}), preview=False)
    _run(folder, "account", folder / "__main__.py", monitor, preview=False)
    return recording


def _run(folder: Path, stack: str, program: Path, monitor: _Monitor, preview: bool) -> None:
    """Run a program as the stack of the Pulumi project in a folder."""
    config = yaml.safe_load((folder / f"Pulumi.{stack}.yaml").read_text())["config"]
    name = yaml.safe_load((folder / "Pulumi.yaml").read_text())["name"]

    def run_program() -> None:
        runpy.run_path(str(program), run_name="__main__")

    def run() -> None:
        sdk_settings.configure(
            sdk_settings.Settings(
                project=name, stack=stack, monitor=monitor, dry_run=preview, organization="organization"
            )
        )
        sdk_settings.ROOT.set(None)
        sdk_config.set_all_config({key: v if isinstance(v, str) else json.dumps(v) for key, v in config.items()}, [])
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        try:
            loop.run_until_complete(run_in_stack(run_program))
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    before, kubeconfig = Path.cwd(), os.environ.get("KUBECONFIG")
    os.chdir(folder)
    try:
        with tempfile.TemporaryDirectory() as home:
            os.environ["KUBECONFIG"] = str(write_kubeconfig(Path(home, "kubeconfig"), AUTHORITY))
            contextvars.copy_context().run(run)
    finally:
        os.chdir(before)
        if kubeconfig is None:
            del os.environ["KUBECONFIG"]
        else:
            os.environ["KUBECONFIG"] = kubeconfig


def write_kubeconfig(file: Path, authority: bytes) -> Path:
    """Write a kubeconfig whose current context is another cluster than the one with an authority."""
    data = {"certificate-authority-data": base64.b64encode(authority).decode(), "server": "https://cluster.example"}
    other = {"certificate-authority-data": base64.b64encode(b"other").decode(), "server": "https://other.example"}
    document = {
        "clusters": [{"name": "other", "cluster": other}, {"name": "declared", "cluster": data}],
        "contexts": [
            {"name": "wrong", "context": {"cluster": "other", "user": "x"}},
            {"name": "right", "context": {"cluster": "declared", "user": "x"}},
        ],
        "current-context": "wrong",
    }
    file.write_text(yaml.safe_dump(document))
    return file


def edit(file: Path, *path: str, value: Any) -> None:
    """Set a value in a YAML file."""
    document = yaml.safe_load(file.read_text())
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    file.write_text(yaml.safe_dump(document, sort_keys=False))


def record_dev(project: Path, **settings: Any) -> Recording:
    """Change settings of dev in a copied project, and run the program of dev as if no other environment were up."""
    for name, value in settings.items():
        edit(project / "Pulumi.dev.yaml", "config", "mlops:environment", name, value=value)
    return record(project, "dev", descriptors={})


def release_everywhere(project: Path) -> Path:
    """Pin both images, and release a bundle of every model, in every environment of a copied project."""
    for file in project.glob("Pulumi.*.yaml"):
        environment = file.name.split(".")[1]
        edit(file, "config", "mlops:environment", "images", value={"training": IMAGE, "serving": IMAGE})
        for release in project.glob(f"models/*/releases/{environment}.yaml"):
            edit(release, "bundle", value=BUNDLE)
    return project
