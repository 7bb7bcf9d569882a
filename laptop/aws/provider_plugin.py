"""`pulumi-resource-aws`: the laptop's AWS provider as a plugin of the Pulumi CLI.

Run `python -m laptop.aws.provider_plugin <folder of the account>`. The CLI passes the address of its engine as well.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import grpc
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from laptop.aws.account import endpoint_of
from laptop.aws.aws_provider import AwsProvider
from laptop.aws.functions import TOKENS
from laptop.aws.table import TABLE
from laptop.engine.plugin_process import serve
from laptop.engine.provider_servicer import ProviderServicer
from laptop.engine.wire import decode
from pipelines.declarations.errors import MlopsError

_SUPPORTED = ("region", "version", "pluginDownloadURL")
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SHARED_CREDENTIALS_FILE")


class AwsPlugin(ProviderServicer):
    """Serves the AWS provider with the credentials in the environment.

    Args:
        environ: variables of the process that runs Pulumi.
        home: folder of the account, `<laptop home>/aws`.
    """

    def __init__(self, environ: Mapping[str, str], home: Path) -> None:
        self._environ = dict(environ)
        self._home = home
        # Requests that need no account come before `Configure`, and with none running.
        provider = AwsProvider({"AWS_REGION": "", "AWS_ENDPOINT_URL": "", **self._environ}, home)
        super().__init__(provider, "aws", metadata.version("pulumi-aws"))

    def CheckConfig(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - Pulumi's names
        """Refuse settings of the provider that the laptop would ignore."""
        failures = [
            provider_pb2.CheckFailure(
                property=name,
                reason=f"the laptop's AWS provider does not support `{name}`: expected one of "
                f"{', '.join(_SUPPORTED)}\n  fix: remove it, or deploy this stack to AWS.",
            )
            for name, value in decode(request.news).values.items()
            # The SDK gives each explicit provider the defaults of its checks, which have no effect here.
            if name not in _SUPPORTED and not name.startswith(("skip", "__")) and value not in ("", [], {}, None)
        ]
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

    def GetSchema(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Return a schema of the supported resource types. Properties have no types."""
        return provider_pb2.GetSchemaResponse(schema=json.dumps(schema(self._version)))

    def Configure(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        try:
            environ = account_environ(self._environ, self._home, decode(request.args).values.get("region"))
        except MlopsError as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        self._provider = AwsProvider(environ, self._home)
        return super().Configure(request, context)


def schema(version: str) -> dict[str, Any]:
    """Return the Pulumi package schema of the resource types and functions that the laptop supports."""

    def properties(names: Iterable[str]) -> dict[str, Any]:
        return {name: {"$ref": "pulumi.json#/Any"} for name in sorted(set(names))}

    resources = {
        token: {
            "inputProperties": properties((*row.required, *row.optional)),
            "requiredInputs": sorted(row.required),
            "properties": properties((*row.required, *row.optional, *row.computed)),
        }
        for token, row in sorted(TABLE.items())
    }
    tokens = {token: {"outputs": {"type": "object"}} for token in TOKENS}
    return {"name": "aws", "version": version, "resources": resources, "functions": tokens}


def account_environ(environ: Mapping[str, str], home: Path, region: Any) -> dict[str, str]:
    """Return the AWS variables for the provider.

    Args:
        environ: variables of the process that runs Pulumi.
        home: folder of the account.
        region: `aws:region` of the stack; None takes the one in `environ`.

    Raises:
        MlopsError: the laptop is not running, or the variables point elsewhere, such as to AWS.
    """
    fix = 'point this shell at the laptop: eval "$(mlops laptop env)".'
    endpoint = endpoint_of(home)
    if endpoint is None:
        raise MlopsError(f"the laptop is not running (looked in {home.parent})", fix="start it: `mlops laptop start`.")
    given = environ.get("AWS_ENDPOINT_URL", "")
    if given != endpoint:
        found = f"`{given}`" if given else "no AWS_ENDPOINT_URL"
        raise MlopsError(f"this is the laptop's AWS provider: expected its account, {endpoint}, found {found}", fix=fix)
    if not any(environ.get(name) for name in _CREDENTIALS):
        raise MlopsError(f"no AWS credentials: expected {' or '.join(_CREDENTIALS)}, found neither", fix=fix)
    where = region if isinstance(region, str) and region else environ.get("AWS_REGION", "")
    if not where:
        raise MlopsError("no AWS region: expected `aws:region` in the stack's configuration, or AWS_REGION", fix=fix)
    return {**environ, "AWS_REGION": where, "AWS_DEFAULT_REGION": where}


def main() -> None:
    """Serve the plugin until the CLI ends it."""
    plugin = AwsPlugin(os.environ, Path(sys.argv[1]))
    serve(lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(plugin, server))


if __name__ == "__main__":
    main()
