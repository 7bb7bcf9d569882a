"""A small ECR for tests, over HTTP: its JSON protocol, and the URLs where it gives layers away.

It is as strict as ECR's documentation says: parts in order and of the size that it asks for, digests that are right, a
manifest only after what it names, a tag for one image only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock

import boto3

from pipelines.declarations.environment import EnvironmentDescriptor, ImageReferences, Repositories

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
PART_SIZE = 1000
"""Bytes; of ECR these are some megabytes."""

READS = {"BatchGetImage", "ListImageReferrers", "BatchCheckLayerAvailability", "GetDownloadUrlForLayer"}


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def registered(name: str) -> EnvironmentDescriptor:
    """An environment of which only the image repositories count."""
    registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
    return EnvironmentDescriptor(
        name=name,
        region="eu-west-1",
        account="123456789012",
        landing_bucket="landing",
        lake_bucket="lake",
        logs_bucket="logs",
        registry_bucket="registry",
        catalog_database="database",
        signing_key="key",
        trusted_keys={},
        cluster="cluster",
        namespace="models",
        images=ImageReferences(),
        repositories=Repositories(
            training=f"{registry}/mlops-{name}/training", serving=f"{registry}/mlops-{name}/serving"
        ),
    )


class RefusedError(Exception):
    """What the server answers with: the name of one of ECR's errors."""


@dataclass
class Repository:
    """What a repository holds.

    Attributes:
        layers: digest → content.
        images: digest → the manifest's text and media type.
        tags: tag → digest.
        failures: digest → the code with which it cannot be given.
    """

    layers: dict[str, bytes] = field(default_factory=dict)
    images: dict[str, tuple[str, str]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)

    def hold(self, document: dict[str, Any], *contents: bytes) -> str:
        """Hold an image as if it had been pushed; its digest."""
        text = json.dumps(document)
        self.layers |= {digest_of(content): content for content in contents}
        self.images[digest_of(text.encode())] = (text, document["mediaType"])
        return digest_of(text.encode())

    def hold_image(self, *layers: bytes, **more: Any) -> str:
        """Hold an image with layers and a configuration; its digest."""
        config = json.dumps({"architecture": "amd64", "rootfs": [digest_of(layer) for layer in layers]}).encode()
        return self.hold(image_of(config, *layers, **more), config, *layers)

    def hold_index(self, *children: str, **more: Any) -> str:
        """Hold an index of images that are held; its digest."""
        manifests = [descriptor(self.images[one][0].encode(), self.images[one][1]) for one in children]
        return self.hold({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, **more})


