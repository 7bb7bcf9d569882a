"""Training code is loaded from the model's folder, which stays unchanged."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipelines.training.entrypoint import training_function
from tests.pipelines.training.project import MODEL, make_project


def test_bytecode_is_written_for_imported_libraries_but_not_in_the_models_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_project(tmp_path / "project").model(MODEL)
    folder, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    (folder / "parts").mkdir(parents=True)
    elsewhere.mkdir()
    (folder / "train.py").write_text("from .parts.inner import WORD\nimport a_library\ndef train(data): return WORD\n")
    (folder / "parts" / "__init__.py").touch()
    (folder / "parts" / "inner.py").write_text("WORD = 'inner'\n")
    (elsewhere / "a_library.py").touch()
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.syspath_prepend(str(elsewhere))
    finders = list(sys.meta_path)
    with training_function(model.training.entrypoint, model.name, folder) as train:
        assert train(None) == "inner"  # type: ignore[arg-type, comparison-overlap]
    assert sys.meta_path == finders
    assert not list(folder.rglob("__pycache__"))
    assert list(elsewhere.rglob("a_library.*.pyc"))
