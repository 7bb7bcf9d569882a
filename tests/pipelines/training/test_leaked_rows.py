"""Rows of the holdout that equal training rows are named by their keys."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from pipelines.declarations.project import Project
from pipelines.training.leaked_rows import describe_leaked
from tests.pipelines.training.project import COLUMNS, DATASET, MODEL, contract_document, make_project, make_rows


def twice() -> pa.Table:
    """Two hundred loans, each a second time under another key."""
    rows = make_rows(200)
    return pa.concat_tables([rows, rows.set_column(0, "loan_id", pa.array(range(1000, 1200), pa.int64()))])


def described(project: Project, rows: pa.Table, most: int = 5) -> list[str]:
    return describe_leaked(project.model(MODEL), project.contract(DATASET), rows, most)


def test_a_row_of_the_holdout_is_shown_with_the_training_row_that_it_equals(tmp_path: Path) -> None:
    lines = described(make_project(tmp_path), twice(), most=1000)
    assert len(lines) > 50
    pairs = [re.fullmatch(r"loan_id (\d+) equals loan_id (\d+)", line) for line in lines]
    numbers = [(int(pair[1]), int(pair[2])) for pair in pairs if pair]
    assert len(numbers) == len(lines)
    assert sum(abs(one - other) == 1000 for one, other in numbers) > 50


def test_the_first_rows_are_shown_and_the_others_counted(tmp_path: Path) -> None:
    *shown, more = described(make_project(tmp_path), twice(), most=3)
    assert len(shown) == 3
    assert re.fullmatch(r"and \d+ more", more)


def test_rows_that_differ_are_not_shown(tmp_path: Path) -> None:
    rows = make_rows(200)
    ages = pa.array([18 + at % 60 + at for at in range(rows.num_rows)], pa.int64())
    assert described(make_project(tmp_path), rows.set_column(2, "age", ages)) == []


@pytest.mark.parametrize(("classification", "shown"), [("internal", True), ("restricted", False)])
def test_keys_that_the_contract_classifies_are_not_shown(tmp_path: Path, classification: str, shown: bool) -> None:
    project = make_project(tmp_path)
    columns = [{**COLUMNS[0], "classification": classification}, *COLUMNS[1:]]
    (project.contracts_folder / f"{DATASET}.odcs.yaml").write_text(yaml.safe_dump(contract_document(columns)))
    assert bool(described(Project(project.root), twice())) is shown
