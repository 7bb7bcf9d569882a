"""The AWS account as the cluster's node sees it, found by the files that the account writes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.declarations.errors import MlopsError

DEFAULT_REGION = "us-east-1"


class NodeAccount:
    """The laptop's AWS account. Thread-safe; files are read when they are needed.

    Args:
        home: the laptop's folder, with `aws/account.json`, `aws/credentials` and `aws/config`.
    """

    def __init__(self, home: Path) -> None:
        self._aws = home / "aws"
        self._clients: dict[tuple[str, str | None, str], Any] = {}
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        """Base URL, `http://127.0.0.1:<port>`.

        Raises:
            MlopsError: the account is not running.
        """
        return str(self._facts()["endpoint"])

    @property
    def region(self) -> str:
        """Region of the pods."""
        return str(self._facts().get("region") or DEFAULT_REGION)

    def pod_identities(self) -> list[dict[str, str]]:
        """Return the pod identity associations: `namespace`, `serviceAccount`, `roleArn` and `cluster` of each."""
        try:
            clusters = json.loads((self._aws / "pod-identity.json").read_text())
        except FileNotFoundError:
            return []
        return [
            {**association, "cluster": name} for name, associations in clusters.items() for association in associations
        ]

    def client(self, service: str, region: str | None = None, *, as_pod_identity: bool = False) -> Any:
        """Return a boto3 client with the credentials of the operator, or of the service pods.eks.amazonaws.com."""
        credentials = "pod-identity-credentials" if as_pod_identity else "credentials"
        key = (service, region, credentials)
        with self._lock:
            if key not in self._clients:
                import boto3
                from botocore.config import Config
                from botocore.session import Session

                core = Session()
                core.set_config_variable("credentials_file", str(self._aws / credentials))
                core.set_config_variable("config_file", str(self._aws / "config"))
                core.set_config_variable("profile", "default")
                # Short timeouts and few retries: both ends are on this machine.
                config = Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 2})
                self._clients[key] = boto3.Session(botocore_session=core).client(
                    service, region_name=region or self.region, endpoint_url=self.endpoint, config=config
                )
            return self._clients[key]

    def certificate_names(self, certificate: str) -> tuple[str, ...]:
        """Return the host names that a certificate of AWS Certificate Manager is for.

        Args:
            certificate: its ARN.

        Raises:
            MlopsError: it does not exist or is not issued, or the account does not answer.
        """
        found = self._ask(lambda: self.client("acm").describe_certificate(CertificateArn=certificate))["Certificate"]
        if found["Status"] != "ISSUED":
            raise MlopsError(f"certificate {certificate}: expected the status ISSUED, found {found['Status']}")
        return tuple(found["SubjectAlternativeNames"])

    def security_groups(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return security groups as `ec2:DescribeSecurityGroups` does.

        Args:
            ids: their ids.

        Raises:
            MlopsError: one of them does not exist, or the account does not answer.
        """
        found = self._ask(lambda: self.client("ec2").describe_security_groups(GroupIds=list(ids)))
        return list(found["SecurityGroups"])

    def _ask(self, request: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return request()
        except (BotoCoreError, ClientError) as error:
            raise MlopsError(f"the account of {self._aws} refuses: {error}") from None

    def _facts(self) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = json.loads((self._aws / "account.json").read_text())
        except FileNotFoundError as error:
            raise MlopsError(
                f"the AWS account of {self._aws} is not running", fix="start it with `mlops laptop start`."
            ) from error
        return facts
