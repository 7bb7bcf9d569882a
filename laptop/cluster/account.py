"""The emulated AWS account, as the cluster's node sees it: found by the files in the home that the account writes."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from pipelines.declarations.errors import MlopsError

DEFAULT_REGION = "us-east-1"


class Account:
    """The account beside the cluster, under one home. Thread-safe; nothing is read before it is needed.

    Args:
        home: the local target's home; `aws/account.json`, `aws/credentials` and `aws/config` are read there.
    """

    def __init__(self, home: Path) -> None:
        self._aws = home / "aws"
        self._clients: dict[tuple[str, str | None, str], Any] = {}
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        """Its address, `http://127.0.0.1:<port>`; raises MlopsError when the account is not running."""
        return str(self._facts()["endpoint"])

    @property
    def region(self) -> str:
        """The region that pods are in."""
        return str(self._facts().get("region") or DEFAULT_REGION)

    def pod_identities(self) -> list[dict[str, str]]:
        """The pod identity associations: `namespace`, `serviceAccount`, `roleArn`, and the `cluster` they belong to."""
        try:
            clusters = json.loads((self._aws / "pod-identity.json").read_text())
        except FileNotFoundError:
            return []
        return [
            {**association, "cluster": name} for name, associations in clusters.items() for association in associations
        ]

    def client(self, service: str, region: str | None = None, *, as_pod_identity: bool = False) -> Any:
        """A boto3 client with the operator's credentials, or with those of the service pods.eks.amazonaws.com."""
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
                # Timeouts short and retries few: both ends are on this machine.
                config = Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 2})
                self._clients[key] = boto3.Session(botocore_session=core).client(
                    service, region_name=region or self.region, endpoint_url=self.endpoint, config=config
                )
            return self._clients[key]

    def _facts(self) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = json.loads((self._aws / "account.json").read_text())
        except FileNotFoundError as error:
            raise MlopsError(
                f"no emulated AWS account is running under {self._aws}", fix="start it with `mlops laptop start`."
            ) from error
        return facts
