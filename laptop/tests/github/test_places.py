"""Jobs work one after the other in the same folder, and see nothing of each other there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from laptop.github.places import take_place
from laptop.tests.github.toys import CHECKOUT, hub_with, push

JOB = f"""
on: push
permissions: {{contents: read}}
jobs:
  a:
    runs-on: ubuntu-24.04
    timeout-minutes: 1
    steps:
      - run: echo "before the checkout $(ls -A | wc -l) files, in $PWD"
      - uses: {CHECKOUT}
        with: {{persist-credentials: false, fetch-depth: 0}}
      - run: |
          echo "left over: $(ls -A | tr '\\n' ' ')$(git for-each-ref --format=' %(refname)' | tr -d '\\n')"
          python3 -c 'import said; print("said", said.WORD)'
          git status --short
      - run: |
          touch junk; mkdir -p deep/er; touch deep/er/junk; echo changed > README
          git branch mine; git config user.name left
"""


def test_a_job_sees_nothing_that_the_job_before_it_left(tmp_path: Path) -> None:
    hub = hub_with(
        tmp_path,
        {"w.yml": JOB, "said.py": 'WORD = "one"\n', "README": "hello\n", ".gitignore": "__pycache__\n", "gone": ""},
    )
    clone = hub.clone(tmp_path / "clone", "maria")
    push(clone, "main", {"more": ""})
    hub.pump()
    (clone / "gone").unlink()
    push(clone, "main", {"said.py": 'WORD = "two"\n'})
    hub.pump()
    logs = [run.jobs[0].log.read_text() for run in reversed(hub.runs()) if run.jobs[0].log]
    assert ["said one" in log for log in logs] == [True, False], logs
    assert "said two" in logs[1]
    folders = {line.split(", in ")[1] for log in logs for line in log.splitlines() if ", in /" in line}
    assert len(folders) == 1, "the folder is the same, so that what was compiled is found again"
    for log in logs:
        assert "before the checkout 0 files" in log
        assert "refs/heads/mine" not in log
        assert "\n M " not in log and "\n?? " not in log
    found = [next(line for line in log.splitlines() if line.startswith("left over: .git")).split() for log in logs]
    assert "gone" in found[0] and "gone" not in found[1]
    assert "junk" not in found[1] and "deep" not in found[1]


def test_what_was_compiled_of_a_file_that_did_not_change_stays(tmp_path: Path) -> None:
    hub = hub_with(
        tmp_path, {"w.yml": JOB, "said.py": 'WORD = "one"\n', "README": "hello\n", ".gitignore": "__pycache__\n"}
    )
    clone = hub.clone(tmp_path / "clone", "maria")
    push(clone, "main", {"more": ""})
    hub.pump()
    (kept,) = (hub.forge.folder / "places").glob("*/kept/__pycache__/said.*.pyc")
    before = kept.stat().st_mtime_ns
    push(clone, "main", {"README": "another\n"})
    hub.pump()
    assert kept.stat().st_mtime_ns == before
    push(clone, "main", {"said.py": 'WORD = "uno"\n'})
    hub.pump()
    assert kept.stat().st_mtime_ns != before


def test_two_jobs_are_never_in_one_place_and_a_free_one_is_taken_again(tmp_path: Path) -> None:
    with take_place(tmp_path) as first, take_place(tmp_path) as second:
        assert first.workspace != second.workspace
    with take_place(tmp_path) as again:
        assert again.workspace == first.workspace


def test_the_folder_of_a_job_that_was_killed_is_cleared(tmp_path: Path) -> None:
    child = os.fork()
    if not child:  # a runner that dies in the middle of a job
        with take_place(tmp_path) as place:
            (place.workspace / "half").touch()
            os._exit(0)
    os.waitpid(child, 0)
    with take_place(tmp_path) as place:
        assert list(place.workspace.iterdir()) == []


def test_a_job_that_removes_its_workspace_harms_nobody(tmp_path: Path) -> None:
    with take_place(tmp_path) as place:
        shutil.rmtree(place.workspace)
    with take_place(tmp_path) as place:
        assert place.workspace.is_dir() and not place.kept.exists()


@pytest.mark.parametrize("damage", ["index", "objects"])
def test_a_damaged_checkout_that_was_kept_does_not_break_the_next_job(tmp_path: Path, damage: str) -> None:
    hub = hub_with(
        tmp_path, {"w.yml": JOB, "said.py": 'WORD = "one"\n', "README": "hello\n", ".gitignore": "__pycache__\n"}
    )
    clone = hub.clone(tmp_path / "clone", "maria")
    push(clone, "main", {"more": ""})
    hub.pump()
    (kept,) = (hub.forge.folder / "places").glob("*/kept")
    if damage == "index":
        (kept / ".git" / "index").write_bytes(b"nonsense")
    else:
        shutil.rmtree(kept / ".git" / "objects")
    push(clone, "main", {"README": "another\n"})
    hub.pump()
    assert hub.runs()[0].conclusion == "success"
