"""The record of a run, and the README's table that is made from it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from laptop.conformance.engines import ENGINES
from laptop.conformance.run_record import (
    BEGIN,
    END,
    ROOT,
    TestEnding,
    add_repeated,
    describe,
    failed_tests,
    read_record,
    table,
    with_table,
)
from pipelines.declarations.errors import MlopsError

ENDINGS = [
    TestEnding("a.py::one", "Stacks: up, then destroy", ("pulumi", "etcd"), "passed"),
    TestEnding("a.py::two", "Stacks: up, then destroy", ("pulumi",), "skipped", "kwok: not on the PATH"),
    TestEnding("b.py::three", "Rollouts", ("etcd",), "passed"),
]


@pytest.fixture(autouse=True)
def _no_engines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def record(*more: TestEnding, **options: Any) -> dict[str, Any]:
    return json.loads(json.dumps(describe([*ENDINGS, *more], 61.4, **options)))  # type: ignore[no-any-return]


def test_a_record_counts_the_tests_of_each_engine_and_names_their_subjects() -> None:
    found = record()
    assert set(found["engines"]) == set(ENGINES)
    pulumi = found["engines"]["pulumi"]
    assert {key: pulumi[key] for key in ("passed", "failed", "skipped")} == {"passed": 1, "failed": 0, "skipped": 1}
    assert found["engines"]["etcd"]["ran"] == ["Stacks: up, then destroy", "Rollouts"]
    assert found["tests"][1]["reason"] == "kwok: not on the PATH"
    assert (found["seconds"], found["selected"]) == (61, False)


def test_the_table_has_a_row_for_each_engine() -> None:
    head, rule, *rows, empty, counts = table(record()).splitlines()
    assert head == "| engine | version | date | what it ran |"
    assert rule == "|---|---|---|---|"
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(ENGINES)
    assert rows[list(ENGINES).index("etcd")].endswith("| 2 tests: Stacks, Rollouts |")
    assert rows[list(ENGINES).index("kwok")].endswith("| nothing yet |")
    assert (empty, counts) == ("", "2 of 3 tests passed, in 1 minute.")


def test_a_failed_test_that_passes_when_it_is_run_again_is_named_below_the_table() -> None:
    failing = TestEnding("b.py::four", "Rollouts", ("etcd",), "failed", "it raced")
    first = record(failing)
    assert failed_tests(first) == ["b.py::four"]
    with pytest.raises(MlopsError, match=r"found 1: b\.py::four"):
        table(first)
    again = add_repeated(first, [dataclasses.replace(failing, ending="passed", reason="")])
    assert failed_tests(again) == []
    assert (again["seconds"], again["engines"]["etcd"]["passed"], again["repeated"]) == (61, 3, ["b.py::four"])
    assert table(again).endswith(
        "\nThese failed in the first run and passed in the second, some after a correction: `four`."
    )
    assert failed_tests(add_repeated(first, [failing])) == ["b.py::four"]


def test_an_engine_that_a_test_found_has_a_row_too() -> None:
    built = TestEnding("i.py::built", "Images", (), "passed", found={"buildah": "1.28.2 (on Debian)"})
    assert table(record(built)).splitlines()[-3].startswith("| buildah | 1.28.2 (on Debian) | ")
    assert record(built)["engines"]["buildah"]["passed"] == 1


def test_a_run_that_failed_makes_no_table() -> None:
    failed = TestEnding("c.py::four", "Locks", ("pulumi",), "failed", "assert 1 == 2")
    with pytest.raises(MlopsError, match=r"expected no failed test, found 1: c\.py::four"):
        table(record(failed))


def test_a_run_of_a_selection_makes_no_table() -> None:
    with pytest.raises(MlopsError, match="expected all tests, found a selection"):
        table(record(selected=True))


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(MlopsError, match="does not exist\n  fix: make conformance"):
        read_record(tmp_path / "conformance.json")


def test_the_table_replaces_what_stands_between_its_markers() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert with_table(text, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(MlopsError, match=r"README\.md: expected the lines"):
        with_table("no markers", "new")


def test_the_table_in_the_readme_is_well_formed() -> None:
    readme = (ROOT / "README.md").read_text()
    between = readme.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    assert between[:2] == ["| engine | version | date | what it ran |", "|---|---|---|---|"]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in between[2:] if line.startswith("|")]
    assert [row[0] for row in rows][: len(ENGINES)] == list(ENGINES), (
        "make it with `python -m laptop.conformance table --write`"
    )
    for _, version, date, ran in rows:
        assert re.fullmatch(r"\d+\.\d+\.\d+.*|-", version)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", date)
        assert re.fullmatch(r"\d+ tests?: .+|nothing yet", ran)


def test_what_only_a_real_account_can_prove_stands_beside_the_table() -> None:
    after = (ROOT / "README.md").read_text().partition(END)[2]
    beside = after.strip().partition("\n\n")[0]
    assert "what only a real account can prove" in beside
    assert after.split("\n## ")[1].startswith("What is not proven\n")


TESTS = '''"""A subject.

More about it.
"""
import pytest
pytestmark = pytest.mark.needs("etcd")


def test_of_an_engine_that_is_missing():
    raise AssertionError("this must not run")
'''


@pytest.mark.slow
def test_a_test_of_a_missing_engine_is_skipped_with_the_reason_and_recorded(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    program = (
        "import sys, pytest; from pathlib import Path; from laptop.conformance import conftest, run_record; "
        f"run_record.RECORD = Path({str(tmp_path / 'record.json')!r}); "
        f"sys.exit(pytest.main(['-q', '-rs', '-p', 'no:cacheprovider', {str(tmp_path)!r}], plugins=[conftest]))"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environ, capture_output=True, text=True)
    reason = "etcd: etcd is not on the PATH, and there is no Go to build it (expected 1.26.6 or newer)"
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SKIPPED [1] {reason}" in re.sub(r"(SKIPPED \[1\]) \S+:\d+: ", r"\1 ", done.stdout)
    found = json.loads((tmp_path / "record.json").read_text())
    assert found["engines"]["etcd"]["missing"] == reason
    assert [(t["subject"], t["ending"], t["reason"]) for t in found["tests"]] == [("A subject", "skipped", reason)]
