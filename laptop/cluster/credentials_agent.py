"""EKS Pod Identity agent: exchanges a pod's token for the credentials of its role.

It speaks the protocol of the SDKs' container credentials provider. `aws.eks.PodIdentityAssociation` resources name the
role of a ServiceAccount. The agent assumes it as the service `pods.eks.amazonaws.com`, which the role's trust policy
must allow.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from laptop.cluster.node_account import NodeAccount
from laptop.cluster.objects import Object, name_of, namespace_of, uid_of
from pipelines.declarations.errors import MlopsError

_log = logging.getLogger(__name__)

_PATH = "/v1/credentials"
_FRESH = timedelta(minutes=20)  # SDKs request new credentials 15 minutes before the end


@dataclass
class _Admitted:
    """A pod that may request credentials."""

    namespace: str
    service_account: str
    pod: str
    uid: str
    credentials: dict[str, str] = field(default_factory=dict)
    role: str = ""
    until: datetime | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class PodIdentityAgent:
    """Server of credentials for admitted pods.

    Args:
        account: account of the roles.
        delay: seconds until an association takes effect. None gives every pod the variables, so that a later
            association counts as well; on EKS a pod gets them only if its association is in effect when it is created.
        clock: returns seconds since 1970.
    """

    def __init__(
        self, account: NodeAccount, delay: float | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._account = account
        self._delay = delay
        self._clock = clock
        self._pods: dict[str, _Admitted] = {}
        self._runner: web.AppRunner | None = None
        self._address = ""

    @property
    def address(self) -> str:
        """URL for pods."""
        return f"{self._address}{_PATH}"

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        app = web.Application()
        app.router.add_get(_PATH, self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._address = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    def admit(self, pod: Object, folder: Path) -> dict[str, str]:
        """Write a pod's token into its folder, and return the variables that point to its credentials."""
        token = secrets.token_urlsafe(32)
        file = folder / "eks-pod-identity-token"
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as out:
            out.write(token)
        service_account = pod["spec"].get("serviceAccountName") or "default"
        self._pods[token] = _Admitted(namespace_of(pod), service_account, name_of(pod), uid_of(pod))
        try:
            endpoint, region = self._account.endpoint, self._account.region
        except MlopsError:  # a cluster without an account, as in its tests
            return {}
        common = {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": region, "AWS_DEFAULT_REGION": region}
        if self._delay is not None and not self._in_effect(namespace_of(pod), service_account):
            return {**common, "AWS_EC2_METADATA_DISABLED": "true"}
        return {
            **common,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": self.address,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(file),
        }

    def dismiss(self, pod: Object) -> None:
        """Revoke the token of a deleted pod."""
        for token in [token for token, admitted in self._pods.items() if admitted.uid == uid_of(pod)]:
            del self._pods[token]

    async def _answer(self, request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "").encode()
        # All are compared, each in constant time.
        matches = [pod for token, pod in self._pods.items() if hmac.compare_digest(token.encode(), given)]
        if not matches:
            return _refusal(401, "InvalidToken", "the authorization token is missing or belongs to no running pod")
        pod = matches[0]
        async with pod.lock:
            try:
                role, cluster = self._role_of(pod)
                if pod.role != role or pod.until is None or datetime.now(UTC) + _FRESH > pod.until:
                    answer = await asyncio.to_thread(self._assume, pod, role, cluster)
                    pod.role, pod.until = role, answer["Expiration"]
                    pod.credentials = _as_json(answer, role)
            except PermissionError as error:
                return _refusal(403, "AccessDenied", str(error))
            return web.json_response(pod.credentials)

    def _in_effect(self, namespace: str, service_account: str) -> list[dict[str, str]]:
        """Return the associations of a service account that are in effect."""
        latest = self._clock() - (self._delay or 0.0)
        return [
            item
            for item in self._account.pod_identities()
            if (item["namespace"], item["serviceAccount"]) == (namespace, service_account)
            and float(item.get("changedAt", 0.0)) <= latest
        ]

    def _role_of(self, pod: _Admitted) -> tuple[str, str]:
        found = {(item["roleArn"], item["cluster"]) for item in self._in_effect(pod.namespace, pod.service_account)}
        who = f"service account {pod.namespace}/{pod.service_account}"
        if not found:
            raise PermissionError(f"{who} has no pod identity association")
        if len(found) > 1:
            raise PermissionError(f"{who} has associations in several clusters; the laptop has one cluster")
        return found.pop()

    def _assume(self, pod: _Admitted, role: str, cluster: str) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        region = self._account.region
        owner = role.split(":")[4]
        tags = {
            "eks-cluster-arn": f"arn:aws:eks:{region}:{owner}:cluster/{cluster}",
            "eks-cluster-name": cluster,
            "kubernetes-namespace": pod.namespace,
            "kubernetes-service-account": pod.service_account,
            "kubernetes-pod-name": pod.pod,
            "kubernetes-pod-uid": pod.uid,
        }
        try:
            answer = self._account.client("sts", as_pod_identity=True).assume_role(
                RoleArn=role,
                RoleSessionName=f"eks-{cluster}-{pod.pod}"[:55] + f"-{secrets.token_hex(4)}",
                Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
            )
        except ClientError as error:
            why = error.response["Error"].get("Message", str(error))
            raise PermissionError(f"{role} cannot be assumed by pods.eks.amazonaws.com: {why}") from error
        except (BotoCoreError, MlopsError) as error:
            raise PermissionError(f"the AWS account does not answer: {error}") from error
        credentials: dict[str, Any] = answer["Credentials"]
        return credentials


def _as_json(credentials: dict[str, Any], role: str) -> dict[str, str]:
    return {
        "AccessKeyId": credentials["AccessKeyId"],
        "SecretAccessKey": credentials["SecretAccessKey"],
        "Token": credentials["SessionToken"],
        "AccountId": role.split(":")[4],
        "Expiration": credentials["Expiration"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _refusal(status: int, code: str, message: str) -> web.Response:
    return web.Response(
        status=status, text=json.dumps({"code": code, "message": message}), content_type="application/json"
    )
