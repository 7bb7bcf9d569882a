"""Reading declarations: what is refused, and how the error says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.declarations.documents import LARGEST_DOCUMENT, dotted, parse, parse_yaml, read
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


def test_an_unknown_key_is_refused_with_its_line_and_the_key_that_was_probably_meant() -> None:
    text = MODEL.replace("  seed: 7", "  sead: 7\n  seed: 7")
    (problem,) = problems_of(text)
    assert problem.key == "training.sead"
    assert problem.line == line_of(text, "sead:")
    assert "did you mean 'seed'?" in problem.fix
    assert "entrypoint" in problem.expected


def test_an_unknown_key_inside_a_list_is_named_by_its_place() -> None:
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


def test_every_problem_of_a_file_is_reported_at_once() -> None:
    text = MODEL.replace("seed: 7", "seed: -1").replace("holdout: 0.25", "holdout: 2").replace("task: regression\n", "")
    assert {p.key for p in problems_of(text)} == {"training.seed", "training.holdout", "task"}


def test_a_missing_key_is_named_with_the_line_of_the_section_it_belongs_in() -> None:
    text = MODEL.replace("  seed: 7\n", "")
    (problem,) = problems_of(text)
    assert (problem.key, problem.line) == ("training.seed", line_of(text, "training:"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1, 2", "expected"),
        ("a: 1\na: 2", "twice"),
        ("a: &x 1\nb: *x", "alias"),
        ("a: !!python/object:os.system 1", "constructor"),
        ("- 1\n- 2", "list of 2"),
        ("", "nothing"),
        ("1: 2", "1"),
        (b"\xff\xfe\x00", "YAML"),
        ("a: " + "[" * 80 + "]" * 80, "deeper"),
    ],
)
def test_what_is_not_a_plain_yaml_mapping_is_refused(text: str | bytes, words: str) -> None:
    message = str(problems_of(text, Release)[0])
    assert words in message
    assert str(HERE) in message


def test_a_billion_laughs_is_refused_before_it_grows() -> None:
    text = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}]\n" for p, n in zip("abcdefg", "bcdefgh", strict=True))
    assert "alias" in problems_of(text)[0].found


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_bytes(b"#" * (LARGEST_DOCUMENT + 1))
    with pytest.raises(DeclarationError, match=f"at most {LARGEST_DOCUMENT} bytes"):
        read(path, Model)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"model\.yaml: expected a readable file, found no such file"):
        read(tmp_path / "model.yaml", Model)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_whatever_a_file_holds_reading_it_ends_in_a_declaration_or_a_declaration_error(content: str | bytes) -> None:
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


@settings(max_examples=100, deadline=None)
@given(json_values)
def test_json_is_read_as_json_reads_it(value: object) -> None:
    import json

    read_value, _ = parse_yaml(json.dumps(value), HERE)
    assert read_value == value


def test_a_key_is_written_as_people_write_it() -> None:
    assert dotted(("gates", "thresholds", 0, "metric")) == "gates.thresholds[0].metric"
