from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.declarations.evaluation import Part
from pipelines.promotion.comment import (
    LONGEST_CELL,
    LONGEST_PREVIEW,
    Surroundings,
    beside,
    cell,
    folded,
    link,
    marker,
    render,
    table,
    whole,
)
from pipelines.promotion.facts import Facts
from pipelines.promotion.gates import judge
from pipelines.promotion.review import Preview, render_review
from pipelines.promotion.verdict import Verdict
from tests.pipelines.promotion.test_gates import changed

GITHUB_TAKES = 65_536
ACCEPTED = Facts.model_validate_json((Path(__file__).parents[2] / "refused" / "accepted.json").read_text())
AROUND = Surroundings(
    preview="+ kubernetes:…:Rollout diabetes-progression\nResources: 1 to create\n",
    rollback="sha256:" + "b" * 64,
    sizes=(12_345, None),
    datasets=("diabetes-patients @ 1 (442 rows)", "diabetes-patients @ 2 (450 rows)"),
    run="https://github.com/example/models/actions/runs/7",
)


def cells(line: str) -> list[str]:
    """The cells of a table's line, split where GitHub splits it: at pipes without a backslash before them."""
    return [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]]


REFUSED = ACCEPTED.model_copy(
    update={"contract_breaks": ("age: minimum was 0, is 10",), "evaluation": None, "unknown": {"evaluation": "gone"}}
)
FIRST = changed(
    {
        "live": None,
        "champion": None,
        "live_schema": None,
        "release.replaces": None,
        "runtime": None,
        "evaluation.metrics.rmse": {"value": 40.0, "low": None, "high": None},
        "evaluation.metrics.mae.value": None,
        "evaluation.slices.under-40.metrics": {"mae": 32.775, "rmse": None},
        "evaluation.groups.sex.ratio.mae": None,
    }
)
OTHER = changed({"champion.metrics": {}, "champion.slices": {}, "champion.groups": {}})
GOLDEN: dict[str, Callable[[], str]] = {
    "accepted.md": lambda: render(ACCEPTED, judge(ACCEPTED), AROUND),
    "refused.md": lambda: render(REFUSED, judge(REFUSED), Surroundings()),
    "first.md": lambda: render(FIRST, judge(FIRST), Surroundings(sizes=(None, 0))),
    "other.md": lambda: render(OTHER, judge(OTHER), Surroundings()),
    "review.md": lambda: render_review(
        {"data-contracts/a.odcs.yaml": ["age: maximum was 120, is 130"], "data-contracts/b`|@x.odcs.yaml": []},
        {
            "dev": Preview(
                "+ aws:s3/bucket:Bucket lake\nResources: + 1 to create, 3 unchanged; Duration 1.2s\n", False
            ),
            "staging": Preview("Resources:\n    + 1 to create\n    3 unchanged\n\nDuration: 1s\n", False),
            "prod": Preview("Resources: 1 to create\nerror: the key `data` is not protected\n", True),
        },
    ),
}
"""What is compared with a file; `python -m tests.pipelines.promotion.test_comment` writes the files again."""

FOLDER = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", GOLDEN)
def test_a_comment_reads_as_it_should(name: str) -> None:
    assert GOLDEN[name]() == (FOLDER / name).read_text()


def test_every_gate_has_a_line_of_five_cells() -> None:
    text = render(ACCEPTED, judge(ACCEPTED), AROUND)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert [cells(line)[0] for line in lines[2:18]] == [v.gate for v in judge(ACCEPTED)]
    assert {len(cells(line)) for line in lines[:18]} == {5}


def test_a_judgement_that_a_gate_is_missing_from_says_so() -> None:
    text = render(ACCEPTED, judge(ACCEPTED)[1:], AROUND)
    assert "may not go to staging: not every gate was asked" in text


def test_the_comment_begins_with_its_mark() -> None:
    assert render(ACCEPTED, judge(ACCEPTED), AROUND).startswith(marker("diabetes-progression", "staging") + "\n")
    assert marker("m", "dev") != marker("m", "staging")


def test_a_comparison_without_end_is_cut_and_its_last_lines_stay() -> None:
    evaluation = ACCEPTED.evaluation
    assert evaluation is not None
    slices = {f"slice-{number:03}": Part(rows=1, metrics={"mae": 1.0}) for number in range(300)}
    facts = ACCEPTED.model_copy(update={"evaluation": evaluation.model_copy(update={"slices": slices})})
    text = render(facts, judge(facts), AROUND)
    assert "more, in the report" in text
    assert "| size, bytes | 12,345 |  |" in text
    assert "Pulumi preview" in text


def named(count: int) -> list[tuple[str, str, str]]:
    """The comparison of a candidate that has so many figures: name, live, candidate."""
    evaluation = ACCEPTED.evaluation
    assert evaluation is not None and len(evaluation.metrics) == 3
    slices = {f"slice-{number:03}": Part(rows=1, metrics={"mae": 1.0}) for number in range(count - 5)}
    facts = ACCEPTED.model_copy(update={"evaluation": evaluation.model_copy(update={"slices": slices})})
    found = [tuple(cells(line)) for line in beside(facts, AROUND) if line.startswith("| ")]
    assert all(len(line) == 3 for line in found)
    return found[2:]  # type: ignore[return-value]


