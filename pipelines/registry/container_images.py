"""Container images in Amazon ECR: find, tag and describe them, and read their scan results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.declarations.documents import Declaration
from pipelines.declarations.errors import MlopsError
from pipelines.registry import clients

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
"""Media types of a manifest that lists one image for each architecture."""

MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
"""Media types of the manifest of one image."""

SCANNED = ("COMPLETE", "ACTIVE")
"""Statuses of a scan with a result: of basic scanning, and of enhanced scanning."""

_URL = re.compile(r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/(?P<name>\S+)")


class UnknownImageError(MlopsError):
    """The repository does not have the image."""


@dataclass(frozen=True)
class ImageRepository:
    """A repository of container images.

    Attributes:
        account: id of the AWS account that owns it.
        region: its region.
        name: its name.
    """

    account: str
    region: str
    name: str

    @classmethod
    def of_url(cls, url: str) -> ImageRepository:
        """Return the repository with a URL: `<account>.dkr.ecr.<region>.amazonaws.com/<name>`.

        Raises:
            MlopsError: the URL has another form.
        """
        match = _URL.fullmatch(url)
        if match is None:
            raise MlopsError(
                "not the URL of an ECR repository: expected <account>.dkr.ecr.<region>.amazonaws.com/<name>, "
                f"found {url!r}"
            )
        return cls(match["account"], match["region"], match["name"])

    def request(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call an operation of ECR on this repository.

        Raises:
            UnknownImageError: the image does not exist.
            MlopsError: ECR refused the call, or did not answer.
        """
        with _errors_by_name(operation, self):
            method = getattr(clients.client("ecr", self.region), operation)
            answer: dict[str, Any] = method(registryId=self.account, repositoryName=self.name, **parameters)
            return answer


@dataclass(frozen=True)
class PublishedImage:
    """An image in a repository.

    Attributes:
        digest: its digest.
        tags: its tags, sorted.
        platforms: architecture → the image for it; empty if the manifest does not say for which architecture it is.
    """

    digest: str
    tags: tuple[str, ...]
    platforms: Mapping[str, PlatformImage]


@dataclass(frozen=True)
class PlatformImage:
    """The image for one architecture.

    Attributes:
        digest: its digest.
        size: compressed size of its layers, in bytes.
    """

    digest: str
    size: int


class Vulnerability(Declaration):
    """A vulnerability that a scan found.

    Attributes:
        name: its name, such as `CVE-2026-1234`.
        severity: in lower-case letters.
    """

    name: str
    severity: str


class ScanResult(Declaration):
    """The result of a scan.

    Attributes:
        status: status as ECR says it; one of `SCANNED` if there is a result.
        findings: the vulnerabilities, without duplicates.
    """

    status: str
    findings: tuple[Vulnerability, ...] = ()


def find_image(repository: ImageRepository, tag: str) -> str | None:
    """Return the digest of the image with a tag; None if there is none.

    Raises:
        MlopsError: ECR refused the call, or did not answer.
    """
    found = repository.request("batch_get_image", imageIds=[{"imageTag": tag}])["images"]
    return str(found[0]["imageId"]["imageDigest"]) if found else None


def tag_image(repository: ImageRepository, digest: str, tag: str) -> None:
    """Add a tag to an image. Tags cannot be moved, so an image that has it keeps it.

    Raises:
        UnknownImageError: the image does not exist.
        MlopsError: another image has the tag; or ECR refused the call, or did not answer.
    """
    manifest, media_type = _manifest(repository, digest)
    found = find_image(repository, tag)
    if found is None:
        repository.request(
            "put_image", imageManifest=manifest, imageManifestMediaType=media_type, imageTag=tag, imageDigest=digest
        )
    elif found != digest:
        raise MlopsError(f"the tag {tag} of {repository.name} is taken: expected {digest}, found {found}")


