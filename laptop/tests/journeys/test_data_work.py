"""The work on data, as `mlops demo --data` shows it. The demo fails if a command shows something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from laptop.project_copy import copy_project
from laptop.tests.journeys.laptop_of_journeys import ordinary_laptop_only, part, run_demo
from pipelines.declarations.project import Project
from tests.sample_project import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    ordinary_laptop_only("`mlops demo --data` starts a laptop itself"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(Project(ROOT), tmp_path_factory.mktemp("data-work") / "project").root


@pytest.fixture(scope="module")
def shown(project: Path) -> str:
    """Output of the demo."""
    return run_demo(project, "--data")


def test_a_wider_contract_is_refused_without_a_new_version_and_names_the_release_that_it_breaks(shown: str) -> None:
    compared = part(shown, "A third code of the column sex is right")
    assert "sex: validValues was 1, 2, is also 3 (breaks consumers)" in compared
    assert "live in dev: diabetes-progression sha256:" in compared
    assert "requires version 2.0.0 or later (major): not announced, refused" in compared
    assert "requires version 2.0.0 or later (major): announced" in compared


def test_a_row_in_quarantine_is_replayed_under_the_new_contract(shown: str) -> None:
    assert "row 405: sex: invalidValues" in part(shown, "Some rows break the contract")
    replayed = part(shown, "Check the rows in quarantine again")
    assert "first.csv: 401 of 405 rows in the table, 4 in quarantine" in replayed and "row 405" not in replayed


def test_drift_of_a_delivery_is_an_alarm_with_a_drawn_report(shown: str, project: Path) -> None:
    assert "alarm   drift of bmi" in part(shown, "A delivery of heavier patients")
    assert "<svg" in (project / ".mlops" / "demo" / "drift.html").read_text(encoding="utf-8")


def test_a_prediction_is_traced_back_to_its_landing_file(shown: str, project: Path) -> None:
    assert "dev/diabetes-patients/first.csv" in part(shown, "Trace a prediction back to the landing files")
    assert "first.csv" in (project / ".mlops" / "demo" / "lineage.svg").read_text(encoding="utf-8")
