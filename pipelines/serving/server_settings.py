"""Settings of the server: command-line arguments and environment variables."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.declarations.documents import D
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.inference_logging import LOG_POLICY, LogPolicy
from pipelines.declarations.shadow_traffic import SHADOW_PEERS, ShadowPeers
from pipelines.serving.application import LARGEST_BODY
from pipelines.serving.http_protocol import MOST_CONNECTIONS
from pipelines.serving.predictor import MOST_ROWS


@dataclass(frozen=True)
class ServerSettings:
    """Settings of one server, with the environment variable and the default of each.

    Attributes:
        model: the model's name.
        bundle: digest of the bundle.
        host: address to listen on (`HOST`; 127.0.0.1).
        port: port to listen on (`PORT`; 8080); 0 takes a free one.
        pod: names this process in the inference log: `HOSTNAME` and six random digits, because a restarted container
            keeps the name of its pod.
        drain_seconds: seconds from SIGTERM until new connections are refused (`DRAIN_SECONDS`; 3). Load balancers need
            that long to notice that the pod is not ready.
        finish_seconds: seconds after that for requests in flight (`FINISH_SECONDS`; 10).
        largest_body: limit of a request body, in bytes (`LARGEST_BODY`).
        most_rows: row limit of a request (`MOST_ROWS`).
        most_connections: limit of open connections (`MOST_CONNECTIONS`; 512). It is less if the limit of open files is
            low.
        log_policy: what the inference log holds (`LOG_POLICY`, as JSON; everything but what the bundle calls personal).
        shadow_peers: Services to copy requests by (`SHADOW_PEERS`, as JSON; none to neither send nor take copies).
    """

    model: str
    bundle: str
    host: str = "127.0.0.1"
    port: int = 8080
    pod: str = "local"
    drain_seconds: float = 3.0
    finish_seconds: float = 10.0
    largest_body: int = LARGEST_BODY
    most_rows: int = MOST_ROWS
    most_connections: int = MOST_CONNECTIONS
    log_policy: LogPolicy = field(default_factory=LogPolicy)
    shadow_peers: ShadowPeers | None = None

    @classmethod
    def from_environ(cls, model: str, bundle: str, environ: Mapping[str, str]) -> ServerSettings:
        """Read the settings of the server for `bundle` of `model`.

        Raises:
            MlopsError: the digest, a number, the policy of the log or the Services are not valid.
        """
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", bundle):
            raise MlopsError(f"--bundle: expected sha256: and 64 hexadecimal digits, found {bundle!r}")
        host = re.sub(r"[^A-Za-z0-9.-]", "-", environ.get("HOSTNAME") or "local")[:100]
        return cls(
            model=model,
            bundle=bundle,
            host=environ.get("HOST") or cls.host,
            port=int(_number(environ, "PORT", cls.port, 0, 65535)),
            pod=f"{host}-{secrets.token_hex(3)}",
            drain_seconds=_number(environ, "DRAIN_SECONDS", cls.drain_seconds, 0, 600, whole=False),
            finish_seconds=_number(environ, "FINISH_SECONDS", cls.finish_seconds, 0, 600, whole=False),
            largest_body=int(_number(environ, "LARGEST_BODY", cls.largest_body, 1, 1 << 30)),
            most_rows=int(_number(environ, "MOST_ROWS", cls.most_rows, 1, 1 << 20)),
            most_connections=int(_number(environ, "MOST_CONNECTIONS", cls.most_connections, 1, 1 << 16)),
            log_policy=_declared(environ, LOG_POLICY, LogPolicy, "a policy of the inference log") or LogPolicy(),
            shadow_peers=_declared(environ, SHADOW_PEERS, ShadowPeers, "the Services of a shadow step"),
        )


def _declared(environ: Mapping[str, str], name: str, kind: type[D], what: str) -> D | None:
    """Return a declaration that a variable holds as JSON; None if it is not set."""
    text = environ.get(name)
    if not text:
        return None
    try:
        return kind.model_validate_json(text)
    except ValueError:
        raise MlopsError(f"the environment variable {name}: expected {what} as JSON, found {text[:80]!r}") from None


def _number(
    environ: Mapping[str, str], name: str, default: float, low: float, high: float, *, whole: bool = True
) -> float:
    text = environ.get(name)
    if not text:
        return default
    pattern = r"[0-9]{1,12}" if whole else r"[0-9]{1,12}(\.[0-9]{1,6})?"
    if not re.fullmatch(pattern, text) or not low <= float(text) <= high:
        kind = "an integer" if whole else "a number"
        raise MlopsError(f"the environment variable {name}: expected {kind} from {low} to {high}, found {text[:80]!r}")
    return float(text)
