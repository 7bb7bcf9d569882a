"""A model in operation, as `mlops demo --operate` shows it. The demo fails if a monitor or a response is another."""

from __future__ import annotations

import pytest

from laptop.project_copy import copy_project
from laptop.tests.journeys.laptop_of_journeys import ordinary_laptop_only, part, run_demo
from pipelines.declarations.project import Project
from tests.sample_project import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    ordinary_laptop_only("`mlops demo --operate` moves days, which delays of AWS do not follow"),
]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Output of the demo."""
    copy = copy_project(Project(ROOT), tmp_path_factory.mktemp("operation") / "project")
    return run_demo(copy.root, "--operate")


def test_labels_that_arrive_late_restate_the_accuracy(shown: str) -> None:
    assert "500 labels arrive" in part(shown, "The next day labels arrive late")
    assert "alarm   " not in part(shown, "The next day labels arrive late")


def test_a_regression_that_only_labels_reveal_is_rolled_back(shown: str) -> None:
    assert "alarm   accuracy" not in part(shown, "A day with the new release")
    assert "alarm   accuracy" in part(shown, "Its labels arrive")
    restored = part(shown, "The second alarm rolls it back")
    assert "roll-back: accuracy" in restored
    assert "rolling back from sha256:" in restored


def test_the_drift_of_real_years_is_no_alarm(shown: str) -> None:
    assert "alarm   " not in part(shown, "The right years arrive one by one")


def test_bias_of_a_client_is_found_and_labels_confirm_it(shown: str) -> None:
    assert "alarm   fairness of ratio of selection_rate by sex" in part(shown, "A client's new form")
    confirmed = part(shown, "Labels arrive and confirm the bias")
    # Labels of the days before the wrong form count, too.
    assert "fairness of difference of accuracy by sex: 0.1" in confirmed
    assert "census-employment in dev: fairness" in confirmed


def test_a_retraining_is_proposed_by_pull_request(shown: str) -> None:
    assert "pull request" in part(shown, "Next day the drift is confirmed")
