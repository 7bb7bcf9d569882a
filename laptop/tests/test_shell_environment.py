from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from laptop.lifecycle import Laptop
from laptop.plugin_executables import AWS_PLUGIN
from laptop.shell_environment import shell_commands


@pytest.fixture
def running(tmp_path: Path) -> Laptop:
    return Laptop(
        home=tmp_path / "lap top",
        root=tmp_path,
        aws_endpoint="http://127.0.0.1:1",
        kubernetes_endpoint="https://127.0.0.1:2",
        incarnation="i",
        time_scale=1.0,
        region="eu-west-1",
        pids={},
    )


def evaluated(commands: list[str], environ: dict[str, str]) -> dict[str, str]:
    """Return the variables of a POSIX shell after `eval`."""
    script = "eval " + shlex.quote("\n".join(commands)) + "\nenv -0"
    done = subprocess.run(["/bin/sh", "-c", script], env=environ, capture_output=True, check=True)
    return dict(item.split("=", 1) for item in done.stdout.decode().split("\0") if item)


def test_the_ordinary_tools_find_the_laptop(running: Laptop) -> None:
    before = {"PATH": os.environ["PATH"]}
    after = evaluated(shell_commands(running, before), before)
    assert after["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert after["AWS_SHARED_CREDENTIALS_FILE"] == str(running.home / "aws" / "credentials")
    assert after["KUBECONFIG"] == str(running.home / "kubeconfig")
    assert (after["PULUMI_CONFIG_PASSPHRASE"], after["PULUMI_SKIP_UPDATE_CHECK"]) == ("", "true")
    first, rest = after["PATH"].split(":", 1)
    assert rest == before["PATH"]
    assert os.access(Path(first, AWS_PLUGIN), os.X_OK)
    again = evaluated(shell_commands(running, after), after)
    assert again["PATH"] == after["PATH"]


def test_the_identity_of_another_account_is_removed_and_a_passphrase_kept(running: Laptop) -> None:
    before = {
        "PATH": os.environ["PATH"],
        "AWS_ACCESS_KEY_ID": "of another account",
        "AWS_PROFILE": "work",
        "PULUMI_CONFIG_PASSPHRASE": "mine",
    }
    after = evaluated(shell_commands(running, before), before)
    assert not {"AWS_ACCESS_KEY_ID", "AWS_PROFILE"} & after.keys()
    assert after["PULUMI_CONFIG_PASSPHRASE"] == "mine"


def test_the_plugin_says_that_the_laptop_is_not_running(running: Laptop) -> None:
    commands = shell_commands(running, {"PATH": os.environ["PATH"]})
    assert commands
    plugin = running.home / "bin" / AWS_PLUGIN
    assert str(running.home / "aws") in shlex.split(plugin.read_text().splitlines()[-1])
