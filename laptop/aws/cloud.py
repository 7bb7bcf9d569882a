"""boto3 clients of one account, created once and shared by all threads."""

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
    """Clients of the account in the given AWS variables.

    Args:
        environ: `AWS_ENDPOINT_URL`, `AWS_REGION` and either `AWS_SHARED_CREDENTIALS_FILE` or `AWS_ACCESS_KEY_ID` with
            its secret and token, as in `Account.environ()`. A process can use several accounts this way.
        home: folder of the account.
    """

    def __init__(self, environ: Mapping[str, str], home: Path) -> None:
        self.home = home
        self.region = environ["AWS_REGION"]
        self._endpoint = environ["AWS_ENDPOINT_URL"]
        self._environ = dict(environ)
        self._making = threading.Lock()  # clients are thread-safe, creating them is not
        self._session: Any = None
        self._clients: dict[tuple[str, str], Any] = {}
        self._account = ""

    @property
    def account(self) -> str:
        """Return the twelve-digit id of the credentials' account."""
        if not self._account:
            self._account = str(self.client("sts").get_caller_identity()["Account"])
        return self._account

    def client(self, service: str, region: str | None = None) -> Any:
        """Return a thread-safe boto3 client.

        Args:
            region: the account's default region if None.
        """
        where = region or self.region
        with self._making:
            if (service, where) not in self._clients:
                self._clients[service, where] = self._make(service, where)
            return self._clients[service, where]

    def shape(self, service: str, operation: str) -> Any:
        """Return the shape of an operation's parameters from botocore's service model."""
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
        """Return the credentials in the environment (of an assumed role), else those in the file."""
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
                fix="start the laptop: mlops laptop start. In a workflow, sign in before this step.",
            )
        return {f"aws_{name}": profile["default"][f"aws_{name}"] for name in ("access_key_id", "secret_access_key")}


def code_of(error: Any) -> str:
    """Return the error code of a botocore ClientError (`NoSuchBucket`)."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def tolerating(*codes: str) -> Iterator[None]:
    """Suppress the AWS errors with the given codes, such as that of a resource that is already gone."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if code_of(error) not in codes:
            raise
