from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from laptop import lifecycle
from laptop.cli.laptop import laptop
from laptop.lifecycle import Laptop
from laptop.stack_operations import export_stack
from laptop.tests.engine.conftest import Site
from laptop.tests.engine.fake_cloud import FakeCloud, FakeProvider
from pipelines.declarations.errors import MlopsError

pytestmark = pytest.mark.slow

PROGRAM = """
Thing("plain", size=1)
pulumi.export("token", pulumi.Output.secret("a secret text"))
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Return a site that is taken for a running laptop."""
    site = Site(tmp_path, FakeProvider(FakeCloud(tmp_path / "cloud.json")))
    running = Laptop(site.home, site.root, "http://127.0.0.1:1", "https://127.0.0.1:2", "", 1.0, "eu-west-1", {})
    monkeypatch.setattr(lifecycle, "find", lambda home: running)
    monkeypatch.setenv("MLOPS_HOME", str(site.home))
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE", raising=False)
    return site


def test_a_stack_is_exported_to_a_file_with_its_secrets_encrypted(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.up(PROGRAM)
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "")
    monkeypatch.chdir(site.root)
    file = tmp_path / "dev.json"
    done = CliRunner().invoke(laptop, ["export-stack", "dev", "--file", str(file)])
    assert done.exit_code == 0, done.output
    deployment = json.loads(file.read_text())["deployment"]
    assert done.output == f"{file}: {len(deployment['resources'])} resources\n"
    assert deployment["secrets_providers"]["type"] == "passphrase"
    assert "a secret text" not in file.read_text()
    printed = CliRunner().invoke(laptop, ["export-stack", "dev"])
    assert json.loads(printed.output).keys() == {"version", "deployment"}


def test_secrets_are_not_exported_without_a_passphrase(site: Site) -> None:
    site.up(PROGRAM)
    with pytest.raises(MlopsError, match="expected PULUMI_CONFIG_PASSPHRASE, found nothing"):
        export_stack(site.root, site.home, "dev", None)
    site.up('Thing("plain", size=1)')
    assert "secrets_providers" not in export_stack(site.root, site.home, "dev", None)["deployment"]


def test_a_stack_without_state_is_named(site: Site) -> None:
    site.write("")
    with pytest.raises(MlopsError, match="the stack `dev` has no state") as failure:
        export_stack(site.root, site.home, "dev", None)
    assert "mlops up --env dev" in str(failure.value)
