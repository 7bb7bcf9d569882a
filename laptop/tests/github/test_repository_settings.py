"""The doctor reads the settings of a repository on the laptop's GitHub."""

from __future__ import annotations

from pathlib import Path

import pytest

from laptop.github.hub import Hub
from laptop.github.settings import Protection, Settings
from pipelines.github.gh import Gh
from pipelines.github.settings import read_settings


def test_it_asks_github_by_gh_and_says_what_it_could_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "README.md").write_text("x\n")
    hub = Hub(tmp_path / "home")
    protection = Protection(required_checks=("test", "gates"))
    environments = {"preview": (), "images": ("main",), "dev": ("main",), "prod": ("main",)}
    hub.create(source, "acme/mlops", Settings(protection=protection, users=("ada",), environments=environments))
    for name, value in hub.environ("ada").items():
        monkeypatch.setenv(name, value)
    found = read_settings(Gh(source, "acme/mlops"), ("dev", "prod"))
    assert [setting for setting in found if not setting.ok] == []
    monkeypatch.setenv("GH_TOKEN", "nobody")
    blind = read_settings(Gh(source, "acme/mlops"), ("dev", "prod"))
    assert [setting.name for setting in blind] == ["rules of main", "environments"]
    assert all("not readable" in setting.found for setting in blind)
