"""The page of benchmarks: a part that is measured again replaces its section, and shows what it missed."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest

from tools.bench import contract_peers
from tools.bench.__main__ import PAGE, PARTS, section, updated_page
from tools.bench.figures import Figure
from tools.bench.measured_process import ResourceUsage

LARGEST = max(contract_peers.ROUNDS)


def used(seconds: float) -> list[ResourceUsage]:
    """Return three measurements around a time; the figure of a part is their median."""
    return [ResourceUsage(2 * each, each, 100_000_000, "") for each in (seconds, seconds / 2, seconds * 3)]


def compared(rows: int, **times: float) -> list[Figure]:
    names = {"ours": 2.0, "datacontract-cli": 10.0, "pandera[polars]": 5.0, "Great Expectations": 22.0} | times
    return contract_peers.compared(rows, {name: used(seconds) for name, seconds in names.items()})


def heading(part: str) -> str:
    return f"\n## {PARTS[part]}\n"


def test_contract_tests_are_compared_with_each_peer_and_bounded_for_the_largest_file() -> None:
    rows = section("contract_peers", compared(LARGEST)).splitlines()
    assert (
        "| contract test of 10,000,000 rows × 12 columns | 2.0 CPU s (4.0 s) "
        "| datacontract-cli: 10.0 CPU s (20.0 s), 100 MB | 5.0 (5.0 by the clock) | ≥ 20 | **no** |"
    ) in rows
    # The bound of the others is that of the fastest of them.
    assert [row.split(" | ")[-2:] for row in rows if "pandera" in row] == [["≥ 5", "**no** |"]]
    assert [row.split(" | ")[-2:] for row in rows if "Great Expectations" in row and row[0] == "|"] == [["", " |"]]
    assert all(figure.target == "" for figure in compared(1_000_000))


def test_a_bound_that_is_reached_is_met() -> None:
    met = {figure.against.split(":")[0]: figure.met for figure in compared(LARGEST, **{"datacontract-cli": 40.0})}
    assert met == {"datacontract-cli": True, "pandera[polars]": False, "Great Expectations": True}


def test_the_section_of_contract_tests_says_why_a_bound_is_missed() -> None:
    text = section("contract_peers", compared(LARGEST))
    assert text.startswith("## Contract tests\n") and "cannot reach twenty times" in text
    (link,) = re.findall(r"\]\(([^)]+)\)", text)
    assert (PAGE.parent / link).is_file()


@pytest.mark.parametrize("part", PARTS)
def test_each_part_has_its_place_on_the_page(part: str) -> None:
    assert find_spec(f"tools.bench.{part}") is not None
    text = f"## {PARTS[part]}\n\nmeasured"
    once = updated_page(PAGE.read_text(), {part: text})
    assert once.count(heading(part)) == 1 and text in once
    known = [each for each in PARTS if heading(each) in once]
    assert sorted(known, key=lambda each: once.index(heading(each))) == known, "sections are in the order of the parts"
    others = [line for line in PAGE.read_text().splitlines() if line.startswith("## ") and line != f"## {PARTS[part]}"]
    assert [line for line in once.splitlines() if line.startswith("## ") and line != f"## {PARTS[part]}"] == others


def test_a_part_that_is_measured_again_replaces_its_section_only() -> None:
    before = PAGE.read_text()
    first = updated_page(before, {"contract_peers": section("contract_peers", compared(LARGEST))})
    again = updated_page(first, {"contract_peers": section("contract_peers", compared(LARGEST, ours=1.0))})
    assert again.count(heading("contract_peers")) == 1
    assert "datacontract-cli: 10.0 CPU s (20.0 s), 100 MB | 10.0" in again
    assert updated_page(again, {"contract_peers": section("contract_peers", compared(LARGEST))}) == first
    # Advice to readers comes after all parts.
    assert again.index("## How to read this page") > max(again.find(heading(part)) for part in PARTS)
