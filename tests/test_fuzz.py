"""The fuzzer finds faults, and finds none in the product."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.fuzz.__main__ import fuzz
from tools.fuzz.subjects import SUBJECTS, known_kinds
from tools.fuzz.worker import make_input

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(600)
def test_no_nearly_valid_input_ends_in_a_traceback_a_crash_or_a_hang() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.fuzz", "160", "--seed", "7"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=580,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == list(known_kinds())


def test_every_way_to_fail_is_a_fault_and_the_other_inputs_are_used() -> None:
    report = fuzz("tests.faulty_subjects:Faulty", 9, seed=0)
    assert {number: text.splitlines()[-1] for number, text in report.faults.items() if number in (1, 2)} == {
        1: "TypeError: a fault of the program",
        2: "tools.fuzz.subjects.FaultError: not an error for people: 'Traceback (most recent call last): …'",
    }
    assert report.faults[4].startswith("crash: status -6")
    # The process that follows a crash begins with its first use again.
    assert sorted(report.faults) == [1, 2, 4, 6, 7]
    assert report.outcomes == {"refused": 2, "accepted": 2}


def test_an_input_that_is_not_answered_is_a_hang() -> None:
    report = fuzz("tests.faulty_subjects:Hanging", 2, seed=0, hang_seconds=20)
    assert report.faults == {1: "hang: no answer within 20 s"}
    assert report.outcomes == {"accepted": 1}


@pytest.mark.parametrize("kind", known_kinds())
def test_an_input_is_made_again_from_its_number_and_some_inputs_are_accepted(kind: str, tmp_path: Path) -> None:
    subject = SUBJECTS[kind](tmp_path)
    inputs = [make_input(subject, kind, 3, number) for number in range(40)]
    assert repr(inputs[5]) == repr(make_input(subject, kind, 3, 5))
    assert len({repr(given) for given in inputs}) > 20
    accepted = [subject.judge(given) for given in inputs]
    assert 0 < sum(accepted) < len(accepted)