def test_a_comparison_is_cut_after_sixty_figures_and_says_how_many_are_left_out() -> None:
    assert [name for name, _, _ in named(60)[-3:]] == ["p99 of one row, ms", "size, bytes", "data"]
    assert len(named(60)) == 62
    assert named(61)[59:61] == [("mae, ratio by sex", "1.1", "1.1"), ("and 1 more, in the report", "", "")]
    assert named(300)[60] == ("and 240 more, in the report", "", "")


def test_of_a_contract_that_breaks_in_many_places_twenty_are_told() -> None:
    facts = ACCEPTED.model_copy(update={"contract_breaks": tuple(f"break {n}" for n in range(1, 22))})
    told = [line for line in render(facts, judge(facts), AROUND).splitlines() if line.startswith("- break")]
    assert told == [f"- break {n}" for n in range(1, 21)]


# --- whatever goes in -------------------------------------------------------------------------------------------------

anything = st.text(max_size=300) | st.text(alphabet="|\\`<>&@#[]()!*_~ \n\r\t-:abc", max_size=300)


@settings(max_examples=300, deadline=None)
@given(anything)
def test_no_text_leaves_its_cell(text: str) -> None:
    (_, _, line) = table(("a", "b", "c"), [("x", text, "y")])
    assert "\n" not in line and "\r" not in line
    found = cells(line)
    assert (len(found), found[0], found[2]) == (3, "x", "y")


@settings(max_examples=300, deadline=None)
@given(anything)
def test_no_text_becomes_html_a_link_a_mention_code_or_an_invisible_character(text: str) -> None:
    shown = cell(text)
    assert "<" not in shown
    assert not re.search(r"@\w", shown) and not re.search(r"#\d", shown)
    unescaped = re.sub(r"\\\\", "", shown)
    assert not re.search(r"(?<!\\)[\[`|]", unescaped)
    assert not re.search(r"&(?!amp;|lt;)", shown)
    assert all(letter.isprintable() or letter == "\u200b" for letter in shown)
    shown.encode()  # not half a character


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rmse ≤ 65", "rmse ≤ 65"),
        ("balanced_accuracy 0.9", "balanced_accuracy 0.9"),
        ("+1.0% [-0.5%, +2.0%]", "+1.0% \\[-0.5%, +2.0%]"),
        ("a|b", "a\\|b"),
        ("a\\|b", "a\\\\\\|b"),
        ("two\nlines", "two lines"),
        ("<img src=x>", "&lt;img src=x>"),
        ("&lt;b>", "&amp;lt;b>"),
        ("@octocat #12", "@\u200boctocat #\u200b12"),
        ("![x](http://evil)", "!\\[x](http://evil)"),
        ("`code`", "\\`code\\`"),
        ("\x1b[31m", "�\\[31m"),
        ("right\u202eleft", "right�left"),
        ("x" * 500, "x" * (LONGEST_CELL - 1) + "…"),
        ("x" * 241, "x" * 239 + "…"),
        ("x" * 240, "x" * 240),
    ],
)
def test_a_cell(text: str, shown: str) -> None:
    assert cell(text) == shown


@settings(max_examples=100, deadline=None)
@given(
    preview=st.text(max_size=50) | st.text(alphabet="`\n~x", max_size=200),
    times=st.sampled_from([1, 50, 5000]),
    why=anything,
    breaks=st.lists(anything, max_size=30),
    datasets=st.tuples(anything, anything),
    run=anything,
)
def test_a_comment_is_never_longer_than_github_takes(
    preview: str, times: int, why: str, breaks: list[str], datasets: tuple[str, str], run: str
) -> None:
    verdict = Verdict(gate="scope", outcome="fail", figure=why * 50, threshold=why * 50, why=why * 50, fix=why * 50)
    facts = ACCEPTED.model_copy(update={"contract_breaks": tuple(breaks)})
    around = Surroundings(preview=preview * times, datasets=datasets, run=run)
    text = render(facts, (verdict,) * 16, around)
    assert len(text) < GITHUB_TAKES
    text.encode()
    assert text.startswith(marker("diabetes-progression", "staging"))


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="`~\n -x", max_size=400))
def test_a_preview_never_ends_its_own_fence(text: str) -> None:
    lines = "\n".join(folded("Pulumi preview", text)).split("\n")
    opening = lines[2]
    fence = opening.removesuffix("diff")
    assert set(fence) == {"`"} and len(fence) >= 3
    closing = [n for n, line in enumerate(lines[3:], 3) if re.fullmatch(rf" {{0,3}}`{{{len(fence)},}}\s*", line)]
    assert closing == [len(lines) - 4]
    assert lines[-3:] == ["", "</details>", ""]


