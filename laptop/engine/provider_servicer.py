"""Serve a provider over Pulumi's provider protocol, so the Pulumi CLI can use it.

The CLI starts an executable `pulumi-resource-<package>` and reads the port from its standard output, or attaches to
the port that `PULUMI_DEBUG_PROVIDERS=<package>:<port>` names.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, empty_pb2, struct_pb2
from google.rpc import status_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from infra.policies.resource_graph import UNKNOWN
from laptop.engine.decisions import without_unknowns
from laptop.engine.paths import changed_paths, parse_path, write_path
from laptop.engine.plugin_process import start_server
from laptop.engine.progress import reason_of
from laptop.engine.provider import Diff as ProviderDiff
from laptop.engine.provider import Importing, IncompleteError, Previewing, Provider, ResourceCall
from laptop.engine.refreshing import live_inputs
from laptop.engine.values import Properties, has_unknown, is_at, secret_outputs, still_secret
from laptop.engine.wire import decode, encode
from pipelines.declarations.errors import MlopsError

NOTHING = Properties({})


class ProviderServicer(provider_pb2_grpc.ResourceProviderServicer):
    """Answers the requests of Pulumi's engine with a provider.

    Args:
        provider: applies the resources.
        package: name of the package (`aws`).
        version: semantic version to report, without a leading `v`.
    """

    def __init__(self, provider: Provider, package: str, version: str) -> None:
        self._provider = provider
        self._package = package
        self._version = version
        self._cancelled = threading.Event()

    # Life of the plugin

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - Pulumi's names
        self._cancelled.clear()
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True)

    def Attach(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._cancelled.clear()
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return plugin_pb2.PluginInfo(version=self._version)

    def GetSchema(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return provider_pb2.GetSchemaResponse(schema=json.dumps({"name": self._package, "version": self._version}))

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Start no further changes. A change that is under way ends normally, so its result reaches the state."""
        self._cancelled.set()
        return empty_pb2.Empty()

    # Configuration

    def CheckConfig(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        old, new = decode(request.old_inputs).values, decode(request.news).values
        changed = tuple(write_path(path) for path in changed_paths(old, new))
        return _diff_response(ProviderDiff(changed), old, new)

    def Configure(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._cancelled.clear()
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    # Resources

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        news = decode(request.news)
        old = decode(request.olds).values or None
        unknown = [key for key, value in news.values.items() if has_unknown(value)]
        if isinstance(self._provider, Previewing):
            known, unknown = news.values, []
        elif unknown and old is None:
            # There are no old values to stand in for the unknown ones.
            return provider_pb2.CheckResponse(inputs=encode(news))
        else:
            known = without_unknowns(news.values, unknown, old or {})
        try:
            checked = self._provider.check(request.type, request.name, known, old)
        except MlopsError as error:
            failure = provider_pb2.CheckFailure(reason=str(error))
            return provider_pb2.CheckResponse(inputs=request.news, failures=[failure])
        except Exception as error:
            _refuse(context, error)
        checked = {**checked, **{key: news.values[key] for key in unknown}}
        return provider_pb2.CheckResponse(inputs=encode(Properties(checked, still_secret(news.secrets, checked))))

    def Diff(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        old, new = decode(request.old_inputs).values, decode(request.news).values
        with _answering(context):
            diff = self._compare(request, old, new)
        return _diff_response(diff, old, new)

    def _compare(self, request: Any, old: dict[str, Any], new: dict[str, Any]) -> ProviderDiff:
        """Compare the known inputs. An unknown one counts as changed, and as replacing if its removal would replace."""
        known = {key: value for key, value in new.items() if not has_unknown(value)}
        outputs = decode(request.olds).values
        call = ResourceCall(request.type, known, request.urn, request.id, old_inputs=old, outputs=outputs)
        diff = self._provider.diff(call)
        unknown = [write_path((key,)) for key in new if key not in known]
        changed = tuple(dict.fromkeys([*diff.changed, *unknown]))
        return ProviderDiff(changed, diff.replace, diff.delete_before_replace)

    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        inputs = decode(request.properties)
        if request.preview:
            outputs = self._expected(request.type, inputs.values)
            return provider_pb2.CreateResponse(properties=_encoded(inputs, outputs))
        with self._changing(context, inputs):
            created = self._provider.create(ResourceCall(request.type, copy.deepcopy(inputs.values), request.urn))
        return provider_pb2.CreateResponse(id=created.id, properties=_encoded(inputs, created.outputs))

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        inputs, old, outputs = decode(request.news), decode(request.old_inputs).values, decode(request.olds)
        if request.preview:
            expected = expected_outputs(old, inputs.values, outputs.values)
            return provider_pb2.UpdateResponse(properties=_encoded(inputs, expected, outputs))
        call = ResourceCall(
            request.type,
            copy.deepcopy(inputs.values),
            request.urn,
            request.id,
            old_inputs=old,
            outputs=copy.deepcopy(outputs.values),
        )
        with self._changing(context, inputs, request.id, request.olds):
            updated = self._provider.update(call)
        return provider_pb2.UpdateResponse(properties=_encoded(inputs, updated.outputs))

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        inputs, outputs = decode(request.old_inputs).values, decode(request.properties).values
        call = ResourceCall(request.type, inputs, request.urn, request.id, outputs=outputs)
        with self._changing(context, NOTHING):
            self._provider.delete(call)
        return empty_pb2.Empty()

    def Read(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Read a resource for a refresh (known inputs), an import or a `get` (no inputs)."""
        inputs, outputs = decode(request.inputs), decode(request.properties)
        call = ResourceCall(
            request.type, copy.deepcopy(inputs.values), request.urn, request.id, outputs=copy.deepcopy(outputs.values)
        )
        with _answering(context):
            live = self._provider.read(call)
        if live is None:
            return provider_pb2.ReadResponse()
        if inputs.values or outputs.values:
            found = live_inputs(inputs.values, outputs.values, live)
        elif isinstance(self._provider, Importing):
            found = self._provider.imported_inputs(request.type, live)
        else:
            found = {}
        return provider_pb2.ReadResponse(
            id=request.id,
            inputs=encode(Properties(found, still_secret(inputs.secrets, found))),
            properties=_encoded(inputs, live, outputs),
        )

    def Invoke(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        with _answering(context):
            result = self._provider.invoke(request.tok, decode(request.args).values)
        return provider_pb2.InvokeResponse(**{"return": encode(Properties(result))})

    def _expected(self, type_: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the outputs of a create as far as they are known before it."""
        computed = self._provider.computed(type_) if isinstance(self._provider, Previewing) else ()
        return {**dict.fromkeys(computed, UNKNOWN), **inputs}

    @contextmanager
    def _changing(
        self,
        context: grpc.ServicerContext,
        inputs: Properties,
        id_: str = "",
        outputs: struct_pb2.Struct | None = None,
    ) -> Iterator[None]:
        """Answer a failure as an error; refuse to begin after a cancellation.

        Args:
            inputs: hold the marks of secrets.
            outputs: last known outputs, given if a failure may leave the resource changed. The engine then stores
                the new inputs with the error, and updates the resource again in its next run.
        """
        if self._cancelled.is_set():
            context.abort(
                grpc.StatusCode.CANCELLED, "not started: the run was cancelled\n  fix: run the command again."
            )
        try:
            yield
        except IncompleteError as error:
            _refuse(context, error, error.id, _encoded(inputs, error.outputs))
        except Exception as error:
            _refuse(context, error, id_, outputs)


def expected_outputs(
    old_inputs: Mapping[str, Any], inputs: Mapping[str, Any], outputs: Mapping[str, Any]
) -> dict[str, Any]:
    """Predict the outputs of an update: the old ones, with the inputs that change."""
    changed = {str(path[0]) for path in changed_paths(dict(old_inputs), dict(inputs))}
    kept = {key: value for key, value in outputs.items() if key not in changed}
    return {**kept, **{key: value for key, value in inputs.items() if key in changed}}


def _encoded(inputs: Properties, outputs: dict[str, Any], before: Properties | None = None) -> struct_pb2.Struct:
    """Encode outputs with the marks of secret inputs, their copies, and secrets of the outputs before."""
    secrets = secret_outputs(inputs, outputs, ())
    if before is not None:
        secrets |= still_secret(before.secrets, outputs)
    return encode(Properties(outputs, secrets))


def _diff_response(diff: ProviderDiff, old: dict[str, Any], new: dict[str, Any]) -> Any:
    kinds = provider_pb2.PropertyDiff
    detailed = {}
    for text in diff.changed:
        path, replaces = parse_path(text), text in diff.replace
        if not is_at(old, path):
            kind = kinds.ADD_REPLACE if replaces else kinds.ADD
        elif not is_at(new, path):
            kind = kinds.DELETE_REPLACE if replaces else kinds.DELETE
        else:
            kind = kinds.UPDATE_REPLACE if replaces else kinds.UPDATE
        detailed[text] = kinds(kind=kind, inputDiff=True)
    some = provider_pb2.DiffResponse.DIFF_SOME
    return provider_pb2.DiffResponse(
        changes=some if diff.changed else provider_pb2.DiffResponse.DIFF_NONE,
        diffs=_tops(diff.changed),
        replaces=_tops(diff.replace),
        deleteBeforeReplace=diff.delete_before_replace,
        detailedDiff=detailed,
        hasDetailedDiff=True,
    )


def _tops(paths: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(str(parse_path(text)[0]) for text in paths))


@contextmanager
def _answering(context: grpc.ServicerContext) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        _refuse(context, error)


def _refuse(
    context: grpc.ServicerContext, error: Exception, id_: str = "", outputs: struct_pb2.Struct | None = None
) -> NoReturn:
    """End a request with an error, without a traceback."""
    text = reason_of(error)
    if outputs is not None:
        detail = any_pb2.Any()
        detail.Pack(provider_pb2.ErrorResourceInitFailed(id=id_, properties=outputs, reasons=[text]))
        status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=text, details=[detail])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.UNKNOWN, text)
    raise AssertionError("abort always raises")


@contextmanager
def serving(servicer: ProviderServicer) -> Iterator[int]:
    """Serve a provider on a free port of 127.0.0.1 and yield the port."""
    server, port = start_server(
        lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    )
    try:
        yield port
    finally:
        server.stop(grace=None).wait()
