"""A training starts only in an image that has the files of the working tree, unless it is asked to."""

from __future__ import annotations

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.promotion.images import build_tag, key_tag
from pipelines.promotion.training_image import check_is_current, describe_image, judge_tags

DIGEST = "sha256:" + "ab" * 32
KEY, OTHER_KEY, COMMIT = "1" * 64, "2" * 64, "c" * 40


def test_an_image_with_the_content_key_of_the_working_tree_is_current() -> None:
    image = judge_tags(DIGEST, (build_tag(COMMIT, "7", "1"), key_tag(OTHER_KEY), key_tag(KEY)), KEY)
    assert (image.is_current, image.commit) == (True, COMMIT)
    check_is_current(image, "churn", "dev", "publish it")
    assert describe_image(image, "dev") == (
        "training image of dev: sha256:abababababab, built from cccccccccccc; the working tree has the same files"
    )


def test_an_image_of_other_files_is_refused_with_every_way_on() -> None:
    image = judge_tags(DIGEST, (key_tag(OTHER_KEY),), KEY)
    assert describe_image(image, "dev").endswith("sha256:abababababab; the working tree has other files")
    with pytest.raises(MlopsError) as refused:
        check_is_current(image, "churn", "dev", "mlops up --env dev")
    assert "not made from the working tree" in refused.value.what
    for way in ("mlops up --env dev", "mlops train churn --here", "--pinned"):
        assert way in refused.value.fix


def test_an_image_whose_tags_say_nothing_is_trained_and_not_called_current() -> None:
    image = judge_tags(DIGEST, ("latest",), KEY)
    assert image.is_current is None
    check_is_current(image, "churn", "dev", "publish it")
    assert "not compared with the working tree: its tags do not name its content" in describe_image(image, "dev")
