"""The resource monitor that the Pulumi SDK of the program talks to: wire messages to registrations and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.mocks import MockCallArgs, MockMonitor, MockResourceArgs, Mocks
from pulumi.runtime.proto import engine_pb2, resource_pb2

from laptop.engine.execution import Execution, Outcome
from laptop.engine.plan import Options, Registration
from laptop.engine.provider import Providers
from laptop.engine.report import reason_of
from laptop.engine.urns import AliasSpec, make_urn
from laptop.engine.values import Properties, has_unknown
from laptop.engine.wire import decode, encode
from pipelines.declarations.errors import MlopsError


class Refused(grpc.RpcError):  # type: ignore[misc]
    """How the SDK expects a monitor to say no: the program sees the text as an exception at its own line."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._text = text

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.INVALID_ARGUMENT

    def details(self) -> str:
        return self._text


class _NoMocks(Mocks):
    """The base class wants mocks; every message that would reach them is answered here."""

    def call(self, args: MockCallArgs) -> NoReturn:
        raise NotImplementedError(args.token)

    def new_resource(self, args: MockResourceArgs) -> NoReturn:
        raise NotImplementedError(args.typ)


class Monitor(MockMonitor):
    """Answers one program.

    Args:
        execution: what carries registrations out.
        providers: who answers function calls.
        project: the project's name.
        stack: the stack's name.
    """

    def __init__(self, execution: Execution, providers: Providers, project: str, stack: str) -> None:
        super().__init__(_NoMocks())
        self._execution = execution
        self._providers = providers
        self._project = project
        self._stack = stack

    def GetDeploymentInfo(self, request: Any) -> Any:  # noqa: N802 - the names are Pulumi's
        # What is not in this list the SDK refuses by itself, or does on the program's side.
        return resource_pb2.DeploymentInfo(
            supportedFeatures=[
                resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS,
                resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_REFERENCES,
                resource_pb2.RESOURCE_MONITOR_FEATURE_ALIAS_SPECS,
                resource_pb2.RESOURCE_MONITOR_FEATURE_DELETED_WITH,
                resource_pb2.RESOURCE_MONITOR_FEATURE_REPLACE_WITH,
            ]
        )

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802
        wanted = self._registration(request)
        outcome = self._execution.register(wanted)
        return resource_pb2.RegisterResourceResponse(
            urn=wanted.urn, id=outcome.id, object=encode(outcome.outputs), result=_result(outcome)
        )

    def _registration(self, request: Any) -> Registration:
        if request.remote:
            raise Refused(f"{request.type} is a component of another language, which the local target cannot run")
        if request.HasField("replacement_trigger"):
            raise Refused(f"{request.name}: the local target does not know the option replacement_trigger")
        try:
            inputs = decode(request.object)
        except MlopsError as error:
            raise Refused(f"{request.type} {request.name}: {error}") from None
        return Registration(
            urn=make_urn(self._stack, self._project, request.parent, request.type, request.name),
            custom=request.custom,
            inputs=inputs,
            parent=request.parent,
            dependencies=tuple(sorted(request.dependencies)),
            property_dependencies=tuple(
                sorted(
                    (key, tuple(sorted(item.urns))) for key, item in request.propertyDependencies.items() if item.urns
                )
            ),
            provider=request.provider,
            aliases=tuple(_alias(item) for item in request.aliases) or tuple(request.aliasURNs),
            options=_options(request),
        )

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802
        self._execution.register_outputs(request.urn, decode(request.outputs))
        return empty_pb2.Empty()

    def ReadResource(self, request: Any) -> Any:  # noqa: N802
        urn = make_urn(self._stack, self._project, request.parent, request.type, request.name)
        inputs = decode(request.properties)
        identity = decode_identity(request.id)
        if identity is None:  # a preview that cannot know yet what to read
            return resource_pb2.ReadResourceResponse(urn=urn, properties=encode(inputs))
        wanted = Registration(
            urn=urn,
            custom=True,
            inputs=inputs,
            parent=request.parent,
            dependencies=tuple(sorted(request.dependencies)),
            provider=request.provider,
            options=Options(additional_secret_outputs=tuple(request.additionalSecretOutputs)),
        )
        outcome = self._execution.read(wanted, identity)
        return resource_pb2.ReadResourceResponse(
            urn=urn, id=outcome.id, properties=encode(outcome.outputs), result=_result(outcome)
        )

    def ExistsResource(self, request: Any) -> Any:  # noqa: N802
        return self._answering(
            request.type,
            lambda: resource_pb2.ExistsResourceResponse(
                exists=self._providers.serving(request.type).read(
                    request.type, request.id, decode(request.properties).values, {}
                )
                is not None
            ),
        )

    def Invoke(self, request: Any) -> Any:  # noqa: N802
        def invoke() -> Any:
            args = decode(request.args).values
            result = self._providers.serving(request.tok).invoke(request.tok, args)
            return resource_pb2.ResourceInvokeResponse(**{"return": encode(Properties(result))})

        return self._answering(request.tok, invoke)

    def Call(self, request: Any) -> NoReturn:  # noqa: N802
        raise Refused(f"{request.tok} is a method of a resource, which the local target cannot call")

    def _answering(self, what: str, answer: Callable[[], Any]) -> Any:
        try:
            return answer()
        except Exception as error:
            raise Refused(f"{what}: {reason_of(error)}") from error


