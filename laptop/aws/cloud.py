"""The clients of one account: made once each, shared by all threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Cloud:
    """Reaches the AWS API that the standard variables name.

    Args:
        environ: `AWS_ENDPOINT_URL`, `AWS_REGION` and `AWS_SHARED_CREDENTIALS_FILE`, as in `Account.environ()`, or
            `AWS_ACCESS_KEY_ID` with the other two of its kind. Taken as
            an argument, so that a process can hold several accounts and need not change its own environment.
        home: where the account's files are.
    """

    def __init__(self, environ: Mapping[str, str], home: Path) -> None:
        self.home = home
        self.region = environ["AWS_REGION"]
        self._endpoint = environ["AWS_ENDPOINT_URL"]
        self._environ = dict(environ)
        self._making = threading.Lock()  # a session's clients are safe to share, making them is not
        self._session: Any = None
        self._clients: dict[tuple[str, str], Any] = {}
        self._account = ""

    @property
    def account(self) -> str:
        """The twelve-digit id of the account behind the credentials."""
        if not self._account:
            self._account = str(self.client("sts").get_caller_identity()["Account"])
        return self._account

    def client(self, service: str, region: str | None = None) -> Any:
        """A boto3 client that any thread may use.

        Args:
            region: another region than the account's default.
        """
        where = region or self.region
        with self._making:
            if (service, where) not in self._clients:
                self._clients[service, where] = self._make(service, where)
            return self._clients[service, where]

    def shape(self, service: str, operation: str) -> Any:
        """The shape of an operation's parameters, from botocore's model of the service."""
        return self.client(service).meta.service_model.operation_model(operation).input_shape

    def _make(self, service: str, region: str) -> Any:
        import boto3
        from botocore.config import Config

        if self._session is None:
            self._session = boto3.Session(**self._credentials())
        return self._session.client(
            service,
            region_name=region,
            endpoint_url=self._endpoint,
            config=Config(
                max_pool_connections=32,
                connect_timeout=5,
                read_timeout=60,
                retries={"mode": "standard", "max_attempts": 3},
            ),
        )

    def _credentials(self) -> dict[str, str]:
        """Those in the environment, as a role that was assumed leaves them; otherwise those of the file."""
        given = {
            f"aws_{name}": self._environ[f"AWS_{name.upper()}"]
            for name in ("access_key_id", "secret_access_key", "session_token")
            if self._environ.get(f"AWS_{name.upper()}")
        }
        if "aws_access_key_id" in given:
            return given
        file = self._environ.get("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        profile = ConfigParser(interpolation=None)
        profile.read(file, encoding="utf-8")
        if "default" not in profile:
            raise MlopsError(
                f"no AWS credentials in {file}",
                fix="start the local target: mlops laptop start; in a workflow, sign in before this step.",
            )
        return {f"aws_{name}": profile["default"][f"aws_{name}"] for name in ("access_key_id", "secret_access_key")}


def code_of(error: Any) -> str:
    """The error code in a botocore ClientError (`NoSuchBucket`)."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def tolerating(*codes: str) -> Iterator[None]:
    """Lets the given AWS errors pass: what they complain of is what was wanted, such as a thing already gone."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if code_of(error) not in codes:
            raise
