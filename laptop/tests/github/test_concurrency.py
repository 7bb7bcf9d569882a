"""Concurrency groups: decisions on values, and queues with real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laptop.github.runner.concurrency import LONGEST_QUEUE, Slot, arrive, may_run
from laptop.tests.github.sample_repository import hub_with

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]


def slot(number: int, group: str = "g", *, held: bool = False) -> Slot:
    return Slot(number, group, number, "", held=held)


def test_by_default_a_new_run_replaces_the_waiting_one() -> None:
    slots = [slot(1, held=True), slot(2), slot(3, "other")]
    arrival = arrive(slots, slot(4), queue="single", cancel_in_progress=False)
    assert ([s.id for s in arrival.dropped], arrival.stopped) == ([2], ())


def test_cancel_in_progress_stops_the_running_one() -> None:
    slots = [slot(1, held=True), slot(2, "other", held=True)]
    assert [s.id for s in arrive(slots, slot(3), queue="single", cancel_in_progress=True).stopped] == [1]


def test_queue_max_drops_nothing_until_it_is_full() -> None:
    slots = [slot(n, held=n == 0) for n in range(LONGEST_QUEUE)]
    assert arrive(slots, slot(500), queue="max", cancel_in_progress=False).dropped == ()
    assert arrive([*slots, slot(200)], slot(500), queue="max", cancel_in_progress=False).dropped == (slot(500),)


@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from("ab")), unique_by=lambda item: item[0]))
def test_only_the_first_slot_of_a_group_may_run(found: list[tuple[int, str]]) -> None:
    slots = [slot(number, group) for number, group in found]
    running = [s for s in slots if may_run(slots, s)]
    assert len(running) == len({s.group for s in slots})
    assert all(s.id == min(o.id for o in slots if o.group == s.group) for s in running)


WORKFLOW = """
on: {workflow_dispatch: {inputs: {n: {}}}}
%s
jobs:
  a:
    runs-on: ubuntu-latest
    %s
    steps: [{run: 'echo "in ${{ inputs.n }}" >> "$BOOK"; sleep 0.15; echo "out ${{ inputs.n }}" >> "$BOOK"'}]
"""
QUEUE = "concurrency: {group: Deploy-%s, cancel-in-progress: false, queue: max}"


def test_two_runner_processes_run_a_group_one_by_one_in_order(tmp_path: Path) -> None:
    hub = hub_with(tmp_path, {"w.yml": WORKFLOW % (QUEUE % "x", ""), "j.yml": WORKFLOW % ("", QUEUE % "y")})
    book = tmp_path / "book"
    for n in range(4):
        hub.dispatch("maria", "w.yml", inputs={"n": str(n)})
    code = (
        "import sys; from pathlib import Path; from laptop.github.hub import Hub\n"
        f"hub = Hub(Path({str(tmp_path / 'home')!r}), environ={{'BOOK': {str(book)!r}}}, workers=4)\n"
        "print([run.number for run in hub.pump()])"
    )
    pumps = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = [pump.communicate(timeout=30)[0] for pump in pumps]
    assert [pump.returncode for pump in pumps] == [0, 0]
    assert book.read_text().split("\n")[:-1] == [f"{word} {n}" for n in range(4) for word in ("in", "out")]
    assert sorted(int(n) for output in outputs for n in output.strip("[]\n").split(",") if n.strip()) == [1, 2, 3, 4]


def test_jobs_of_a_group_wait_for_each_other_across_runs(tmp_path: Path) -> None:
    book = tmp_path / "book"
    hub = hub_with(tmp_path, {"j.yml": WORKFLOW % ("", QUEUE % "y")}, environ={"BOOK": str(book)}, workers=4)
    for n in range(3):
        hub.dispatch("maria", "j.yml", inputs={"n": str(n)})
    assert {run.conclusion for run in hub.pump()} == {"success"}
    lines = book.read_text().split()
    assert [lines[at] for at in range(0, len(lines), 2)] == ["in", "out"] * 3


def test_without_queue_max_only_the_newest_run_waits(tmp_path: Path) -> None:
    book = tmp_path / "book"
    group = "concurrency: {group: '${{ github.workflow }}'}"
    hub = hub_with(tmp_path, {"w.yml": WORKFLOW % (group, "")}, environ={"BOOK": str(book)})
    for n in range(3):
        hub.dispatch("maria", "w.yml", inputs={"n": str(n)})
    assert [run.conclusion for run in hub.pump()] == ["cancelled", "cancelled", "success"]
    assert book.read_text() == "in 2\nout 2\n"


def test_cancel_in_progress_cancels_the_run_in_progress(tmp_path: Path) -> None:
    hub = hub_with(
        tmp_path,
        {
            "w.yml": """
            on: {workflow_dispatch: {inputs: {again: {type: boolean}}}}
            permissions: {actions: write}
            concurrency: {group: x, cancel-in-progress: true}
            jobs:
              a:
                runs-on: ubuntu-latest
                steps:
                  - if: inputs.again
                    env: {GH_TOKEN: '${{ github.token }}', GH_REPO: '${{ github.repository }}'}
                    run: gh workflow run w.yml -f again=false; sleep 60
                  - {name: cleanup, if: cancelled(), run: 'true'}
              b: {needs: a, runs-on: ubuntu-latest, steps: [{run: 'true'}]}
            """
        },
    )
    hub.dispatch("maria", "w.yml", inputs={"again": "true"})
    first, second = hub.pump()
    assert (first.conclusion, second.conclusion) == ("cancelled", "success")
    assert [step.conclusion for step in first.job("a").steps] == ["cancelled", "success"]
    assert first.job("b").conclusion == "cancelled"


def test_a_job_in_the_group_of_its_own_run_fails(tmp_path: Path) -> None:
    hub = hub_with(tmp_path, {"w.yml": WORKFLOW % (QUEUE % "z", QUEUE % "Z")})
    hub.dispatch("maria", "w.yml", inputs={"n": "1"})
    (run,) = hub.pump()
    assert "waits for its own run" in run.annotations[0].message
