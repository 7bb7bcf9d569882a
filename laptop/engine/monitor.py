"""Resource monitor for the Pulumi SDK of a program: converts wire messages to registrations and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.mocks import MockCallArgs, MockMonitor, MockResourceArgs, Mocks
from pulumi.runtime.proto import engine_pb2, resource_pb2

from laptop.engine.decisions import Options, Registration
from laptop.engine.execution import Execution, Outcome
from laptop.engine.progress import reason_of
from laptop.engine.provider import Providers, ResourceCall, is_provider
from laptop.engine.urns import Alias, make_urn
from laptop.engine.values import Properties, has_unknown
from laptop.engine.wire import decode, encode
from pipelines.declarations.errors import MlopsError


class RegistrationRefusedError(grpc.RpcError):  # type: ignore[misc]
    """Refusal in the form that the SDK raises at the program's own line."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._text = text

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.INVALID_ARGUMENT

    def details(self) -> str:
        return self._text


class _NoMocks(Mocks):
    """Required by the base class. `Monitor` answers every message that would reach the mocks."""

    def call(self, args: MockCallArgs) -> NoReturn:
        raise NotImplementedError(args.token)

    def new_resource(self, args: MockResourceArgs) -> NoReturn:
        raise NotImplementedError(args.typ)


class Monitor(MockMonitor):
    """Answers one program.

    Args:
        execution: executes registrations.
        providers: answer function calls.
        project: name of the project.
        stack: name of the stack.
    """

    def __init__(self, execution: Execution, providers: Providers, project: str, stack: str) -> None:
        super().__init__(_NoMocks())
        self._execution = execution
        self._providers = providers
        self._project = project
        self._stack = stack

    def GetDeploymentInfo(self, request: Any) -> Any:  # noqa: N802 - Pulumi's names
        # The SDK refuses every feature that is not listed, or implements it in the program.
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
            raise RegistrationRefusedError(f"{request.type} is a remote component, which the laptop cannot run")
        _refuse_options(request)
        try:
            inputs = decode(request.object)
        except MlopsError as error:
            raise RegistrationRefusedError(f"{request.type} {request.name}: {error}") from None
        if is_provider(request.type) and request.version:  # Pulumi keeps the version of an explicit provider
            inputs = Properties({**inputs.values, "version": request.version}, inputs.secrets)
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
            options=_options(request),
            aliases=(*(Alias(urn=urn) for urn in request.aliasURNs), *map(_alias, request.aliases)),
        )

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802
        self._execution.register_outputs(request.urn, decode(request.outputs))
        return empty_pb2.Empty()

    def ReadResource(self, request: Any) -> Any:  # noqa: N802
        urn = make_urn(self._stack, self._project, request.parent, request.type, request.name)
        inputs = decode(request.properties)
        identity = decode_identity(request.id)
        if identity is None:  # a preview in which the id is not known yet
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
                    ResourceCall(request.type, decode(request.properties).values, id=request.id)
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
        raise RegistrationRefusedError(f"{request.tok} is a resource method, which the laptop cannot call")

    def _answering(self, what: str, answer: Callable[[], Any]) -> Any:
        try:
            return answer()
        except Exception as error:
            raise RegistrationRefusedError(f"{what}: {reason_of(error)}") from error


def decode_identity(text: str) -> str | None:
    """Return an id from the wire; None if it is not known yet."""
    holder = encode(Properties({"id": text}))
    value = decode(holder).values["id"]
    return None if has_unknown(value) else text


def _result(outcome: Outcome) -> Any:
    # After FAIL the SDK leaves the outputs unknown and continues with independent resources.
    return resource_pb2.Result.FAIL if outcome.failed else resource_pb2.Result.SUCCESS


def _refuse_options(request: Any) -> None:
    """Refuse the options that the engine does not implement; ignoring one would change what a program means."""
    given = {
        "replacement_trigger": request.HasField("replacement_trigger"),
    }
    for option, is_given in given.items():
        if is_given:
            raise RegistrationRefusedError(
                f"{request.type} {request.name}: the laptop does not support the resource option `{option}`"
                "\n  fix: remove the option, or deploy this stack to AWS."
            )


def _alias(alias: Any) -> Alias:
    if alias.WhichOneof("alias") == "urn":
        return Alias(urn=alias.urn)
    spec = alias.spec
    return Alias("", spec.name, spec.type, spec.parentUrn, spec.noParent, spec.project, spec.stack)


def _options(request: Any) -> Options:
    return Options(
        protect=request.protect,
        retain_on_delete=request.retainOnDelete,
        delete_before_replace=request.deleteBeforeReplace if request.deleteBeforeReplaceDefined else None,
        ignore_changes=tuple(request.ignoreChanges),
        additional_secret_outputs=tuple(sorted(request.additionalSecretOutputs)),
        replace_on_changes=tuple(request.replaceOnChanges),
        deleted_with=request.deletedWith,
        replace_with=tuple(sorted(request.replace_with)),
        import_id=request.importId,
    )


class Log:
    """Receives the messages of the program's `pulumi.log`.

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
