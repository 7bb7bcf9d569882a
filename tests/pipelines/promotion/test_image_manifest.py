"""A manifest is read only where it is what its digest says, and says what an image is made of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.declarations.errors import MlopsError
from pipelines.promotion.image_manifest import (
    LARGEST_BLOB,
    LARGEST_MANIFEST,
    MEDIA_TYPES,
    MOST_CHILDREN,
    MOST_LAYERS,
    Blob,
    Manifest,
    read_manifest,
)
from tests.pipelines.promotion.image_server import INDEX, MANIFEST, descriptor, digest_of, image_of

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"


def read(document: Any, media_type: str = MANIFEST) -> Manifest:
    text = document if isinstance(document, str) else json.dumps(document)
    return read_manifest(text, media_type, digest_of(text.encode()))


def test_an_image_names_its_configuration_and_its_layers_each_once() -> None:
    found = read(image_of(b"{}", b"one", b"two", b"one"))
    assert found.blobs == tuple(Blob(digest_of(content), len(content)) for content in (b"{}", b"one", b"two"))
    assert found.children == ()


def test_an_index_names_its_children_each_once() -> None:
    children = [descriptor(b"one", MANIFEST), descriptor(b"two", DOCKER), descriptor(b"one", MANIFEST)]
    found = read({"schemaVersion": 2, "manifests": children, "annotations": {"a": "b"}}, INDEX)
    assert found.children == (digest_of(b"one"), digest_of(b"two"))
    assert found.blobs == ()


def test_a_manifest_that_does_not_say_its_type_has_the_one_that_the_registry_says() -> None:
    document = image_of(b"{}")
    del document["mediaType"]
    assert read(document, DOCKER).media_type == DOCKER


def changed(**changes: Any) -> dict[str, Any]:
    return {**image_of(b"{}", b"one"), **changes}


LAYER = descriptor(b"one", "layer")


@pytest.mark.parametrize(
    ("document", "media_type", "said"),
    [
        (changed(), "application/vnd.docker.distribution.manifest.v1+json", "is of the type"),
        (changed(), "", "is of the type"),
        (changed(), DOCKER, f"says that it is {MANIFEST}, the registry calls it {DOCKER}"),
        (changed(), INDEX, "manifests: Field required"),
        (changed(schemaVersion=1), MANIFEST, "schemaVersion"),
        (changed(config=None), MANIFEST, "config"),
        (changed(layers=[{**LAYER, "digest": "sha512:" + "0" * 128}]), MANIFEST, "layers.0.digest"),
        (changed(layers=[{**LAYER, "digest": "sha256:../../etc"}]), MANIFEST, "layers.0.digest"),
        (changed(layers=[{**LAYER, "size": -1}]), MANIFEST, "layers.0.size"),
        (changed(layers=[{**LAYER, "size": LARGEST_BLOB + 1}]), MANIFEST, "layers.0.size"),
        (changed(layers=[{**LAYER, "size": "3"}]), MANIFEST, "layers.0.size"),
        (changed(layers=[LAYER] * (MOST_LAYERS + 1)), MANIFEST, "layers"),
        ({"schemaVersion": 2, "manifests": [LAYER] * (MOST_CHILDREN + 1)}, INDEX, "manifests"),
        ("[]", MANIFEST, "it: "),
        ("{", MANIFEST, "it: "),
        ("[" * 100_000, MANIFEST, "it: "),
        (" " * (LARGEST_MANIFEST + 1), MANIFEST, "expected at most"),
    ],
)
def test_what_is_no_manifest_of_an_image_is_refused_with_the_reason(document: Any, media_type: str, said: str) -> None:
    with pytest.raises(MlopsError) as error:
        read(document, media_type)
    assert said in error.value.what


def test_a_manifest_under_another_digest_is_refused() -> None:
    with pytest.raises(MlopsError, match="with the digest"):
        read_manifest(json.dumps(image_of(b"{}")), MANIFEST, digest_of(b"another"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(LAYER) | st.just(MANIFEST),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size", "x"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(document=JSON, media_type=st.sampled_from(MEDIA_TYPES))
@settings(max_examples=60, deadline=None)
def test_whatever_a_registry_gives_is_read_or_refused(document: Any, media_type: str) -> None:
    document = {**document, "schemaVersion": 2} if isinstance(document, dict) else document
    try:
        found = read(document, media_type)
    except MlopsError:
        return
    if media_type in (MANIFEST, DOCKER):
        assert found.blobs[0].digest == document["config"]["digest"]
    else:
        assert set(found.children) == {child["digest"] for child in document["manifests"]}
