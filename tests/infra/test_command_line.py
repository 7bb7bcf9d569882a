"""A typed `pulumi up` reaches AWS with the policy pack only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.command_line import TypedCommand, applies, require_policy_pack
from pipelines.declarations.errors import MlopsError
from tests.sample_project import ROOT

PACK = ROOT / "infra" / "policies"


def processes(folder: Path, *arguments: str, cwd: Path = ROOT) -> Path:
    """Describe this process, a language host as its parent, and a command as the parent of that."""
    rows = {os.getpid(): (7, ("python", "infra")), 7: (6, ("pulumi-language-python",)), 6: (0, arguments)}
    for process, (parent, command) in rows.items():
        described = folder / str(process)
        described.mkdir(parents=True)
        (described / "stat").write_text(f"{process} (a (strange) name) S {parent} 1 1")
        (described / "cmdline").write_bytes(b"".join(part.encode() + b"\0" for part in command))
        (described / "cwd").symlink_to(cwd)
    return folder


@pytest.mark.parametrize("operation", ["up", "update", "preview", "pre"])
def test_a_command_without_the_pack_is_refused_with_the_option_to_add(tmp_path: Path, operation: str) -> None:
    with pytest.raises(MlopsError, match="expected --policy-pack infra/policies") as refused:
        require_policy_pack(ROOT, {}, processes(tmp_path, "/opt/pulumi/bin/pulumi", operation, "--stack", "dev"))
    assert "--policy-pack infra/policies" in str(refused.value.fix)


@pytest.mark.parametrize(
    "arguments",
    [
        ("up", "--policy-pack", "infra/policies"),
        ("up", "--policy-pack=infra/policies/"),
        ("preview", "--policy-pack", f"elsewhere,{PACK}"),
        ("--cwd", ".", "up", "--policy-pack", "elsewhere", "--policy-pack", str(PACK)),
    ],
)
def test_a_command_with_the_pack_goes_through(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    require_policy_pack(ROOT, {}, processes(tmp_path, "pulumi", *arguments))


@pytest.mark.parametrize(
    "arguments", [("up", "--policy-pack", "policies"), ("up", "--policy-pack"), ("up", "infra/policies")]
)
def test_another_pack_or_none_is_not_the_pack(arguments: tuple[str, ...]) -> None:
    assert not applies(TypedCommand(("pulumi", *arguments), ROOT), PACK)


def test_bootstrap_names_the_pack_from_its_own_folder(tmp_path: Path) -> None:
    folder = ROOT / "infra" / "bootstrap"
    with pytest.raises(MlopsError) as refused:
        require_policy_pack(ROOT, {}, processes(tmp_path / "without", "pulumi", "up", cwd=folder))
    assert "--policy-pack ../policies" in str(refused.value.fix)
    require_policy_pack(
        ROOT, {}, processes(tmp_path / "with", "pulumi", "up", "--policy-pack", "../policies", cwd=folder)
    )


@pytest.mark.parametrize("arguments", [("pulumi", "stack", "output"), ("mlops", "up"), ("pytest", "tests")])
def test_other_commands_are_left_alone(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    require_policy_pack(ROOT, {}, processes(tmp_path, *arguments))


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:4566", "http://[::1]:4566"])
def test_an_emulated_account_needs_no_pack(tmp_path: Path, endpoint: str) -> None:
    require_policy_pack(ROOT, {"AWS_ENDPOINT_URL": endpoint}, processes(tmp_path, "pulumi", "up"))


@pytest.mark.parametrize(
    "endpoint", ["https://vpce-1.s3.eu-west-1.vpce.amazonaws.com", "https://localhost.example.org", ""]
)
def test_another_endpoint_of_aws_needs_the_pack(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(MlopsError):
        require_policy_pack(ROOT, {"AWS_ENDPOINT_URL": endpoint}, processes(tmp_path, "pulumi", "up"))


def test_a_machine_without_a_list_of_processes_refuses_nothing(tmp_path: Path) -> None:
    require_policy_pack(ROOT, {}, tmp_path)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
@pytest.mark.parametrize(("arguments", "refused"), [(("up",), True), (("up", "--policy-pack", str(PACK)), False)])
def test_the_command_is_found_above_a_language_host(arguments: tuple[str, ...], refused: bool) -> None:
    program = "from pathlib import Path; from infra.command_line import *; require_policy_pack(Path.cwd())"
    host = f"import subprocess, sys; sys.exit(subprocess.run([{sys.executable!r}, '-c', {program!r}]).returncode)"
    command = f"import subprocess, sys; sys.exit(subprocess.run([{sys.executable!r}, '-c', {host!r}]).returncode)"
    done = subprocess.run(
        ["pulumi", "-c", command, *arguments],
        executable=sys.executable,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ("expected --policy-pack infra/policies" in done.stderr) is refused
    assert bool(done.returncode) is refused
