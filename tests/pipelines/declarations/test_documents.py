"""Reading declarations and describing their problems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from pipelines.declarations.documents import (
    LARGEST_DOCUMENT,
    Declaration,
    dotted,
    first_problem,
    parse,
    parse_yaml,
    read,
)
from pipelines.declarations.errors import DeclarationError, Problem
from pipelines.declarations.model import Model
from pipelines.declarations.release import Release
from tests.sample_project import PROJECT

MODEL = (PROJECT / "models" / "diabetes-progression" / "model.yaml").read_text()
HERE = Path("models/m/model.yaml")


def problems_of(text: str | bytes, kind: type = Model) -> tuple[Problem, ...]:
    with pytest.raises(DeclarationError) as caught:
        parse(text, kind, HERE)
    return caught.value.problems


def line_of(text: str, start: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), 1) if line.strip().startswith(start))


def test_an_unknown_key_is_reported_with_its_line_and_the_closest_known_key() -> None:
    text = MODEL.replace("  seed: 7", "  sead: 7\n  seed: 7")
    (problem,) = problems_of(text)
    assert problem.key == "training.sead"
    assert problem.line == line_of(text, "sead:")
    assert "did you mean 'seed'?" in problem.fix
    assert "entrypoint" in problem.expected


def test_an_unknown_key_in_a_list_is_reported_with_its_path() -> None:
    (problem,) = problems_of(MODEL.replace("{metric: rmse, maximum:", "{metric: rmse, maximun: 65.0, maximum:"))
    assert problem.key == "gates.thresholds[0].maximun"
    assert problem.fix == "did you mean 'maximum'?"


def test_a_wrong_type_says_what_was_expected_and_what_was_found() -> None:
    (problem,) = problems_of(MODEL.replace("seed: 7", 'seed: "seven"'))
    assert (problem.key, problem.found) == ("training.seed", '"seven"')
    assert "integer" in problem.expected


def test_a_number_written_as_text_is_not_silently_converted() -> None:
    (problem,) = problems_of(MODEL.replace("seed: 7", 'seed: "7"'))
    assert problem.key == "training.seed"


def test_all_problems_of_a_file_are_reported_at_once() -> None:
    text = MODEL.replace("seed: 7", "seed: -1").replace("holdout: 0.25", "holdout: 2").replace("task: regression\n", "")
    assert {p.key for p in problems_of(text)} == {"training.seed", "training.holdout", "task"}


def test_a_missing_key_is_reported_with_the_line_of_its_section() -> None:
    text = MODEL.replace("  seed: 7\n", "")
    (problem,) = problems_of(text)
    assert (problem.key, problem.line) == ("training.seed", line_of(text, "training:"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1, 2", "expected"),
        ("a: 1\na: 2", "twice"),
        ("a: &x 1\nb: *x", "the anchor &x"),
        ("a: &x 1", "the anchor &x"),
        ("b: *x", "alias"),
        ("a: !!str 1", "the tag tag:yaml.org,2002:str"),
        ("--- !!map\na: 1", "the tag tag:yaml.org,2002:map"),
        ("a: ! 1", "the tag !"),
        ("a: !!python/object:os.system 1", "tag"),
        ("a: !secret 1", "tag"),
        ("c:\n  <<: {b: 1}", "merge"),
        (b"\xef\xbb\xbfa: 1", "a byte order mark"),
        ("\ufeffa: 1", "a byte order mark"),
        ("a: 1".encode("utf-16"), "UTF-8"),
        ("a: \u00e9".encode("latin-1"), "UTF-8"),
        ("- 1\n- 2", "list of 2"),
        ("", "nothing"),
        ("1: 2", "1"),
        (b"\xff\xfe\x00", "YAML"),
        ("a: " + "[" * 80 + "]" * 80, "deeper"),
        # PyYAML ends the process by a stack overflow on these.
        *((text * 100_000, "deeper") for text in ("[", "{a: ", "- ", '{"a":')),
    ],
)
def test_a_document_that_is_not_a_plain_mapping_is_rejected(text: str | bytes, words: str) -> None:
    message = str(problems_of(text, Release)[0])
    assert words in message
    assert str(HERE) in message


def test_a_billion_laughs_document_is_rejected() -> None:
    text = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}]\n" for p, n in zip("abcdefg", "bcdefgh", strict=True))
    assert "anchor" in problems_of(text)[0].found


def test_a_file_larger_than_the_limit_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_bytes(b"#" * (LARGEST_DOCUMENT + 1))
    with pytest.raises(DeclarationError, match=f"at most {LARGEST_DOCUMENT} bytes"):
        read(path, Model)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"model\.yaml: expected a readable file, found no such file"):
        read(tmp_path / "model.yaml", Model)


@settings(max_examples=150)
@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_arbitrary_content_raises_only_declaration_errors(content: str | bytes) -> None:
    with pytest.raises(DeclarationError):
        parse(content, Release, HERE)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="ascii", exclude_categories=["C"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("text", ["1e-7", "-2E+5", "1.5e22", "3.e1"])
def test_a_number_with_an_exponent_is_a_number(text: str) -> None:
    assert parse_yaml(f"value: {text}", HERE)[0] == {"value": float(text)}


@pytest.mark.parametrize("text", ["on", "no", "Yes", "2026-01-31", "12:30", "1_000", "1.2.3", "0b1", "'7'", '"true"'])
def test_text_that_only_yaml_1_1_reads_as_another_type_is_text(text: str) -> None:
    assert parse_yaml(f"{text}: {text}", HERE)[0] == {text.strip("'\""): text.strip("'\"")}


@pytest.mark.parametrize(
    ("text", "value"),
    [("~", None), ("TRUE", True), ("010", 10), ("0x1F", 31), ("0o17", 15), (".5", 0.5), ("-.inf", float("-inf"))],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    assert parse_yaml(f"value: {text}", HERE)[0] == {"value": value}


def test_every_value_has_the_line_of_its_key() -> None:
    _, lines = parse_yaml("on:\n  push:\n    - a\n    - {b: 1}\n", HERE)
    assert lines == {
        (): 1,
        ("on",): 1,
        ("on", "push"): 2,
        ("on", "push", 0): 3,
        ("on", "push", 1): 4,
        ("on", "push", 1, "b"): 4,
    }


@settings(max_examples=100)
@given(json_values)
def test_json_is_read_as_a_json_parser_reads_it(value: object) -> None:
    import json

    read_value, _ = parse_yaml(json.dumps(value), HERE)
    assert read_value == value


@pytest.mark.parametrize(
    ("content", "description"),
    [
        ('{"name": ""}', 'name: expected at least 1 character, found ""'),
        ('{"parts": []}', "parts: expected at least 1 item, found a list of 0"),
        ('{"count": "3"}', 'count: expected integer, found "3"'),
        ('{"size": 1}', "size: expected only known keys, found the unknown key 'size'"),
        ("[]", "the document: expected an object, found a list of 0"),
        ("{", "the document: expected JSON, found EOF while parsing an object at line 1 column 1"),
    ],
)
def test_a_validation_error_is_described_on_one_line(content: str, description: str) -> None:
    class Sample(Declaration):
        name: Annotated[str, Field(min_length=1)] = "x"
        parts: Annotated[tuple[int, ...], Field(min_length=1)] = (1,)
        count: int = 0

    with pytest.raises(ValidationError) as caught:
        Sample.model_validate_json(content)
    assert first_problem(caught.value) == description


def test_paths_are_written_with_dots_and_brackets() -> None:
    assert dotted(("gates", "thresholds", 0, "metric")) == "gates.thresholds[0].metric"