@pytest.mark.parametrize(
    ("text", "fence", "shown"),
    [
        ("a\tb\nc", "```", "a\tb\nc"),
        ("\x1b[31mred\u202e", "```", "\ufffd[31mred\ufffd"),
        ("``", "```", "``"),
        ("```", "````", "```"),
        ("a ````` b ``", "``````", "a ````` b ``"),
    ],
)
def test_a_preview_is_shown_as_it_is_in_a_fence_that_it_cannot_end(text: str, fence: str, shown: str) -> None:
    assert folded("Preview <of> dev", text) == [
        f"<details><summary>Preview &lt;of> dev</summary>\n\n{fence}diff\n{shown}\n{fence}\n\n</details>\n"
    ]


@pytest.mark.parametrize(("length", "shown"), [(9, "x" * 9), (10, "x" * 10), (11, "x" * 10 + "\n… cut")])
def test_a_preview_is_cut_at_the_length_that_it_is_given(length: int, shown: str) -> None:
    assert f"diff\n{shown}\n```" in folded("Preview", "x" * length, 10)[0]


def test_a_preview_without_end_is_cut() -> None:
    (section,) = folded("Pulumi preview", "x" * (LONGEST_PREVIEW + 1))
    assert "\n… cut\n" in section and len(section) < LONGEST_PREVIEW + 200


def test_a_comment_is_cut_between_sections_and_says_so() -> None:
    text = whole(["first", "x" * 59_000, "y" * 2_000, "last"])
    assert text == "first\n" + "x" * 59_000 + "\n\n_cut: too long for a comment_\n"
    assert whole(["first", "last"]) == "first\nlast\n"
    cut = "\n\n_cut: too long for a comment_\n"
    fits = ["x" * 29_999, "y" * 29_999]
    assert whole(fits) == "\n".join([*fits, ""]) and len(whole(fits)) == 60_000
    assert whole([fits[0], fits[1] + "y"]) == fits[0] + cut
    assert whole([*fits, ""]) == "\n".join(fits) + cut, "a line's end counts as well"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://github.com/o/r_x/actions/runs/1", "https://github.com/o/r_x/actions/runs/1"),
        ("run 7 of @ann", "run 7 of @\u200bann"),
        ("https://x/<script>", "https://x/&lt;script>"),
        ("javascript:alert(1)", "javascript:alert(1)"),
        ("http://ci.example.org/@ann?run=1&try=2", "http://ci.example.org/@ann?run=1&try=2"),
        ("HTTPS://ci.example.org/@ann", "HTTPS://ci.example.org/@\u200bann"),
        ("https://cï.example.org/@ann", "https://cï.example.org/@\u200bann"),
    ],
)
def test_only_a_web_address_is_a_link(address: str, shown: str) -> None:
    assert link(address) == shown


# --- the comment on any other pull request ----------------------------------------------------------------------------


def test_the_previews_of_a_review_share_its_room() -> None:
    for count, each in ((1, 24_000), (2, 22_500), (3, 15_000), (7, 6_428)):
        written = render_review({}, {f"env-{n}": Preview("x" * 50_000, False) for n in range(count)})
        assert written.count("x" * each + "\n… cut\n") == count and "x" * (each + 1) not in written


def test_a_review_names_everything_that_a_contract_breaks() -> None:
    assert "- ❌ a breaks: one; two\n" in render_review({"a": ["one", "two"]}, {})


def test_a_review_of_what_changes_nothing_says_so() -> None:
    assert render_review({}, {}) == "<!-- mlops:review -->\n### What this would change\n\nNo environment changes.\n\n"


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(anything, st.lists(anything, max_size=5), max_size=5), st.integers(0, 8), anything)
def test_a_review_is_never_longer_than_github_takes_and_never_loses_an_environment(
    contracts: dict[str, list[str]], environments: int, text: str
) -> None:
    previews = {f"env-{n}": Preview(text * 300 + "\nResources: 3 to change", False) for n in range(environments)}
    written = render_review(contracts, previews)
    assert len(written) < GITHUB_TAKES
    for name in previews:
        assert f"**{name}**: 3 to change" in written


@pytest.mark.parametrize(
    ("text", "failed", "summary"),
    [
        ("Resources: ~ 2 to update, 75 unchanged; Duration 3.1s\n", False, "~ 2 to update, 75 unchanged"),
        ("Resources:\n    ~ 2 to update\n    75 unchanged\nDuration: 3s", False, "~ 2 to update, 75 unchanged"),
        ("", False, "the preview counted nothing"),
        ("    error: no stack named 'dev'\nerror: it ended\n", True, "the preview failed: no stack named 'dev'"),
        ("error: 2 violations:\n  Key a: gone\n  Key b: gone", True, "the preview failed: 2 violations: Key a: gone"),
        ("error: violations:", True, "the preview failed: violations:"),
        ("killed", True, "the preview failed: see below"),
    ],
)
def test_a_preview_says_in_a_line_what_it_counted_or_why_it_failed(text: str, failed: bool, summary: str) -> None:
    assert Preview(text, failed).summary == summary


if __name__ == "__main__":
    for name, text in GOLDEN.items():
        (FOLDER / name).write_text(text())
