"""Images of pods: ECR knows their digests, and their files are in the account's folder."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, Protocol

from laptop.aws.image_content import folder_of
from laptop.cluster.node_account import NodeAccount

_ECR = re.compile(
    r"(?P<registry>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/(?P<repository>[a-z0-9._/-]+?)"
    r"(@(?P<digest>sha256:[0-9a-f]{64})|:(?P<tag>[\w.-]+))"
)


class MissingImageError(Exception):
    """An image is not available."""


class ImageSource(Protocol):
    """Source of images."""

    async def pull(self, image: str) -> Path:
        """Return the folder of an image's files, the working directory of its containers.

        Raises:
            MissingImageError: the image is not available.
        """
        ...


class EcrImageSource:
    """ECR repositories of the account.

    Args:
        account: account.
        home: the account's folder, which holds the files of its images.
    """

    def __init__(self, account: NodeAccount, home: Path) -> None:
        self._account = account
        self._home = home

    async def pull(self, image: str) -> Path:
        """Return the folder of an image's files.

        Raises:
            MissingImageError: the image is not available.
        """
        match = _ECR.fullmatch(image)
        if match is None:
            raise MissingImageError(
                f"{image!r} is not an image of an ECR repository: expected "
                "<account>.dkr.ecr.<region>.amazonaws.com/<repository>@sha256:<hex>"
            )
        digest = await asyncio.to_thread(self._look_up, image, match.groupdict())
        folder = folder_of(self._home, digest)
        if not folder.is_dir():
            raise MissingImageError(f"{image}: its manifest is in ECR, its files are not on this machine")
        return folder

    def _look_up(self, image: str, parts: dict[str, str | None]) -> str:
        """Return the digest of an image."""
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
