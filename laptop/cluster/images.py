"""Where a pod's image comes from: the account's ECR says that it is there, its files are kept beside the account."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, Protocol

from laptop.aws.images import folder_of
from laptop.cluster.account import Account

_ECR = re.compile(
    r"(?P<registry>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/(?P<repository>[a-z0-9._/-]+?)"
    r"(@(?P<digest>sha256:[0-9a-f]{64})|:(?P<tag>[\w.-]+))"
)


class MissingImageError(Exception):
    """A pod with that image cannot start; the text says why."""


class Images(Protocol):
    """Where images are looked for."""

    async def pull(self, image: str) -> Path:
        """The folder with an image's files, the working directory of its containers.

        Raises:
            MissingImageError: it is not to be had.
        """
        ...


class EcrImages:
    """The repositories of the account, asked as the node.

    Args:
        account: whose they are.
        home: the account's folder, where the files of its images are.
    """

    def __init__(self, account: Account, home: Path) -> None:
        self._account = account
        self._home = home

    async def pull(self, image: str) -> Path:
        """The folder with an image's files; raises MissingImageError."""
        match = _ECR.fullmatch(image)
        if match is None:
            raise MissingImageError(
                f"{image!r} is not an image of an ECR repository with a digest or a tag "
                "(<account>.dkr.ecr.<region>.amazonaws.com/<repository>@sha256:<hex>)"
            )
        digest = await asyncio.to_thread(self._look_up, image, match.groupdict())
        folder = folder_of(self._home, digest)
        if not folder.is_dir():
            raise MissingImageError(f"{image}: its manifest is in ECR, its files are not on this machine")
        return folder

    def _look_up(self, image: str, parts: dict[str, str | None]) -> str:
        """The digest of an image that is in its repository."""
        from botocore.exceptions import BotoCoreError, ClientError

        wanted = {"imageDigest": parts["digest"]} if parts["digest"] else {"imageTag": parts["tag"]}
        try:
            ecr: Any = self._account.client("ecr", parts["region"])
            answer = ecr.batch_get_image(
                registryId=parts["registry"], repositoryName=parts["repository"], imageIds=[wanted]
            )
        except ClientError as error:
            raise MissingImageError(f"{image}: {error.response['Error'].get('Message', error)}") from None
        except (BotoCoreError, OSError) as error:
            raise MissingImageError(f"{image}: the account does not answer: {error}") from None
        if not answer["images"]:
            raise MissingImageError(f"{image}: not found in ECR; push it first")
        return str(answer["images"][0]["imageId"]["imageDigest"])