def descriptor(content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def image_of(config: bytes, *layers: bytes, **more: Any) -> dict[str, Any]:
    """The manifest of an image."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip") for layer in layers],
        **more,
    }


class ImageServer:
    """The registry.

    Attributes:
        url: of the server.
        repositories: name → what it holds.
        calls: what was asked: the operation and the repository.
        denied: operation and repository that are not allowed.
        lets: how many more calls it answers before all are refused; None for no end.
        spoils: digest → what is given in place of the layer.
        breaks: digest → how often its download ends halfway.
        is_busy: digest → how often its download is put off.
        others_are_faster: whether each layer and image that is pushed has just been pushed by somebody else.
    """

    def __init__(self) -> None:
        self.url = ""
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.repositories: dict[str, Repository] = {}
        self.calls: list[tuple[str, str]] = []
        self.denied: set[tuple[str, str]] = set()
        self.lets: int | None = None
        self.spoils: dict[str, bytes] = {}
        self.breaks: Counter[str] = Counter()
        self.is_busy: Counter[str] = Counter()
        self.others_are_faster = False

    def writes(self) -> list[tuple[str, str]]:
        """What was asked that changes something."""
        return [call for call in self.calls if call[0] not in READS]

    def answer(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Answer a call, or raise RefusedError."""
        name = asked["repositoryName"]
        self.calls.append((operation, name))
        if self.lets is not None:
            self.lets -= 1
            if self.lets < 0:
                raise RefusedError("InvalidParameterException")
        if (operation, name) in self.denied:
            raise RefusedError("AccessDeniedException")
        if name not in self.repositories:
            raise RefusedError("RepositoryNotFoundException")
        done: dict[str, Any] = getattr(self, f"_{operation}")(self.repositories[name], asked)
        return done

    def _BatchGetImage(self, repository: Repository, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        digest = asked["imageIds"][0]["imageDigest"]
        code = repository.failures.get(digest, "ImageNotFound" if digest not in repository.images else "")
        if code:
            failure = {"imageId": {"imageDigest": digest}, "failureCode": code, "failureReason": f"because {code}"}
            return {"images": [], "failures": [failure]}
        text, media_type = repository.images[digest]
        assert media_type in asked["acceptedMediaTypes"]
        image = {"imageId": {"imageDigest": digest}, "imageManifest": text, "imageManifestMediaType": media_type}
        return {"images": [image], "failures": []}

    def _ListImageReferrers(self, repository: Repository, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        subject = asked["subjectId"]["imageDigest"]
        found = [
            {"digest": digest, "mediaType": media_type, "size": len(text)}
            for digest, (text, media_type) in repository.images.items()
            if json.loads(text).get("subject", {}).get("digest") == subject
        ]
        start = int(asked.get("nextToken", "0"))  # one a page, so that there are pages
        more = {"nextToken": str(start + 1)} if start + 1 < len(found) else {}
        return {"referrers": found[start : start + 1], **more}

    def _BatchCheckLayerAvailability(self, repository: Repository, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        digests = asked["layerDigests"]
        assert 0 < len(digests) <= 100
        layers = [
            {"layerDigest": one, "layerAvailability": "AVAILABLE", "layerSize": len(repository.layers[one])}
            for one in digests
            if one in repository.layers
        ]
        missing = [{"layerDigest": one, "failureCode": "MissingLayerDigest"} for one in digests]
        return {"layers": layers, "failures": [one for one in missing if one["layerDigest"] not in repository.layers]}

    def _GetDownloadUrlForLayer(self, repository: Repository, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        digest = asked["layerDigest"]
        if digest not in repository.layers:
            raise RefusedError("LayersNotFoundException")
        return {"downloadUrl": f"{self.url}/{asked['repositoryName']}/{digest}?signed=1", "layerDigest": digest}

    def _InitiateLayerUpload(self, repository: Repository, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        upload = f"upload-{len(self.calls)}"
        repository.uploads[upload] = b""
        return {"uploadId": upload, "partSize": PART_SIZE}

    def _UploadLayerPart(self, repository: Repository, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        part, before = base64.b64decode(asked["layerPartBlob"]), repository.uploads[asked["uploadId"]]
        in_order = asked["partFirstByte"] == len(before) and asked["partLastByte"] == len(before) + len(part) - 1
        if not in_order or len(before) % PART_SIZE or len(part) > PART_SIZE:
            raise RefusedError("InvalidLayerPartException")
        repository.uploads[asked["uploadId"]] = before + part
        return {"uploadId": asked["uploadId"], "lastByteReceived": asked["partLastByte"]}

    def _CompleteLayerUpload(self, repository: Repository, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        content = repository.uploads.pop(asked["uploadId"])
        if not content:
            raise RefusedError("EmptyUploadException")
        if asked["layerDigests"] != [digest_of(content)]:
            raise RefusedError("InvalidLayerException")
        if digest_of(content) in repository.layers:
            raise RefusedError("LayerAlreadyExistsException")
        repository.layers[digest_of(content)] = content
        if self.others_are_faster:
            raise RefusedError("LayerAlreadyExistsException")
        return {"layerDigest": digest_of(content)}

    def _PutImage(self, repository: Repository, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        text, tag = asked["imageManifest"], asked.get("imageTag")
        digest, document = digest_of(text.encode()), json.loads(asked["imageManifest"])
        if asked["imageDigest"] != digest:
            raise RefusedError("ImageDigestDoesNotMatchException")
        named = [one["digest"] for one in [*document.get("layers", ()), document.get("config")] if one]
        if not set(named) <= set(repository.layers):
            raise RefusedError("LayersNotFoundException")
        if not {one["digest"] for one in document.get("manifests", ())} <= set(repository.images):
            raise RefusedError("ReferencedImagesNotFoundException")
        if tag in repository.tags:
            raise RefusedError("ImageTagAlreadyExistsException")
        if not tag and digest in repository.images:
            raise RefusedError("ImageAlreadyExistsException")
        repository.images[digest] = (text, asked["imageManifestMediaType"])
        repository.tags |= {tag: digest} if tag else {}
        if self.others_are_faster:
            raise RefusedError("ImageTagAlreadyExistsException" if tag else "ImageAlreadyExistsException")
        return {"image": {"imageId": {"imageDigest": digest}}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body of an answer in one packet: a second one would wait for the first to be acknowledged
    images: ImageServer

    def log_message(self, *_: Any) -> None:
        return

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            answer, status = self.images.answer(self.headers["X-Amz-Target"].partition(".")[2], body), 200
        except RefusedError as error:
            answer, status = {"__type": str(error), "message": str(error)}, 400
        self._send(status, json.dumps(answer).encode())

    def do_GET(self) -> None:
        name, _, digest = self.path.partition("?")[0][1:].rpartition("/")
        content = self.images.repositories[name].layers[digest]
        if self.images.is_busy[digest] > 0:
            self.images.is_busy[digest] -= 1
            self._send(503, b"slow down")
        elif self.images.breaks[digest] > 0:
            self.images.breaks[digest] -= 1
            self._send(200, content[: len(content) // 2], len(content))
            self.close_connection = True
        else:
            self._send(200, self.images.spoils.get(digest, content))

    def _send(self, status: int, content: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def image_server() -> Iterator[ImageServer]:
    """Start a registry; boto3 in this process finds it until the block ends."""
    images = ImageServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"images": images}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    images.url = f"http://127.0.0.1:{server.server_port}"
    variables = {
        "AWS_ENDPOINT_URL_ECR": images.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        with mock.patch.dict(os.environ, variables):
            boto3.setup_default_session()
            yield images
    finally:
        server.shutdown()
        server.server_close()
