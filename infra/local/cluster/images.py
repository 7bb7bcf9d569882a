"""Whether a pod's image is in the account's ECR. Nothing is pulled: the command runs in the project's environment."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Protocol

from infra.local.cluster.account import Account

_ECR = re.compile(
    r"(?P<registry>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/(?P<repository>[a-z0-9._/-]+?)"
    r"(@(?P<digest>sha256:[0-9a-f]{64})|:(?P<tag>[\w.-]+))"
)


class Images(Protocol):
    """Where images are looked for."""

    async def missing(self, image: str) -> str:
        """Why a pod with that image cannot start, or "" when the image is there."""
        ...


class EcrImages:
    """The repositories of the account, asked as the node."""

    def __init__(self, account: Account) -> None:
        self._account = account

    async def missing(self, image: str) -> str:
        """Why a pod with that image cannot start, or "" when the image is there."""
        match = _ECR.fullmatch(image)
        if match is None:
            return (
                f"{image!r} is not an image of an ECR repository with a digest or a tag "
                "(<account>.dkr.ecr.<region>.amazonaws.com/<repository>@sha256:<hex>)"
            )
        return await asyncio.to_thread(self._look_up, image, match.groupdict())

    def _look_up(self, image: str, parts: dict[str, str | None]) -> str:
        from botocore.exceptions import BotoCoreError, ClientError

        wanted = {"imageDigest": parts["digest"]} if parts["digest"] else {"imageTag": parts["tag"]}
        try:
            ecr: Any = self._account.client("ecr", parts["region"])
            answer = ecr.batch_get_image(
                registryId=parts["registry"], repositoryName=parts["repository"], imageIds=[wanted]
            )
        except ClientError as error:
            return f"{image}: {error.response['Error'].get('Message', error)}"
        except (BotoCoreError, OSError) as error:
            return f"{image}: the account does not answer: {error}"
        return "" if answer["images"] else f"{image}: not found in ECR; push it first"
