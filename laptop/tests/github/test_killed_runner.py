"""A killed runner loses no event and leaves no process, and its run can be rerun."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from laptop.github.forge.actors import person
from laptop.github.forge.bare_repository import git as bare_git
from laptop.github.forge.branch_moves import RefUpdate, announce_move
from laptop.github.forge.github_server import GitHubServer
from laptop.github.hub import Hub
from laptop.tests.github.sample_repository import ends, git, hub_with, push

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]

WORKFLOW = """
on: {workflow_dispatch: {inputs: {n: {}}}}
concurrency: {group: deploy, queue: max}
jobs:
  first: {runs-on: ubuntu-latest, steps: [{run: echo done}]}
  slow:
    needs: first
    runs-on: ubuntu-latest
    steps:
      - run: |
          echo "${{ inputs.n }} ${{ github.run_attempt }}" >> "$BOOK"
          if test "${{ inputs.n }} ${{ github.run_attempt }}" = '1 1'; then
            setsid sleep 300 & echo $! > "$BOOK.pid.new"; mv "$BOOK.pid.new" "$BOOK.pid"; sleep 300
          fi
"""


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)
    return path.read_text().strip()


def test_a_killed_run_is_closed_its_processes_end_and_it_can_be_rerun(tmp_path: Path) -> None:
    book = tmp_path / "book"
    environ = {"BOOK": str(book)}
    hub = hub_with(tmp_path, {"w.yml": WORKFLOW}, environ=environ)
    for n in ("1", "2"):
        hub.dispatch("maria", "w.yml", inputs={"n": n})
    code = (
        "from pathlib import Path; from laptop.github.hub import Hub\n"
        f"Hub(Path({str(tmp_path / 'home')!r}), environ={environ!r}).pump()"
    )
    pump = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    left = wait_for(tmp_path / "book.pid")
    pump.send_signal(signal.SIGKILL)
    pump.wait()

    second = hub.pump()
    assert [(run.number, run.conclusion) for run in second] == [(2, "success")]
    killed = hub.run(1)
    assert (killed.conclusion, killed.problems) == (
        "failure",
        ("the runner was killed during the run; rerun it",),
    )
    assert [job.name for job in killed.jobs] == ["first"]
    assert hub.server.checks(killed.sha)["slow"]["run"] == 2
    assert ends(left)
    assert list((hub.server.folder / "work").iterdir()) == []
    # The token of the job was revoked.
    assert all(token["run"] is None for token in hub.server.state.read()["tokens"].values())

    hub.rerun(1)
    (again,) = Hub(tmp_path / "home", environ=environ).pump()
    assert (again.number, again.attempt, again.conclusion) == (1, 2, "success")
    assert book.read_text() == "1 1\n2 1\n1 2\n"


def test_an_announced_push_that_never_happened_leaves_no_event(tmp_path: Path) -> None:
    hub = hub_with(tmp_path, {"README": "x"})
    server = GitHubServer(hub.server.folder)
    tip = str(server.repository.resolve_ref("main"))
    gone = subprocess.Popen(["true"])
    server.announce(person("maria"), [RefUpdate("refs/heads/x", "0" * 40, tip)], gone.pid)
    gone.wait()
    assert hub.pump() == []
    assert server.state.read()["moves"] == []


def test_a_merge_killed_after_the_ref_moved_is_completed_by_the_next_reader(tmp_path: Path) -> None:
    hub = hub_with(tmp_path, {"w.yml": "on: push\njobs: {a: {runs-on: ubuntu-latest, steps: [{run: 'true'}]}}\n"})
    clone = hub.clone(tmp_path / "clone", "maria")
    push(clone, "feature", {"x": "1"})
    hub.pump()
    number = hub.open("maria", "feature", "X").number
    server = hub.server
    gone = subprocess.Popen(["true"])
    before = git(clone, "rev-parse", "origin/main")
    merged = git(clone, "rev-parse", "feature")
    with server.change() as state:
        announce_move(state, person("maria"), RefUpdate("refs/heads/main", before, merged), gone.pid, pull=number)
    gone.wait()
    bare_git(server.repository.path, "update-ref", "refs/heads/main", merged, before)
    assert [(run.event, run.ref) for run in hub.pump()] == [("push", "refs/heads/main")]
    assert (hub.pull_request(number).state, hub.pull_request(number).merge_commit) == ("MERGED", merged)
