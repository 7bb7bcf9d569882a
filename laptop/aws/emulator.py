"""The laptop's AWS account: moto behind the access layer, one request at a time, on 127.0.0.1."""

from __future__ import annotations

import io
import json
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laptop.aws.access import sigv4
from laptop.aws.access.effective_values import EffectiveValues
from laptop.aws.access.gate import CHANGES, Environ, Gate, StartResponse
from laptop.aws.access.principals import ACCOUNT, PARTITION, Principals
from laptop.aws.eks_clusters import serve_clusters
from laptop.aws.event_delivery import FIRST_PAUSE_SECONDS, GITHUB, EventDelivery, HostedGitHub, patch_rules
from laptop.aws.load_balancing_api import patch_elbv2
from laptop.aws.moto_patches import patch_moto
from laptop.delays import NONE, Delays
from laptop.faults import S3_SLOW_SECONDS, Faults

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

HEALTH = "/_account/health"
POD_IDENTITY = "pods.eks.amazonaws.com"
_ADMINISTRATOR = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}
_READ = [
    f"{service}:{verb}*"
    for service in ("cloudwatch", "ecr", "eks", "elasticloadbalancing", "glue", "iam", "kms", "logs", "s3", "sts")
    for verb in ("Describe", "Get", "List")
]
_ENGINEER = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["sts:AssumeRole", "sts:TagSession", *_READ], "Resource": "*"}],
}
"""Policy of a person on the platform: roles decide the rest."""


@dataclass(frozen=True)
class AccessKey:
    """An access key."""

    id: str
    secret: str


@dataclass(frozen=True)
class Emulator:
    """A running account.

    Attributes:
        server: serves after `serve_forever()`; `shutdown()` from another thread ends it.
        endpoint: base URL.
        incarnation: id of this run; the account keeps nothing across runs.
        operator: key of a user with AdministratorAccess.
        pod_identity: key of the substitute for the service `pods.eks.amazonaws.com`, which can only assume the roles
            that trust that service.
        engineer: key of a user who may look at everything and take the roles that trust the account; None unless the
            account is realistic.
    """

    server: BaseWSGIServer
    endpoint: str
    incarnation: str
    operator: AccessKey
    pod_identity: AccessKey
    engineer: AccessKey | None = None


def emulate(issuers: Path, port: int = 0, delays: Delays = NONE) -> Emulator:
    """Create an empty account that listens on 127.0.0.1.

    Args:
        issuers: folder with the published keys of identity providers, in the folder of the account.
        port: 0 takes a free one.
        delays: delays of a realistic account, which also has a user without administrator rights.

    Raises:
        OSError: the port is in use.
    """
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from werkzeug.serving import make_server

    class Quiet(MotoRequestHandler):
        def log_request(self, *_: Any) -> None:
            """Log nothing: one line per request would bury errors."""

    incarnation = secrets.token_hex(8)
    faults = Faults(issuers.parent.parent).active
    front = _Front(incarnation, faults)
    server = make_server("127.0.0.1", port, front, threaded=True, request_handler=Quiet)
    principals = Principals(delays["iam-policy"])
    operator, pods = (
        _user("operator", _ADMINISTRATOR),
        AccessKey("AKIA" + secrets.token_hex(8).upper(), secrets.token_urlsafe(30)),
    )
    principals.add_service(POD_IDENTITY, pods.id, pods.secret)
    authority = f"127.0.0.1:{server.server_port}"
    pause = delays["event-retry"] or FIRST_PAUSE_SECONDS
    hosted = HostedGitHub(issuers.parent.parent / GITHUB, faults)
    patch_rules(EventDelivery(principals, front.turn, hosted, first_pause=pause))
    front.open(
        Gate(
            _moto(delays, issuers.parent),
            principals,
            authority,
            issuers,
            EffectiveValues(delays["kms-tags"]),
            faults,
        )
    )
    engineer = _user("engineer", _ENGINEER) if delays else None
    return Emulator(server, f"http://{authority}", incarnation, operator, pods, engineer)


def warm_up() -> None:
    """Load modules that the first requests need. Safe while requests are served."""
    from importlib import import_module

    from moto.core.utils import get_service_model

    for service in ("sts", "s3", "kms", "iam", "glue", "ecr"):
        import_module(f"moto.{service}.responses")
        get_service_model(service)


class _Front:
    """Reads each request completely, then passes on one at a time.

    S3 checks and writes conditionally in one atomic step; moto checks first and then writes. The lock makes that
    atomic, together with the authorization of the request.
    """

    def __init__(self, incarnation: str, faults: Callable[[], Collection[str]]) -> None:
        self._faults = faults
        self._health = json.dumps({"incarnation": incarnation}).encode()
        self.turn = threading.Lock()
        self._gate: Gate | None = None

    def open(self, gate: Gate) -> None:
        self._gate = gate

    def _be_slow(self, environ: Environ) -> None:
        """Delay a change of S3 if S3 is slow. The requests of others go on."""
        if environ["REQUEST_METHOD"] not in CHANGES or "s3-slow" not in self._faults():
            return
        signed = sigv4.parse(environ.get("HTTP_AUTHORIZATION", ""))
        if signed is not None and signed.service == "s3":
            time.sleep(S3_SLOW_SECONDS)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        from werkzeug.wsgi import get_input_stream

        if environ["PATH_INFO"] == HEALTH or self._gate is None:
            start_response("200 OK", [("Content-Type", "application/json")])
            return [self._health]
        body = get_input_stream(environ).read()
        self._be_slow(environ)
        environ["wsgi.input"] = io.BytesIO(body)
        environ["wsgi.input_terminated"] = True
        environ["CONTENT_LENGTH"] = str(len(body)) if body or environ.get("CONTENT_LENGTH") else ""
        with self.turn:
            return list(self._gate(environ, body, start_response))


def _moto(delays: Delays, account: Path) -> Any:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    patch_moto(delays["image-scan"])
    serve_clusters(account)
    if delays:  # an ordinary laptop has no load balancers of AWS, and the import takes long
        patch_elbv2(account.parent)
    return DomainDispatcherApplication(create_backend_app)


def _user(name: str, policy: dict[str, Any]) -> AccessKey:
    """Create a user with one policy."""
    from moto.iam.models import iam_backends

    iam = iam_backends[ACCOUNT][PARTITION]
    iam.create_user("us-east-1", name)
    iam.put_user_policy(name, name, json.dumps(policy))
    key = iam.create_access_key(name, prefix="AKIA")
    return AccessKey(key.access_key_id, key.secret_access_key)