def decode_identity(text: str) -> str | None:
    """An id from the wire; None when it is not known yet."""
    holder = encode(Properties({"id": text}))
    value = decode(holder).values["id"]
    return None if has_unknown(value) else text


def _result(outcome: Outcome) -> Any:
    # With FAIL the SDK leaves all outputs unknown and goes on, so that what does not depend on it is still done.
    return resource_pb2.Result.FAIL if outcome.failed else resource_pb2.Result.SUCCESS


def _alias(alias: Any) -> str | AliasSpec:
    if alias.WhichOneof("alias") == "urn":
        return str(alias.urn)
    spec = alias.spec
    parent: str | None = None
    if spec.WhichOneof("parent") == "noParent" and spec.noParent:
        parent = ""
    elif spec.parentUrn:
        parent = spec.parentUrn
    return AliasSpec(spec.name, spec.type, spec.stack, spec.project, parent)


def _options(request: Any) -> Options:
    timeouts = request.customTimeouts
    given = (("create", timeouts.create), ("update", timeouts.update), ("delete", timeouts.delete))
    return Options(
        protect=request.protect,
        retain_on_delete=request.retainOnDelete,
        delete_before_replace=request.deleteBeforeReplace if request.deleteBeforeReplaceDefined else None,
        ignore_changes=tuple(request.ignoreChanges),
        replace_on_changes=tuple(request.replaceOnChanges),
        replace_with=tuple(request.replace_with),
        additional_secret_outputs=tuple(sorted(request.additionalSecretOutputs)),
        import_id=request.importId,
        deleted_with=request.deletedWith,
        timeouts=tuple((name, value) for name, value in given if value),
    )


class Log:
    """Where `pulumi.log` of the program goes.

    Args:
        say: shows one line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.errors = 0

    def Log(self, request: Any) -> Any:  # noqa: N802
        if request.severity == engine_pb2.DEBUG:
            return empty_pb2.Empty()
        prefix = {engine_pb2.WARNING: "warning: ", engine_pb2.ERROR: "error: "}.get(request.severity, "")
        self.errors += request.severity == engine_pb2.ERROR
        about = f"{request.urn.rpartition('::')[2]}: " if request.urn else ""
        self._say(f"{prefix}{about}{request.message}")
        return empty_pb2.Empty()

    def RequirePulumiVersion(self, request: Any) -> Any:  # noqa: N802
        return empty_pb2.Empty()
