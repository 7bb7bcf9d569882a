"""Jobs that use the same workspace one after the other see nothing of each other."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from laptop.github.actions.bytecode import copy_bytecode
from laptop.github.runner.workspaces import lease_workspace
from laptop.tests.github.sample_repository import CHECKOUT, hub_with, push

pytestmark = pytest.mark.slow

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


def test_a_job_sees_nothing_of_the_job_before_it(tmp_path: Path) -> None:
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
    assert len(folders) == 1, "jobs use the same folder, so bytecode is found again"
    for log in logs:
        assert "before the checkout 0 files" in log
        assert "refs/heads/mine" not in log
        assert "\n M " not in log and "\n?? " not in log
    found = [next(line for line in log.splitlines() if line.startswith("left over: .git")).split() for log in logs]
    assert "gone" in found[0] and "gone" not in found[1]
    assert "junk" not in found[1] and "deep" not in found[1]


POISON = """
import importlib.util, marshal, os, pathlib
source = pathlib.Path("said.py")
about = source.stat()
code = marshal.dumps(compile('WORD = "poisoned"', "said.py", "exec"))
header = importlib.util.MAGIC_NUMBER + bytes(4)
header += (int(about.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + about.st_size.to_bytes(4, "little")
compiled = pathlib.Path(importlib.util.cache_from_source("said.py"))
compiled.parent.mkdir(exist_ok=True)
compiled.write_bytes(header + code)
import said
assert said.WORD == "poisoned"
"""


def test_a_branch_leaves_nothing_for_a_job_of_main(tmp_path: Path) -> None:
    run = JOB.replace("python3 -c 'import said", "test ! -f poison.py || python3 poison.py; python3 -c 'import said")
    hub = hub_with(tmp_path, {"w.yml": run, "said.py": 'WORD = "one"\n', "README": "", ".gitignore": "__pycache__\n"})
    clone = hub.clone(tmp_path / "clone", "maria")
    push(clone, "evil", {"poison.py": POISON})
    hub.pump()
    subprocess.run(["git", "-C", str(clone), "switch", "--quiet", "main"], check=True)
    push(clone, "main", {"README": "1"})
    hub.pump()
    main, evil = (run.jobs[0].log.read_text() for run in hub.runs() if run.jobs[0].log)
    assert "said poisoned" in evil and "said one" in main
    folders = {line.split(", in ")[1] for log in (main, evil) for line in log.splitlines() if ", in /" in line}
    assert len(folders) == 1, "the paths are the same"


def test_bytecode_of_unchanged_files_is_kept(tmp_path: Path) -> None:
    hub = hub_with(
        tmp_path, {"w.yml": JOB, "said.py": 'WORD = "one"\n', "README": "hello\n", ".gitignore": "__pycache__\n"}
    )
    clone = hub.clone(tmp_path / "clone", "maria")
    push(clone, "main", {"more": ""})
    hub.pump()
    (kept,) = (hub.server.folder / "workspaces").glob("*/kept/__pycache__/said.*.pyc")
    before = kept.stat().st_mtime_ns
    push(clone, "main", {"README": "another\n"})
    hub.pump()
    assert kept.stat().st_mtime_ns == before
    push(clone, "main", {"said.py": 'WORD = "uno"\n'})
    hub.pump()
    assert kept.stat().st_mtime_ns != before


def test_two_jobs_never_share_a_workspace_and_a_free_one_is_reused(tmp_path: Path) -> None:
    with lease_workspace(tmp_path, reviewed=True) as first, lease_workspace(tmp_path, reviewed=True) as second:
        assert first.path != second.path
    with lease_workspace(tmp_path, reviewed=True) as again:
        assert again.path == first.path


def test_the_workspace_of_a_killed_job_is_cleared(tmp_path: Path) -> None:
    child = os.fork()
    if not child:  # a runner that dies in the middle of a job
        try:
            with lease_workspace(tmp_path, reviewed=True) as place:
                (place.path / "half").touch()
                os._exit(0)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    with lease_workspace(tmp_path, reviewed=True) as place:
        assert list(place.path.iterdir()) == []


def test_a_job_may_remove_its_workspace(tmp_path: Path) -> None:
    with lease_workspace(tmp_path, reviewed=True) as place:
        shutil.rmtree(place.path)
    with lease_workspace(tmp_path, reviewed=True) as place:
        assert place.path.is_dir() and not place.kept.exists()


@pytest.mark.parametrize("damage", ["index", "objects"])
def test_a_damaged_kept_checkout_does_not_break_the_next_job(tmp_path: Path, damage: str) -> None:
    hub = hub_with(
        tmp_path, {"w.yml": JOB, "said.py": 'WORD = "one"\n', "README": "hello\n", ".gitignore": "__pycache__\n"}
    )
    clone = hub.clone(tmp_path / "clone", "maria")
    push(clone, "main", {"more": ""})
    hub.pump()
    (kept,) = (hub.server.folder / "workspaces").glob("*/kept")
    if damage == "index":
        (kept / ".git" / "index").write_bytes(b"nonsense")
    else:
        shutil.rmtree(kept / ".git" / "objects")
    push(clone, "main", {"README": "another\n"})
    hub.pump()
    assert hub.runs()[0].conclusion == "success"


def test_a_new_workspace_takes_the_bytecode_of_identical_files_only(tmp_path: Path) -> None:
    names = ("same", "changed", "edited")
    first, second = tmp_path / "1", tmp_path / "2"
    for folder in (first, second):
        folder.mkdir()
        for name in names:
            (folder / f"{name}.py").write_text(f"WORD = {name!r}\n")
    for name in names:
        py_compile.compile(str(first / f"{name}.py"), invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
    (second / "changed.py").write_text("WORD = 'CHANGED'\n")
    (first / "edited.py").write_text("WORD = 'EDITED'\n")
    os.utime(first / "edited.py", (1, 1))
    assert copy_bytecode(second, [tmp_path / "missing", first]) == 1
    code = "import sys, same; print(same.WORD, same.__cached__)"
    before = (second / "__pycache__").stat().st_mtime_ns
    shown = subprocess.run([sys.executable, "-v", "-c", code], cwd=second, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["same", importlib.util.cache_from_source(str(second / "same.py"))]
    assert "code object from" not in "".join(line for line in shown.stderr.splitlines() if "/same.py" in line)
    assert (second / "__pycache__").stat().st_mtime_ns == before, "nothing was compiled"
    assert not list((second / "__pycache__").glob("changed.*"))
