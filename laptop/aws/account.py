"""Start, find and stop the process of the laptop's AWS account."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    from laptop.aws.emulator import AccessKey, Emulator

ISSUERS = "issuers"
"""Folder in the account's home with the published keys of identity providers, which STS fetches on AWS."""

_DESCRIPTION = "account.json"
_LOG = "account.log"
_PORT_IN_USE = 98
# Variables that change moto's behaviour.
_SWITCHES = ("MOTO_", "INITIAL_NO_AUTH_ACTION_COUNT", "TEST_SERVER_MODE", "S3_IGNORE_SUBDOMAIN_BUCKETNAME")


@dataclass(frozen=True)
class Account:
    """A running account.

    Attributes:
        home: folder with its files, `<laptop home>/aws`.
        endpoint: base URL of every AWS service.
        incarnation: id of this run; the account keeps nothing across runs.
        pid: process id.
        region: default region of clients.
        account: twelve-digit account id.
    """

    home: Path
    endpoint: str
    incarnation: str
    pid: int
    region: str
    account: str
    _process: subprocess.Popen[bytes] | None = None

    def environ(self) -> dict[str, str]:
        """Return the AWS variables for the operator of the account."""
        return self._environ("credentials")

    def pod_identity_environ(self) -> dict[str, str]:
        """Return the AWS variables for EKS Pod Identity, which can only assume the roles that trust it."""
        return self._environ("pod-identity-credentials")

    def _environ(self, credentials: str) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_SHARED_CREDENTIALS_FILE": str(self.home / credentials),
            "AWS_CONFIG_FILE": str(self.home / "config"),
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def healthy(self) -> bool:
        """Return True if the account answers and was not restarted."""
        return _incarnation(self.endpoint) == self.incarnation

    def stop(self, timeout: float = 5.0) -> None:
        """End the process, if this object started it. Its files remain.

        Args:
            timeout: seconds until it is killed.
        """
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def start(home: Path, *, port: int = 0, region: str = "eu-west-1", timeout: float = 120.0) -> Account:
    """Start an empty account and wait until it answers. It ends with this process.

    Args:
        home: folder for its files; credentials are readable by the owner only.
        port: port on 127.0.0.1; 0 takes a free one.
        region: default region of clients.
        timeout: seconds to wait for an answer.

    Raises:
        MlopsError: the port is in use, or the account did not start.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    description = home / _DESCRIPTION
    description.unlink(missing_ok=True)
    log = home / _LOG
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "laptop.aws", str(home), str(port), region],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if not name.startswith(_SWITCHES)},
        )
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise _died(process.returncode, port, log)
        if description.exists():
            return _described(home, process)
        time.sleep(0.02)
    process.kill()
    process.wait()
    raise MlopsError(
        f"the AWS account did not answer within {timeout:.0f} s",
        fix=f"read {log}, then start the laptop again.",
    )


def running(home: Path) -> Account | None:
    """Return the account whose files are in `home` if it answers, else None."""
    try:
        account = _described(home, None)
    except (OSError, ValueError, KeyError):
        return None
    return account if account.healthy() else None


def endpoint_of(home: Path) -> str | None:
    """Return the base URL of the account whose files are in `home`; None if it was stopped."""
    try:
        return _described(home, None).endpoint
    except (OSError, ValueError, KeyError):
        return None


def write_account(home: Path, emulator: Emulator, region: str) -> None:
    """Write credentials, configuration and, last, the description that marks the account as started."""
    from laptop.aws.access.principals import ACCOUNT

    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(home / "credentials", _profile(emulator.operator))
    write_atomically(home / "pod-identity-credentials", _profile(emulator.pod_identity))
    if emulator.engineer is not None:
        write_atomically(home / "engineer-credentials", _profile(emulator.engineer))
    write_atomically(
        home / "config", f"[default]\nregion = {region}\nendpoint_url = {emulator.endpoint}\nretry_mode = standard\n"
    )
    description = {
        "endpoint": emulator.endpoint,
        "incarnation": emulator.incarnation,
        "pid": os.getpid(),
        "region": region,
        "account": ACCOUNT,
    }
    write_atomically(home / _DESCRIPTION, json.dumps(description, indent=1) + "\n")


def _profile(key: AccessKey) -> str:
    return f"[default]\naws_access_key_id = {key.id}\naws_secret_access_key = {key.secret}\n"


def _described(home: Path, process: subprocess.Popen[bytes] | None) -> Account:
    description: dict[str, Any] = json.loads((home / _DESCRIPTION).read_text(encoding="utf-8"))
    return Account(
        home=home,
        endpoint=description["endpoint"],
        incarnation=description["incarnation"],
        pid=description["pid"],
        region=description["region"],
        account=description["account"],
        _process=process,
    )


def _incarnation(endpoint: str) -> str | None:
    try:
        # The endpoint is http://127.0.0.1:port, from our own file.
        with urllib.request.urlopen(f"{endpoint}/_account/health", timeout=5) as answer:  # noqa: S310
            return str(json.load(answer)["incarnation"])
    except (urllib.error.URLError, OSError, ValueError, KeyError):
        return None


def _died(code: int, port: int, log: Path) -> MlopsError:
    if code == _PORT_IN_USE:
        return MlopsError(
            f"the AWS account cannot listen on 127.0.0.1:{port}: the port is in use",
            fix="stop the process that listens there, or choose another port (0 takes a free one).",
        )
    return MlopsError(f"the AWS account ended with exit code {code} before it answered", fix=f"read {log}.")