def read_image(repository: ImageRepository, digest: str) -> PublishedImage:
    """Describe an image: its tags, and an image for each architecture.

    Raises:
        UnknownImageError: the image does not exist.
        MlopsError: its manifest is malformed; or ECR refused the call, or did not answer.
    """
    details = repository.request("describe_images", imageIds=[{"imageDigest": digest}])["imageDetails"]
    tags = sorted({tag for detail in details for tag in detail.get("imageTags", ())})
    text, _ = _manifest(repository, digest)
    platforms: dict[str, PlatformImage] = {}
    for architecture, child in _children(text).items():
        layers = json.loads(_manifest(repository, child)[0]).get("layers", [])
        platforms[architecture] = PlatformImage(child, sum(int(layer["size"]) for layer in layers))
    return PublishedImage(digest, tuple(tags), platforms)


def read_scan(repository: ImageRepository, digest: str) -> ScanResult:
    """Return the result of the newest scan of an image for one architecture.

    Raises:
        MlopsError: the image was never scanned; or ECR refused the call, or did not answer.
    """
    findings: list[Vulnerability] = []
    more: dict[str, str] = {}
    while True:
        answer = repository.request("describe_image_scan_findings", imageId={"imageDigest": digest}, **more)
        found = answer.get("imageScanFindings", {})
        findings += [_vulnerability(item["name"], item["severity"]) for item in found.get("findings", ())]
        for item in found.get("enhancedFindings", ()):
            name = item.get("packageVulnerabilityDetails", {}).get("vulnerabilityId") or item.get("title", "unnamed")
            findings.append(_vulnerability(name, item["severity"]))
        if not (token := answer.get("nextToken")):
            unique = {one.name: one for one in findings}
            return ScanResult(status=str(answer["imageScanStatus"]["status"]), findings=tuple(unique.values()))
        more = {"nextToken": token}


def _vulnerability(name: object, severity: object) -> Vulnerability:
    return Vulnerability(name=str(name), severity=str(severity).lower())


def _manifest(repository: ImageRepository, digest: str) -> tuple[str, str]:
    """Return the text of a manifest and its media type."""
    answer = repository.request(
        "batch_get_image", imageIds=[{"imageDigest": digest}], acceptedMediaTypes=[*INDEXES, *MANIFESTS]
    )
    if not answer["images"]:
        raise UnknownImageError(
            f"{repository.name} has no image {digest}", fix="run the workflow `images`, which builds and pushes it"
        )
    text = str(answer["images"][0]["imageManifest"])
    return text, str(json.loads(text).get("mediaType") or answer["images"][0]["imageManifestMediaType"])


def _children(manifest: str) -> dict[str, str]:
    """Return architecture → digest from an index. Attestations in it have the architecture `unknown`."""
    try:
        listed = json.loads(manifest).get("manifests", [])
        return {
            str(child["platform"]["architecture"]): str(child["digest"])
            for child in listed
            if child.get("platform", {}).get("architecture", "unknown") != "unknown"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise MlopsError("the manifest of an image is malformed: expected an OCI image index") from None


@contextmanager
def _errors_by_name(operation: str, repository: ImageRepository) -> Iterator[None]:
    what = f"ecr:{''.join(part.capitalize() for part in operation.split('_'))} on {repository.name}"
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        message = error.response.get("Error", {}).get("Message", str(error))
        if code == "ImageNotFoundException":
            raise UnknownImageError(
                f"{repository.name} has no such image: {message}", fix="run the workflow `images`, which pushes it"
            ) from None
        if code == "ScanNotFoundException":
            raise MlopsError(
                f"{repository.name} has no scan result of the image yet",
                fix="wait a minute; the bootstrap must have turned on scanning of pushed images",
            ) from None
        denied = code in ("AccessDeniedException", "AccessDenied")
        fix = "run the bootstrap again, which grants it" if denied else "try again later"
        raise MlopsError(f"{what} failed: {message}", fix=fix) from None
    except BotoCoreError as error:
        raise MlopsError(f"{what} failed: {error}", fix="check the AWS credentials, region and endpoint") from None
