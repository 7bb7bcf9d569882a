"""One value of a YAML text changes, however it was written, and nothing else does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.declarations.document_edits import with_value
from pipelines.declarations.environment import Images
from pipelines.declarations.project import Project
from pipelines.promotion.images import pin_images
from tests.sample_project import copy_as_forked

KEYS = ("config", "env", "images")
NEW = "{a: 1}"
SIMPLE = "config:\n  env:\n    owner: é # who\n    images: {}\n    # last\n\n    more: 1\n"


@pytest.mark.parametrize(
    "images",
    [
        "images: {training: null, serving: null}",
        "images: {training: null,\n      serving: null}",
        "images:\n      training: null\n      serving: null",
        "images:\n      - one\n      - {two: 2}",
        "images: # why\n      training: null",
        "images:",
        "images: null # why",
        '"images" : null',
        "images: >\n      text\n      of lines",
    ],
)
def test_a_value_of_any_style_is_replaced(images: str) -> None:
    text = SIMPLE.replace("images: {}", images)
    found = with_value(text, KEYS, NEW)
    assert yaml.safe_load(found) == {"config": {"env": {"owner": "é", "images": {"a": 1}, "more": 1}}}
    assert "owner: é # who\n" in found
    assert "    # last\n\n    more: 1\n" in found or images.startswith("images: >")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "config:\n  env:\n    # first\n    owner: me\n",
            "config:\n  env:\n    # first\n    images: {a: 1}\n    owner: me\n",
        ),
        ("config: {env: {owner: me}}\n", "config: {env: {images: {a: 1}, owner: me}}\n"),
    ],
)
def test_a_key_that_is_not_there_is_added(text: str, expected: str) -> None:
    assert with_value(text, KEYS, NEW) == expected


@pytest.mark.parametrize("text", ["config: {}\n", "config:\n  env: text\n", "config:\n  env: {}\n", "[]\n"])
def test_a_document_without_the_outer_keys_is_refused(text: str) -> None:
    with pytest.raises(KeyError):
        with_value(text, KEYS, NEW)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(
    before=st.dictionaries(st.text(max_size=6), VALUES, max_size=3),
    after=st.dictionaries(st.text(max_size=6), VALUES, max_size=3),
    value=VALUES,
    style=st.sampled_from([True, False, None]),
    width=st.sampled_from([10, 40, 1000]),
)
def test_nothing_else_changes(
    before: dict[str, Any], after: dict[str, Any], value: Any, style: bool | None, width: int
) -> None:
    document: dict[str, Any] = {
        "config": {"env": {**before, "images": value, **after}, "other": [1, {"a": copy.deepcopy(value)}]}
    }
    text = yaml.safe_dump(document, default_flow_style=style, width=width, allow_unicode=True, sort_keys=False)
    expected = yaml.safe_load(text)
    expected["config"]["env"]["images"] = {"a": 1}
    assert yaml.safe_load(with_value(text, KEYS, NEW)) == expected


@pytest.mark.parametrize("written", ["    images:\n      serving: null\n      training: null\n", ""])
def test_images_are_pinned_in_a_file_of_any_style(written: str, tmp_path: Any) -> None:
    project = Project(copy_as_forked(tmp_path / "project"))
    file = project.stack_file("dev")
    file.write_text(file.read_text().replace("    images: {training: null, serving: null}\n", written))
    digest = "sha256:" + "1a" * 32
    assert pin_images(project, "dev", Images(serving=digest))
    assert project.stack("dev").config.environment.images == Images(serving=digest)
    assert not pin_images(project, "dev", Images(serving=digest))
