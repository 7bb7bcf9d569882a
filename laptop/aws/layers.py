"""What moto's ECR does not do: give the content of a layer back, and list what refers to an image."""

from __future__ import annotations

import json
import secrets
from typing import Any

DOWNLOADS = "/_account/layers/"
"""Where layers are given to who has the URL, as S3 gives them to who has a presigned one."""

_given: dict[str, bytes] = {}


def give_layers_back() -> None:
    """Adds it to moto in this process."""
    from moto.ecr.models import ECRBackend
    from moto.ecr.responses import ECRResponse

    ECRBackend.complete_layer_upload = _keeping_content(ECRBackend.complete_layer_upload)  # type: ignore[method-assign]
    ECRResponse.get_download_url_for_layer = _download_url  # type: ignore[method-assign]
    ECRResponse.list_image_referrers = _referrers  # type: ignore[attr-defined]


def download(path: str) -> bytes | None:
    """The layer at the path of a URL, once; None when no URL leads there."""
    return _given.pop(path.removeprefix(DOWNLOADS), None)


def _keeping_content(complete: Any) -> Any:
    def keep(
        self: Any, repository_name: str, upload_id: str, layer_digests: list[str], registry_id: str | None = None
    ) -> Any:
        repository = self._get_repository(repository_name, registry_id)
        upload = repository.uploads.get(upload_id)
        content = bytes(upload.layer_parts) if upload is not None else b""
        answer = complete(self, repository_name, upload_id, layer_digests, registry_id)
        repository.__dict__.setdefault("contents", {})[answer["layerDigest"]] = content
        return answer

    return keep


def _download_url(self: Any) -> Any:
    from moto.core.exceptions import ServiceException
    from moto.core.responses import ActionResult

    class LayersNotFoundException(ServiceException):
        code = "LayersNotFoundException"

    repository = self.ecr_backend._get_repository(self._get_param("repositoryName"), self._get_param("registryId"))
    digest = self._get_param("layerDigest")
    content = getattr(repository, "contents", {}).get(digest)
    if content is None:
        raise LayersNotFoundException(f"The layer {digest} does not exist in the repository {repository.name}.")
    ticket = secrets.token_urlsafe(24)
    _given[ticket] = content
    return ActionResult({"downloadUrl": f"http://{self.headers['Host']}{DOWNLOADS}{ticket}", "layerDigest": digest})


def _referrers(self: Any) -> Any:
    from moto.core.responses import ActionResult

    repository = self.ecr_backend._get_repository(self._get_param("repositoryName"), self._get_param("registryId"))
    subject, found = self._get_param("subjectId")["imageDigest"], []
    for image in repository.images:
        manifest = json.loads(image.image_manifest)
        if (manifest.get("subject") or {}).get("digest") == subject:
            found.append(
                {
                    "digest": image.image_digest,
                    "mediaType": image.image_manifest_media_type,
                    "artifactType": manifest.get("artifactType", ""),
                    "size": len(image.image_manifest.encode()),
                }
            )
    return ActionResult({"referrers": found})
