"""Images reach an environment's own repositories before its pods are asked to run them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from pipelines.declarations.environment import Images
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.image_repository import ATTEMPTS, MOST_REFERRERS
from pipelines.promotion.replicate_image import DEEPEST, replicate_images
from tests.pipelines.promotion.image_server import (
    PART_SIZE,
    ImageServer,
    Repository,
    descriptor,
    digest_of,
    image_of,
    image_server,
    registered,
)

LARGE = random.Random(1).randbytes(3 * PART_SIZE + 17)
SMALL = b"small"


DEV, STAGING = registered("dev"), registered("staging")


@pytest.fixture(scope="module")
def running() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


@pytest.fixture
def server(running: ImageServer) -> ImageServer:
    running.clear()
    for name in ("dev", "staging"):
        for image in ("training", "serving"):
            running.repositories[f"mlops-{name}/{image}"] = Repository()
    return running


@pytest.fixture
def dev(server: ImageServer) -> Repository:
    return server.repositories["mlops-dev/serving"]


@pytest.fixture
def staging(server: ImageServer) -> Repository:
    return server.repositories["mlops-staging/serving"]


def replicate(digest: str) -> list[str]:
    """Bring an image from dev to staging; what was said."""
    said: list[str] = []
    replicate_images(DEV, STAGING, Images(serving=digest), said.append)
    return said


def built(repository: Repository) -> str:
    """An index as buildx pushes it: the image, and a manifest about how it was built."""
    image = repository.hold_image(LARGE, SMALL)
    provenance = repository.hold_image(b'{"predicateType": "slsa"}')
    return repository.hold_index(image, provenance)


def attested(repository: Repository, digest: str, statement: bytes) -> str:
    """A statement about an image, as the action `attest` pushes it."""
    text, media_type = repository.images[digest]
    about = descriptor(text.encode(), media_type)
    return repository.hold(image_of(b"{}", statement, subject=about, artifactType="sigstore"), b"{}", statement)


def test_an_image_is_copied_with_all_that_it_names_and_keeps_its_digest(dev: Repository, staging: Repository) -> None:
    digest = dev.hold_image(LARGE, SMALL)
    assert replicate(digest) == ["the image serving is in the repository of staging"]
    assert staging.images == dev.images
    assert staging.layers == dev.layers


def test_an_index_is_copied_with_the_images_in_it(dev: Repository, staging: Repository) -> None:
    replicate(built(dev))
    assert staging.images == dev.images
    assert staging.layers == dev.layers


def test_a_copied_image_has_a_tag_lest_the_lifecycle_of_the_repository_ends_it(
    dev: Repository, staging: Repository
) -> None:
    digest = built(dev)
    replicate(digest)
    assert list(staging.tags.values()) == [digest]
    # `sha256-…` is where clients without the referrers API look for statements about an image.
    assert not next(iter(staging.tags)).startswith("sha256")


def test_each_image_goes_to_its_own_repository_and_what_is_not_pinned_stays(server: ImageServer) -> None:
    training = server.repositories["mlops-dev/training"].hold_image(b"training")
    server.repositories["mlops-dev/serving"].hold_image(SMALL)
    replicate_images(DEV, STAGING, Images(training=training))
    assert set(server.repositories["mlops-staging/training"].images) == {training}
    assert not server.repositories["mlops-staging/serving"].images


def test_what_is_there_already_is_not_copied_again(server: ImageServer, dev: Repository) -> None:
    digest = built(dev)
    attested(dev, digest, b"signed")
    replicate(digest)
    server.calls.clear()
    assert replicate(digest) == []
    assert not server.writes()
    assert "GetDownloadUrlForLayer" not in {operation for operation, _ in server.calls}


def test_a_layer_that_is_there_already_is_neither_fetched_nor_pushed(
    server: ImageServer, dev: Repository, staging: Repository
) -> None:
    staging.hold_image(LARGE)
    replicate(dev.hold_image(LARGE, SMALL))
    fetched = [repository for operation, repository in server.calls if operation == "GetDownloadUrlForLayer"]
    assert len(fetched) == 2  # the small layer, and the configuration
    assert ("UploadLayerPart", "mlops-staging/serving") in server.calls


def test_an_image_with_more_layers_than_ecr_is_asked_for_at_once_is_copied(
    dev: Repository, staging: Repository
) -> None:
    digest = dev.hold_image(*(b"layer %d" % number for number in range(120)))
    staging.layers |= dict(list(dev.layers.items())[:-3])
    replicate(digest)
    assert staging.layers == dev.layers


def test_a_copy_that_was_interrupted_anywhere_leaves_no_image_and_the_next_one_finishes_it(
    server: ImageServer, dev: Repository, staging: Repository
) -> None:
    digest = built(dev)
    attested(dev, digest, b"signed")
    replicate(digest)
    calls, whole = len(server.calls), staging
    assert calls > 20
    for stop in range(calls):
        broken = server.repositories["mlops-staging/serving"] = Repository()
        server.lets = stop
        with pytest.raises(MlopsError):
            replicate(digest)
        if digest in broken.images:  # the server refuses an image before what it names
            assert set(broken.layers) >= {digest_of(LARGE), digest_of(SMALL)}
        pushed = dict(broken.layers)
        server.lets = None
        server.calls.clear()
        replicate(digest)
        assert (broken.images, broken.layers, broken.tags) == (whole.images, whole.layers, whole.tags)
        completed = [operation for operation, _ in server.calls].count("CompleteLayerUpload")
        assert completed == len(whole.layers) - len(pushed)


@pytest.mark.parametrize(
    "spoiled", [LARGE[:-1] + b"?", LARGE + b"more", b""], ids=["another content", "more than it should be", "nothing"]
)
def test_a_layer_that_is_not_what_its_digest_says_is_not_passed_on(
    server: ImageServer, dev: Repository, staging: Repository, spoiled: bytes
) -> None:
    digest = dev.hold_image(LARGE)
    server.spoils[digest_of(LARGE)] = spoiled
    with pytest.raises(MlopsError, match=r"mlops-dev/serving of dev.*" + digest_of(LARGE)):
        replicate(digest)
    assert digest_of(LARGE) not in staging.layers
    assert not staging.images


def test_a_download_that_breaks_off_or_is_put_off_is_tried_again(
    server: ImageServer, dev: Repository, staging: Repository
) -> None:
    digest = dev.hold_image(LARGE, SMALL)
    server.breaks[digest_of(LARGE)] = 1
    server.is_busy[digest_of(SMALL)] = 1
    replicate(digest)
    assert staging.layers == dev.layers


def test_a_download_that_never_ends_well_is_given_up(server: ImageServer, dev: Repository) -> None:
    digest = dev.hold_image(LARGE)
    server.breaks[digest_of(LARGE)] = ATTEMPTS
    with pytest.raises(MlopsError, match="could not be fetched"):
        replicate(digest)
    assert not server.breaks[digest_of(LARGE)]


def test_a_manifest_that_is_not_what_its_digest_says_is_not_passed_on(dev: Repository, staging: Repository) -> None:
    digest = dev.hold_image(SMALL)
    text, media_type = dev.images[digest]
    dev.images[digest] = (text.replace(" ", "  "), media_type)
    with pytest.raises(MlopsError, match=f"for {digest}"):
        replicate(digest)
    assert not staging.images


def test_somebody_who_copies_the_same_image_at_the_same_time_does_no_harm(
    server: ImageServer, dev: Repository, staging: Repository
) -> None:
    digest = built(dev)
    server.others_are_faster = True
    replicate(digest)
    assert staging.images == dev.images


def test_a_tag_that_another_image_has_is_told(dev: Repository, staging: Repository) -> None:
    digest = dev.hold_image(SMALL)
    staging.tags[f"replicated-{digest.removeprefix('sha256:')}"] = staging.hold_image(LARGE)
    with pytest.raises(MlopsError, match="to another image"):
        replicate(digest)


def test_what_is_attested_of_an_image_comes_with_it(dev: Repository, staging: Repository) -> None:
    digest = built(dev)
    statements = [attested(dev, digest, b"provenance"), attested(dev, digest, b"bill of materials")]
    attested(dev, dev.hold_image(b"another"), b"of another")
    replicate(digest)
    assert set(staging.images) >= set(statements)
    assert digest_of(b"provenance") in staging.layers
    assert digest_of(b"of another") not in staging.layers


def test_what_is_attested_later_comes_with_the_next_deployment(dev: Repository, staging: Repository) -> None:
    digest = built(dev)
    replicate(digest)
    later = attested(dev, digest, b"scanned")
    assert replicate(digest) == []
    assert later in staging.images


def test_statements_without_end_are_refused(dev: Repository) -> None:
    digest = dev.hold_image(SMALL)
    for number in range(MOST_REFERRERS + 1):
        attested(dev, digest, b"%d" % number)
    with pytest.raises(MlopsError, match=f"more than {MOST_REFERRERS} statements"):
        replicate(digest)


def test_an_image_that_is_nowhere_is_named_with_what_to_do(server: ImageServer) -> None:
    nowhere = "sha256:" + "0" * 64
    with pytest.raises(MlopsError) as error:
        replicate(nowhere)
    assert error.value.what == (
        f"the image {nowhere} is in neither the repository mlops-staging/serving of staging "
        "nor the repository mlops-dev/serving of dev"
    )
    assert error.value.fix is not None
    assert "run the workflow `images`" in error.value.fix
    del server.repositories["mlops-dev/serving"]
    with pytest.raises(MlopsError, match="in neither"):
        replicate(nowhere)


def test_the_first_environment_must_hold_what_it_pins_itself(server: ImageServer, dev: Repository) -> None:
    nowhere = "sha256:" + "0" * 64
    with pytest.raises(MlopsError, match="is not in the repository mlops-dev/serving of dev") as error:
        replicate_images(None, DEV, Images(serving=nowhere))
    assert error.value.fix is not None
    assert "run the workflow `images`" in error.value.fix
    replicate_images(None, DEV, Images(serving=dev.hold_image(SMALL)))
    assert not server.writes()


def test_an_environment_that_is_gone_is_not_missed_where_the_image_is_there_already(
    server: ImageServer, dev: Repository
) -> None:
    digest = built(dev)
    replicate(digest)
    del server.repositories["mlops-dev/serving"]
    assert replicate(digest) == []


def test_a_repository_that_is_not_there_is_told_with_what_makes_it(server: ImageServer, dev: Repository) -> None:
    digest = dev.hold_image(SMALL)
    del server.repositories["mlops-staging/serving"]
    with pytest.raises(MlopsError, match="mlops-staging/serving") as error:
        replicate(digest)
    assert error.value.fix == "mlops up --env staging"


@pytest.mark.parametrize(
    ("operation", "repository", "permission"),
    [
        ("BatchGetImage", "mlops-dev/serving", "ecr:BatchGetImage"),
        ("ListImageReferrers", "mlops-dev/serving", "ecr:BatchGetImage"),
        ("GetDownloadUrlForLayer", "mlops-dev/serving", "ecr:GetDownloadUrlForLayer"),
        ("UploadLayerPart", "mlops-staging/serving", "ecr:UploadLayerPart"),
        ("PutImage", "mlops-staging/serving", "ecr:PutImage"),
    ],
)
def test_a_permission_that_lacks_is_named(
    server: ImageServer, dev: Repository, operation: str, repository: str, permission: str
) -> None:
    server.denied.add((operation, repository))
    with pytest.raises(MlopsError, match=f"{permission} on the repository {repository} .* was denied"):
        replicate(dev.hold_image(SMALL))


def test_an_image_that_the_registry_holds_back_is_told_with_its_reason(dev: Repository) -> None:
    digest = dev.hold_image(SMALL)
    dev.failures[digest] = "KmsError"
    with pytest.raises(MlopsError, match="because KmsError"):
        replicate(digest)


def test_an_index_that_names_what_is_not_there_is_told(dev: Repository, staging: Repository) -> None:
    child = dev.hold_image(SMALL)
    digest = dev.hold_index(child)
    del dev.images[child]
    with pytest.raises(MlopsError, match=f"but not {child}"):
        replicate(digest)
    assert not staging.images


@pytest.mark.parametrize(("levels", "copied"), [(DEEPEST, True), (DEEPEST + 1, False)])
def test_indexes_in_indexes_are_followed_only_so_far(
    dev: Repository, staging: Repository, levels: int, copied: bool
) -> None:
    digest = dev.hold_image(SMALL)
    for _ in range(levels):
        digest = dev.hold_index(digest)
    if copied:
        replicate(digest)
        assert staging.images == dev.images
    else:
        with pytest.raises(MlopsError, match="lies within"):
            replicate(digest)


def test_an_empty_layer_which_ecr_does_not_take_is_told(dev: Repository, staging: Repository) -> None:
    with pytest.raises(MlopsError, match="EmptyUpload"):
        replicate(dev.hold_image(b""))
    assert not staging.images


def test_the_text_of_a_manifest_is_passed_on_as_it_is(dev: Repository, staging: Repository) -> None:
    digest = dev.hold_image(SMALL, annotations={"who": "Zoë ☃", "spaced": "a  b"})
    assert "\\u2603" in dev.images[digest][0]
    replicate(digest)
    spelled = json.dumps(json.loads(dev.images[digest][0]), ensure_ascii=False, indent=1)
    dev.images[digest_of(spelled.encode())] = (spelled, dev.images[digest][1])
    replicate(digest_of(spelled.encode()))
    assert staging.images == dev.images
