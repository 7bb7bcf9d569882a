from __future__ import annotations

from pathlib import Path

from pipelines.data.reading import read_batch
from pipelines.data.validate import validate
from pipelines.declarations.project import Project
from tests.pipelines.data.diabetes_sample import sample
from tests.sample_project import PROJECT

DECLARED = Project(PROJECT)
SAMPLE = DECLARED.contracts_folder / "samples" / "diabetes-patients.csv"


def test_the_sample_file_is_up_to_date() -> None:
    assert SAMPLE.read_text() == sample()


def test_the_study_rows_are_good_and_each_added_row_is_quarantined_for_its_reason(tmp_path: Path) -> None:
    contract = DECLARED.contract("diabetes-patients")
    with validate(read_batch(SAMPLE, contract, tmp_path), contract, tmp_path) as checked:
        summary = checked.summary
        assert [row["patient_id"] for row in checked.good_rows().read_all().to_pylist()] == list(range(1, 443))
    assert (summary.rows, summary.good, summary.quarantined) == (447, 442, 5)
    assert {(reason.column, reason.rule, reason.rows) for reason in summary.reasons} == {
        ("age", "required", 1),
        ("bmi", "type", 1),
        ("age", "maximum", 1),
        ("patient_id", "primaryKey", 1),
        ("sex", "invalidValues", 1),
    }
