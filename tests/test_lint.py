"""`make lint` judges a library that a model added by `requirements/pipelines.in`."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sample_project import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with the new model `churn`, which has a module next to its training function."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("infra", "pipelines", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.json"))
    folder = tmp_path / "models" / "churn"
    folder.mkdir(parents=True)
    (folder / "train.py").write_text("from lightgbm import LGBMClassifier\n\nfrom columns import text\n")
    (folder / "columns.py").write_text("text = ()\n")
    return tmp_path


def unused_and_undeclared(root: Path, *libraries: str) -> str:
    """Return what `make lint` says of dependencies; "" if it passes."""
    with (root / "requirements" / "pipelines.in").open("a") as file:
        file.writelines(f"{library}\n" for library in libraries)
    printed = subprocess.run(["make", "--dry-run", "lint"], cwd=root, capture_output=True, text=True, check=True)
    (command,) = (line for line in printed.stdout.splitlines() if "deptry" in line)
    _, *arguments = shlex.split(command)
    done = subprocess.run([sys.executable, "-m", "deptry", *arguments], cwd=root, capture_output=True, text=True)
    return done.stdout + done.stderr if done.returncode else ""


def test_a_library_that_only_a_model_imports_is_used(root: Path) -> None:
    assert unused_and_undeclared(root, "lightgbm", "onnxmltools") == ""


def test_a_library_that_nothing_imports_is_not_used(root: Path) -> None:
    assert "DEP002 'xgboost-cpu' defined as a dependency but not used" in unused_and_undeclared(
        root, "lightgbm", "xgboost-cpu"
    )


def test_a_library_of_a_model_is_declared(root: Path) -> None:
    found = unused_and_undeclared(root)
    assert "train.py:1:1: DEP001 'lightgbm' imported but missing" in found
    assert "columns" not in found
