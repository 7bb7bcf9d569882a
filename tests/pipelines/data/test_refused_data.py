"""Landing files and contracts that must not get through: each is a clear error or a quarantine, and no row is lost."""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.data.batch import LandingFileError
from pipelines.data.reading import read_batch
from pipelines.data.validate import examine, validate
from pipelines.declarations.contract import Contract
from pipelines.declarations.documents import parse
from pipelines.declarations.errors import DeclarationError
from tests.pipelines.data.contracts import column, contract
from tests.refused.data import contract_texts, landing_files

LARGEST_PROCESS = 1_000_000_000
"""Bytes of memory that a check may take, whatever the file."""


def split(path: Path, declared: Contract, scratch: Path) -> tuple[int, list[int], int]:
    """Return the number of rows of a file, the numbers of those in quarantine, and the number of good rows."""
    batch = read_batch(path, declared, scratch)
    with validate(batch, declared, scratch) as checked:
        checked.write_quarantine(scratch / "quarantine.parquet")
        bad = pq.read_table(scratch / "quarantine.parquet", columns=["_row"])["_row"].to_pylist()
        good = sum(rows.num_rows for rows in checked.good_rows())
        assert (checked.summary.rows, checked.summary.good, checked.summary.quarantined) == (batch.rows, good, len(bad))
    return batch.rows, bad, good


def write(case: landing_files.Case, folder: Path) -> Path:
    path = folder / f"delivery.{case.name.rpartition('.')[2]}"
    path.write_bytes(case.make())
    return path


def test_there_are_enough_cases_with_different_names() -> None:
    files, texts = ([case.name for case in module.cases()] for module in (landing_files, contract_texts))
    assert len(set(files)) == len(files) >= 100
    assert len(set(texts)) == len(texts) >= 50


@pytest.mark.slow
@pytest.mark.parametrize("case", landing_files.cases(), ids=lambda case: case.name)
def test_a_landing_file_is_rejected_or_its_bad_rows_are_quarantined(case: landing_files.Case, tmp_path: Path) -> None:
    path = write(case, tmp_path)
    if case.words:
        with pytest.raises(LandingFileError) as caught:
            split(path, landing_files.CONTRACT, tmp_path)
        assert case.words in str(caught.value)
        assert len(str(caught.value)) < 2_000
        return
    try:
        rows, bad, good = split(path, landing_files.CONTRACT, tmp_path)
    except LandingFileError:
        assert case.bad == landing_files.ANY
        return
    assert rows == good + len(bad)
    assert case.bad == landing_files.ANY or tuple(bad) == case.bad


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("name", [case.name for case in landing_files.bombs()] + ["huge line.csv", "huge number.csv"])
def test_no_file_makes_the_check_take_much_memory(name: str) -> None:
    code = f"from tests.pipelines.data.test_refused_data import print_peak; print_peak({name!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < LARGEST_PROCESS


def print_peak(name: str) -> None:
    """Check a file and print the peak resident memory of this process in bytes; the file is made by another one."""
    with tempfile.TemporaryDirectory() as folder:
        code = (
            "import sys; from pathlib import Path; from tests.pipelines.data.test_refused_data import *; "
            "write(next(each for each in landing_files.cases() if each.name == sys.argv[1]), Path(sys.argv[2]))"
        )
        subprocess.run([sys.executable, "-c", code, name, folder], check=True)
        (path,) = Path(folder).iterdir()
        with suppress(LandingFileError):
            split(path, landing_files.CONTRACT, Path(folder))
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) * 1024)


def test_the_contract_that_the_others_are_made_from_is_valid() -> None:
    assert parse(contract_texts.GOOD.encode(), Contract, Path("c.yaml")).name == "visits"


@pytest.mark.parametrize("case", contract_texts.cases(), ids=lambda case: case.name)
def test_a_contract_is_refused_with_what_is_wrong(case: contract_texts.Case) -> None:
    with pytest.raises(DeclarationError) as caught:
        parse(case.make(), Contract, Path("visits.odcs.yaml"))
    assert case.words in str(caught.value)
    assert str(caught.value).startswith("visits.odcs.yaml")
    assert len(str(caught.value)) < 4_000


KINDS = ("string", "integer", "number", "boolean", "date", "timestamp")
TEXTS = st.sampled_from(
    ["", "a", "ann", "1", "-3", "2.5", "1e400", "nan", "true", "2026-01-31", "2026-02-30", "0000-01-01", "\u202e", "''"]
) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
RULES = st.sampled_from(
    [
        {"metric": "nullValues", "mustBe": 0},
        {"metric": "missingValues", "mustBe": 0},
        {"metric": "missingValues", "arguments": {"missingValues": [None]}, "mustBe": 0},
        {"metric": "duplicateValues", "mustBe": 0},
        {"metric": "nullValues", "mustBeLessThan": 2, "unit": "percent", "severity": "warning"},
        {"metric": "nullValues", "mustBeGreaterOrEqualTo": 0, "mustNotBe": 10_000},
    ]
)
COLUMNS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.booleans(), st.booleans(), st.lists(RULES, max_size=2)), min_size=1, max_size=4
)


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), columns=COLUMNS)
def test_every_row_of_any_table_is_good_or_quarantined_and_the_report_agrees(data: st.DataObject, columns: Any) -> None:
    declared = contract(
        *(
            column(f"c{number}", kind, required=required, unique=unique, quality=list(rules))
            for number, (kind, required, unique, rules) in enumerate(columns)
        )
    )
    row = st.tuples(st.sampled_from(["1", "2", "3", "", "x"]), *(TEXTS for _ in columns))
    rows = data.draw(st.lists(row, max_size=6))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "delivery.csv"
        with path.open("w", encoding="utf-8", newline="") as opened:
            # Python quotes the characters of the line end only, and a line break in a value has to be quoted.
            csv.writer(opened, lineterminator="\r\n").writerows([tuple(declared.columns), *rows])
        landed, bad, good = split(path, declared, Path(folder))
        assert landed == len(rows) == good + len(bad)
        found = examine(read_batch(path, declared, Path(folder)), declared, Path(folder))
    assert any(result.failing and result.binds for result in found) == bool(bad)
    assert max((result.failing for result in found if result.binds), default=0) <= len(bad)
