"""An image repository of an environment, by the API of ECR alone: no container engine, nothing to sign in to.

Source: Amazon ECR API reference; a push is the sequence that its registry makes of `docker push`: the layers that are
not there, in parts and in order, and then the manifest that names them.
"""

from __future__ import annotations

import hashlib
import http.client
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.image_manifest import MEDIA_TYPES, Blob, Manifest, read_manifest
from pipelines.registry import clients

LARGEST_PART = 20_971_520
"""Bytes of a part of a layer that ECR takes; it says itself which size it wants, which is smaller."""

MOST_ASKED = 100
"""Layers that ECR is asked for at once."""

MOST_REFERRERS = 100
"""Statements about one image that are looked at."""

ATTEMPTS = 3
"""How often a layer is fetched while the connection breaks or S3 has no time."""

_TIMEOUT_SECONDS = 60
_CHUNK = 1 << 20


class NoRepositoryError(MlopsError):
    """The repository is not there."""


class _InterruptedError(Exception):
    """A download ended before it was whole; it may be tried again."""


@dataclass(frozen=True)
class ImageRepository:
    """A repository.

    Attributes:
        name: in its registry, `mlops-dev/serving`.
        environment: whose it is.
        registry: the account that holds it.
        region: of AWS.
    """

    name: str
    environment: str
    registry: str
    region: str

    @classmethod
    def of(cls, descriptor: EnvironmentDescriptor, image: str) -> ImageRepository:
        """The repository of an image (`training`, `serving`) in an environment."""
        url = str(getattr(descriptor.repositories, image))
        return cls(url.partition("/")[2], descriptor.name, descriptor.account, descriptor.region)

    def __str__(self) -> str:
        return f"the repository {self.name} of {self.environment}"

    def find(self, digest: str) -> Manifest | None:
        """A manifest; None when the repository does not hold it.

        Raises:
            NoRepositoryError, MlopsError: it cannot be read, or is not what the digest says.
        """
        answer = self._call(
            "BatchGetImage",
            "batch_get_image",
            imageIds=[{"imageDigest": digest}],
            acceptedMediaTypes=list(MEDIA_TYPES),
        )
        for failure in answer.get("failures") or ():
            if failure.get("failureCode") == "ImageNotFound":
                return None
            reason = failure.get("failureReason") or failure.get("failureCode")
            raise MlopsError(f"{self} does not give {digest}: {reason}")
        if not answer.get("images"):
            return None
        image = answer["images"][0]
        return read_manifest(image["imageManifest"], image.get("imageManifestMediaType", ""), digest)

    def referrers(self, digest: str) -> tuple[str, ...]:
        """The digests of the manifests that say something about an image: signatures, attestations.

        Raises:
            NoRepositoryError, MlopsError: they cannot be listed, or there are more than `MOST_REFERRERS`.
        """
        found: list[str] = []
        more: dict[str, Any] = {}
        while True:
            answer = self._call(
                "BatchGetImage", "list_image_referrers", subjectId={"imageDigest": digest}, maxResults=50, **more
            )
            found += [str(one["digest"]) for one in answer.get("referrers") or ()]
            if len(found) > MOST_REFERRERS:
                raise MlopsError(f"{self} holds more than {MOST_REFERRERS} statements about {digest}")
            if not answer.get("nextToken"):
                return tuple(found)
            more = {"nextToken": answer["nextToken"]}

    def lacks(self, blobs: Sequence[Blob]) -> list[Blob]:
        """Those that the repository does not hold, in order.

        Raises:
            NoRepositoryError, MlopsError: it cannot be asked.
        """
        held: set[str] = set()
        for start in range(0, len(blobs), MOST_ASKED):
            asked = [blob.digest for blob in blobs[start : start + MOST_ASKED]]
            answer = self._call("BatchCheckLayerAvailability", "batch_check_layer_availability", layerDigests=asked)
            held |= {
                layer["layerDigest"]
                for layer in answer.get("layers") or ()
                if layer.get("layerAvailability") == "AVAILABLE"
            }
        return [blob for blob in blobs if blob.digest not in held]

    @contextmanager
    def fetched(self, blob: Blob) -> Iterator[IO[bytes]]:
        """A blob as a temporary file, read from its beginning; it is gone when the block ends.

        Raises:
            NoRepositoryError, MlopsError: it cannot be had, or is not what its digest and size say.
        """
        with tempfile.TemporaryFile() as file:
            for attempt in range(1, ATTEMPTS + 1):
                file.seek(0)
                file.truncate()
                try:
                    self._download(blob, file)
                    break
                except _InterruptedError as error:
                    if attempt == ATTEMPTS:
                        raise MlopsError(
                            f"{self}: {blob.digest} could not be fetched: {error}", fix="try again"
                        ) from None
                    time.sleep(0.1 * 2**attempt)
            file.seek(0)
            yield file

    def _download(self, blob: Blob, to: IO[bytes]) -> None:
        url = str(
            self._call("GetDownloadUrlForLayer", "get_download_url_for_layer", layerDigest=blob.digest)["downloadUrl"]
        )
        if urllib.parse.urlsplit(url).scheme not in ("https", "http"):
            raise MlopsError(f"{self}: the registry says that {blob.digest} is at {url.partition('?')[0]}")
        hashed, received = hashlib.sha256(), 0
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - the scheme is known
                while received <= blob.size and (piece := answer.read(_CHUNK)):
                    received += len(piece)
                    hashed.update(piece)
                    to.write(piece)
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise MlopsError(f"{self}: {blob.digest} could not be fetched: HTTP {error.code}") from None
            raise _InterruptedError(f"HTTP {error.code}") from None
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            raise _InterruptedError(str(error)) from None
        if received < blob.size:
            raise _InterruptedError(f"it ended after {received} of {blob.size} bytes")
        if received > blob.size or f"sha256:{hashed.hexdigest()}" != blob.digest:
            raise MlopsError(
                f"{self}: the content of {blob.digest} is not what its digest says",
                fix="build the image again; what the registry holds is not what was pushed",
            )

    def take(self, blob: Blob, content: IO[bytes]) -> None:
        """Put a blob into the repository, in parts.

        Raises:
            NoRepositoryError, MlopsError: it was refused.
        """
        begun = self._call("InitiateLayerUpload", "initiate_layer_upload")
        upload, size, first = begun["uploadId"], min(int(begun["partSize"]), LARGEST_PART), 0
        # ECR wants every part but the last to be of the size that it has said, and to begin where the one before ended.
        while part := content.read(size):
            last = first + len(part) - 1
            self._call(
                "UploadLayerPart",
                "upload_layer_part",
                uploadId=upload,
                partFirstByte=first,
                partLastByte=last,
                layerPartBlob=part,
            )
            first = last + 1
        # Somebody else may have been faster: a layer has one content.
        self._call(
            "CompleteLayerUpload",
            "complete_layer_upload",
            but=("LayerAlreadyExistsException",),
            uploadId=upload,
            layerDigests=[blob.digest],
        )

    def put(self, manifest: Manifest, tag: str | None = None) -> None:
        """Put a manifest into the repository; all that it names must be there.

        Raises:
            NoRepositoryError, MlopsError: it was refused.
        """
        given = {"imageTag": tag} if tag else {}
        answer = self._call(
            "PutImage",
            "put_image",
            but=("ImageAlreadyExistsException", "ImageTagAlreadyExistsException"),
            imageManifest=manifest.text,
            imageManifestMediaType=manifest.media_type,
            imageDigest=manifest.digest,
            **given,
        )
        # A tag that is taken is taken by the same image, pushed meanwhile, or else the image is not there.
        if not answer and self.find(manifest.digest) is None:
            raise MlopsError(f"{self} has given the tag {tag} to another image than {manifest.digest}")

    def _call(self, action: str, operation: str, *, but: tuple[str, ...] = (), **arguments: Any) -> dict[str, Any]:
        """Call an operation on the repository; {} when it answers with one of the errors `but`.

        Args:
            action: the permission that it needs.
        """
        try:
            method = getattr(clients.client("ecr", self.region), operation)
            answer: dict[str, Any] = method(registryId=self.registry, repositoryName=self.name, **arguments)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in but:
                return {}
            if code == "RepositoryNotFoundException":
                raise NoRepositoryError(
                    f"{self} does not exist in the account {self.registry}", fix=f"mlops up --env {self.environment}"
                ) from None
            if code.startswith("AccessDenied"):
                raise MlopsError(
                    f"ecr:{action} on {self} was denied",
                    fix="run the bootstrap again, which grants it to the deploy role; docs/bootstrap.md",
                ) from None
            raise MlopsError(f"ecr:{action} on {self} failed: {error}") from None
        except BotoCoreError as error:
            raise MlopsError(
                f"ecr:{action} on {self} failed: {error}", fix="check the AWS credentials, region and endpoint"
            ) from None
        return answer
