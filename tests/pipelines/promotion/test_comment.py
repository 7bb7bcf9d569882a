from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.declarations.evaluation import Part
from pipelines.declarations.markdown import LONGEST_CELL, details, escape, link, table
from pipelines.promotion.comments.gate_comment import (
    LONGEST_PREVIEW,
    CommentContext,
    compare,
    join_lines,
    marker,
    render,
)
from pipelines.promotion.comments.review_comment import render_review
from pipelines.promotion.contract_impact import judge_impact
from pipelines.promotion.facts import Facts
from pipelines.promotion.gates import judge
from pipelines.promotion.verdict import Verdict
from pipelines.targets import Preview
from tests.pipelines.data.contracts import column, contract
from tests.pipelines.promotion.test_contract_impact import AGE, LIVE, READERS, RELEASED
from tests.pipelines.promotion.test_gates import changed

GITHUB_TAKES = 65_536
ACCEPTED = Facts.model_validate_json((Path(__file__).parents[2] / "refused" / "accepted.json").read_text())
AROUND = CommentContext(
    preview="+ kubernetes:…:Rollout diabetes-progression\nResources: 1 to create\n",
    rollback="sha256:" + "b" * 64,
    sizes=(12_345, None),
    datasets=("diabetes-patients @ 1 (442 rows)", "diabetes-patients @ 2 (450 rows)"),
    run="https://github.com/example/models/actions/runs/7",
)


def cells(line: str) -> list[str]:
    """Split a line of a table into its cells, as GitHub does: at pipes without a backslash."""
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
WIDER = contract(
    column("age", "integer", required=True, minimum=0),
    column("size", "number", quality=[{"metric": "nullValues", "mustBe": 0}]),
)
GOLDEN: dict[str, Callable[[], str]] = {
    "accepted.md": lambda: render(ACCEPTED, judge(ACCEPTED), AROUND),
    "refused.md": lambda: render(REFUSED, judge(REFUSED), CommentContext()),
    "first.md": lambda: render(FIRST, judge(FIRST), CommentContext(sizes=(None, 0))),
    "other.md": lambda: render(OTHER, judge(OTHER), CommentContext()),
    "contracts.md": lambda: render_review(
        {"data-contracts/visits.odcs.yaml": ["age: maximum was 120, is none"]},
        {"dev": Preview("Resources:\n    3 unchanged\n", {"same": 3})},
        [
            judge_impact("data-contracts/visits.odcs.yaml", contract(AGE), WIDER, READERS, RELEASED, LIVE),
            judge_impact("data-contracts/visits.odcs.yaml", contract(AGE), None, {}, {}, None),
            judge_impact("data-contracts/visits.odcs.yaml", None, contract(AGE), {}, {}, None),
        ],
        "the caller may not read the ledger",
    ),
    "review.md": lambda: render_review(
        {"data-contracts/a.odcs.yaml": ["age: maximum was 120, is 130"], "data-contracts/b`|@x.odcs.yaml": []},
        {
            "dev": Preview("+ aws:s3/bucket:Bucket lake\n", {"create": 1, "same": 3}),
            "staging": Preview("Resources:\n    3 unchanged\n\nDuration: 1s\n", {"same": 3}),
            "prod": Preview("error: the key `data` is not protected\n", {}, "the key `data` is not protected"),
        },
    ),
}
"""Comments compared with golden files; `python -m tests.pipelines.promotion.test_comment` writes the files."""

FOLDER = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", GOLDEN)
def test_comments_match_the_golden_files(name: str) -> None:
    assert GOLDEN[name]() == (FOLDER / name).read_text()


def test_every_gate_has_a_row_of_five_cells() -> None:
    text = render(ACCEPTED, judge(ACCEPTED), AROUND)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert [cells(line)[0] for line in lines[2:19]] == [v.gate for v in judge(ACCEPTED)]
    assert {len(cells(line)) for line in lines[:19]} == {5}


def test_a_missing_verdict_is_in_the_headline() -> None:
    text = render(ACCEPTED, judge(ACCEPTED)[1:], AROUND)
    assert "may not go to staging: a gate gave no verdict" in text


def test_a_comment_starts_with_its_marker() -> None:
    assert render(ACCEPTED, judge(ACCEPTED), AROUND).startswith(marker("diabetes-progression", "staging") + "\n")
    assert marker("m", "dev") != marker("m", "staging")


def test_a_long_comparison_is_cut_but_keeps_its_last_rows() -> None:
    evaluation = ACCEPTED.evaluation
    assert evaluation is not None
    slices = {f"slice-{number:03}": Part(rows=1, metrics={"mae": 1.0}) for number in range(300)}
    facts = ACCEPTED.model_copy(update={"evaluation": evaluation.model_copy(update={"slices": slices})})
    text = render(facts, judge(facts), AROUND)
    assert "more, in the report" in text
    assert "| size, bytes | 12,345 |  |" in text
    assert "Pulumi preview" in text


def rows_with(count: int) -> list[tuple[str, str, str]]:
    """Return the rows of a comparison with this many metrics: name, live, candidate."""
    evaluation = ACCEPTED.evaluation
    assert evaluation is not None and len(evaluation.metrics) == 3
    slices = {f"slice-{number:03}": Part(rows=1, metrics={"mae": 1.0}) for number in range(count - 5)}
    facts = ACCEPTED.model_copy(update={"evaluation": evaluation.model_copy(update={"slices": slices})})
    found = [tuple(cells(line)) for line in compare(facts, AROUND) if line.startswith("| ")]
    assert all(len(line) == 3 for line in found)
    return found[2:]  # type: ignore[return-value]


def test_a_comparison_is_cut_after_sixty_rows_and_counts_the_rest() -> None:
    assert [name for name, _, _ in rows_with(60)[-3:]] == ["p99 of one row, ms", "size, bytes", "data"]
    assert len(rows_with(60)) == 62
    assert rows_with(61)[59:61] == [("mae, ratio by sex", "1.1", "1.1"), ("and 1 more, in the report", "", "")]
    assert rows_with(300)[60] == ("and 240 more, in the report", "", "")


def test_at_most_twenty_contract_breaks_are_listed() -> None:
    facts = ACCEPTED.model_copy(update={"contract_breaks": tuple(f"break {n}" for n in range(1, 22))})
    listed = [line for line in render(facts, judge(facts), AROUND).splitlines() if line.startswith("- break")]
    assert listed == [f"- break {n}" for n in range(1, 21)]


# --- any input --------------------------------------------------------------------------------------------------------

anything = (
    st.text(max_size=300)
    | st.lists(st.sampled_from(["http://", "www.", "x", "\n", "@"])).map("".join)
    | st.text(alphabet="|\\`<>&@#[]()!*_~ \n\r\t-:abc", max_size=300)
)


@settings(max_examples=300)
@given(anything)
def test_text_cannot_break_out_of_its_cell(text: str) -> None:
    (_, _, line) = table(("a", "b", "c"), [("x", text, "y")])
    assert "\n" not in line and "\r" not in line
    found = cells(line)
    assert (len(found), found[0], found[2]) == (3, "x", "y")


@settings(max_examples=300)
@given(anything)
def test_text_is_never_rendered_as_html_a_link_a_mention_or_code(text: str) -> None:
    shown = escape(text)
    assert "<" not in shown
    assert not re.search(r"@\w", shown) and not re.search(r"#\d", shown)
    assert not re.search(r"(?i)https?://|ftp://|www\.", shown)
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
        ("![x](http://evil)", "!\\[x](http\u200b://evil)"),
        ("see HTTPS://evil, www.evil", "see HTTPS\u200b://evil, www\u200b.evil"),
        ("s3://registry/reports/x.json", "s3://registry/reports/x.json"),
        ("`code`", "\\`code\\`"),
        ("\x1b[31m", "�\\[31m"),
        ("right\u202eleft", "right�left"),
        ("x" * 500, "x" * (LONGEST_CELL - 1) + "…"),
        ("x" * 241, "x" * 239 + "…"),
        ("x" * 240, "x" * 240),
    ],
)
def test_escape_neutralizes_markdown(text: str, shown: str) -> None:
    assert escape(text) == shown


@settings(max_examples=100)
@given(
    preview=st.text(max_size=50) | st.text(alphabet="`\n~x", max_size=200),
    times=st.sampled_from([1, 50, 5000]),
    why=anything,
    breaks=st.lists(anything, max_size=30),
    datasets=st.tuples(anything, anything),
    run=anything,
)
def test_a_comment_is_never_longer_than_github_accepts(
    preview: str, times: int, why: str, breaks: list[str], datasets: tuple[str, str], run: str
) -> None:
    verdict = Verdict(gate="scope", outcome="fail", figure=why * 50, threshold=why * 50, why=why * 50, fix=why * 50)
    facts = ACCEPTED.model_copy(update={"contract_breaks": tuple(breaks)})
    around = CommentContext(preview=preview * times, datasets=datasets, run=run)
    text = render(facts, (verdict,) * 16, around)
    assert len(text) < GITHUB_TAKES
    text.encode()
    assert text.startswith(marker("diabetes-progression", "staging"))


@settings(max_examples=100)
@given(st.text(alphabet="`~\n -x", max_size=400))
def test_a_preview_never_closes_its_fence(text: str) -> None:
    lines = [*details("Pulumi preview", text, LONGEST_PREVIEW).split("\n")]
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
def test_a_preview_is_shown_verbatim_in_a_fence_that_it_cannot_close(text: str, fence: str, shown: str) -> None:
    assert details("Preview <of> dev", text, LONGEST_PREVIEW) == (
        f"<details><summary>Preview &lt;of> dev</summary>\n\n{fence}diff\n{shown}\n{fence}\n\n</details>\n"
    )


@pytest.mark.parametrize(("length", "shown"), [(9, "x" * 9), (10, "x" * 10), (11, "x" * 10 + "\n… cut")])
def test_a_preview_is_cut_at_the_given_length(length: int, shown: str) -> None:
    assert f"diff\n{shown}\n```" in details("Preview", "x" * length, 10)


def test_a_long_preview_is_cut() -> None:
    text = render(ACCEPTED, judge(ACCEPTED), CommentContext(preview="x" * (LONGEST_PREVIEW + 1)))
    assert "x" * LONGEST_PREVIEW + "\n… cut\n" in text and "x" * (LONGEST_PREVIEW + 1) not in text


def test_a_long_comment_is_cut_between_lines() -> None:
    text = join_lines(["first", "x" * 59_000, "y" * 2_000, "last"])
    assert text == "first\n" + "x" * 59_000 + "\n\n_cut: too long for a comment_\n"
    assert join_lines(["first", "last"]) == "first\nlast\n"
    cut = "\n\n_cut: too long for a comment_\n"
    fits = ["x" * 29_999, "y" * 29_999]
    assert join_lines(fits) == "\n".join([*fits, ""]) and len(join_lines(fits)) == 60_000
    assert join_lines([fits[0], fits[1] + "y"]) == fits[0] + cut
    assert join_lines([*fits, ""]) == "\n".join(fits) + cut, "line ends count too"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://github.com/o/r_x/actions/runs/1", "https://github.com/o/r_x/actions/runs/1"),
        ("run 7 of @ann", "run 7 of @\u200bann"),
        ("https://x/<script>", "https\u200b://x/&lt;script>"),
        ("javascript:alert(1)", "javascript:alert(1)"),
        ("http://ci.example.org/@ann?run=1&try=2", "http://ci.example.org/@ann?run=1&try=2"),
        ("HTTPS://ci.example.org/@ann", "HTTPS\u200b://ci.example.org/@\u200bann"),
        ("https://cï.example.org/@ann", "https\u200b://cï.example.org/@\u200bann"),
    ],
)
def test_only_web_addresses_become_links(address: str, shown: str) -> None:
    assert link(address) == shown


# --- reviews ----------------------------------------------------------------------------------------------------------


def test_the_previews_of_a_review_share_one_length_limit() -> None:
    for count, each in ((1, 24_000), (2, 22_500), (3, 15_000), (7, 6_428)):
        written = render_review({}, {f"env-{n}": Preview("x" * 50_000) for n in range(count)})
        assert written.count("x" * each + "\n… cut\n") == count and "x" * (each + 1) not in written


def test_a_review_lists_every_breaking_change() -> None:
    assert "- ❌ a: breaking: one; two\n" in render_review({"a": ["one", "two"]}, {})


def test_a_review_without_changes_says_so() -> None:
    assert render_review({}, {}) == "<!-- mlops:review -->\n### What this changes\n\nNo environment changes.\n\n"


@settings(max_examples=50)
@given(st.dictionaries(anything, st.lists(anything, max_size=5), max_size=5), st.integers(0, 8), anything)
def test_a_review_is_never_longer_than_github_accepts_and_keeps_every_summary(
    contracts: dict[str, list[str]], environments: int, text: str
) -> None:
    previews = {f"env-{n}": Preview(text * 300, {"update": 3}) for n in range(environments)}
    written = render_review(contracts, previews)
    assert len(written) < GITHUB_TAKES
    for name in previews:
        assert f"**{name}**: 3 to update" in written


if __name__ == "__main__":
    for name, text in GOLDEN.items():
        (FOLDER / name).write_text(text())
