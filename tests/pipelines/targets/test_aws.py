"""The AWS target, with fake `pulumi` and `aws` commands that record their calls."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.targets.aws import AwsTarget
from pipelines.targets.held_stack import StackHeldError, hold_stack
from pipelines.targets.state_bucket import StackLocks
from tests.aws import REGION, EmulatedAccount
from tests.sample_project import copy_as_forked

PROGRAM = """#!{python}
import json, os, pathlib, sys
name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
if name == "aws":
    print("Added new context to", arguments[-1])
    pathlib.Path(arguments[-1]).write_text("cluster " + arguments[arguments.index("--name") + 1])
else:
    kubeconfig = pathlib.Path(os.environ["KUBECONFIG"])
    with open({notes!r}, "a") as notes:
        print(json.dumps([arguments, kubeconfig.read_text(), str(kubeconfig)]), file=notes)
    print("foundation only" if os.environ.get("MLOPS_FOUNDATION_ONLY") else "all")
    print("Resources:\\n    1 unchanged")
    sys.exit({status})
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(with_policy_pack(copy_as_forked(tmp_path)))


def with_policy_pack(project: Path, environment: str = sys.prefix) -> Path:
    """Add a policy pack that runs in a virtual environment, and return the project."""
    file = project / "infra" / "policies" / "PulumiPolicy.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"runtime: {{name: python, options: {{virtualenv: {environment}}}}}\n")
    return project


def install(folder: Path, patch: pytest.MonkeyPatch, *, status: int = 0, program: str = PROGRAM) -> Path:
    """Put the fake commands on the PATH, and return the file that records their calls."""
    notes = folder / "notes"
    for name in ("pulumi", "aws"):
        file = folder / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(program.format(python=sys.executable, notes=str(notes), status=status))
        file.chmod(0o755)
    patch.setenv("PATH", str(folder / "bin"))
    patch.setenv("KUBECONFIG", "/another/kubeconfig")
    return notes


def test_a_stack_uses_its_configured_cluster_regardless_of_kubeconfig(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    notes = install(tmp_path, monkeypatch)
    target = AwsTarget(project)
    for name in ("dev", "prod"):
        target.apply("preview", name)
    assert target.drift("staging") == []
    noted = [json.loads(line) for line in notes.read_text().splitlines()]
    assert [cluster for _, cluster, _ in noted] == [f"cluster mlops-{name}" for name in ("dev", "prod", "staging")]
    rules = ["--policy-pack", str(project.root / "infra" / "policies")]
    assert noted[0][0] == ["preview", "--stack", "dev", "--non-interactive", "--diff", *rules]
    assert not any(Path(kubeconfig).exists() for _, _, kubeconfig in noted)
    assert "Added new context" not in capfd.readouterr().out, "the output of aws would end up in the comment"


def test_everything_that_runs_the_program_applies_the_policy_pack(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = install(tmp_path, monkeypatch)
    monkeypatch.setenv("PULUMI_BACKEND_URL", "file://~")
    monkeypatch.setattr("pipelines.targets.aws.resolve_interrupted_update", lambda *_: None)
    target = AwsTarget(project)
    target.apply("preview", "dev")
    target.apply("up", "dev")
    target.preview("dev")
    target.drift("dev")
    rules = str(project.root / "infra" / "policies")
    calls = [json.loads(line)[0] for line in notes.read_text().splitlines()]
    calls = [call for call in calls if call[0] in ("preview", "up")]
    assert len(calls) == 4
    assert ["--refresh" in call for call in calls] == [False, True, False, True], "preview, up, preview, drift"
    assert [call[call.index("--policy-pack") + 1] for call in calls] == [rules] * 4


def test_an_update_shows_the_properties_of_each_resource_unless_it_is_brief(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = install(tmp_path, monkeypatch)
    monkeypatch.setenv("PULUMI_BACKEND_URL", "file://~")
    monkeypatch.setattr("pipelines.targets.aws.resolve_interrupted_update", lambda *_: None)
    target = AwsTarget(project)
    target.apply("up", "dev")
    target.brief = True
    target.apply("up", "dev")
    calls = [json.loads(line)[0] for line in notes.read_text().splitlines()]
    assert ["--diff" in call for call in calls if call[0] == "up"] == [True, False]


def break_interpreter(pack: Path) -> None:
    pack.joinpath("PulumiPolicy.yaml").write_text("runtime: {name: python, options: {virtualenv: ../../missing}}\n")


def break_file(pack: Path) -> None:
    pack.joinpath("PulumiPolicy.yaml").unlink()


def break_environment(pack: Path) -> None:
    pack.joinpath("PulumiPolicy.yaml").write_text("runtime: python\n")


def break_import(pack: Path) -> None:
    pack.joinpath("infra").mkdir()  # a package that hides the rules
    pack.joinpath("infra", "__init__.py").write_text("raise ImportError('no pulumi_policy')")


def break_rules(pack: Path) -> None:
    pack.joinpath("infra", "policies").mkdir(parents=True)
    pack.joinpath("infra", "__init__.py").touch()
    pack.joinpath("infra", "policies", "__init__.py").touch()
    pack.joinpath("infra", "policies", "pack.py").write_text("def policies(): return []")


@pytest.mark.parametrize(
    ("breaking", "found"),
    [
        (break_interpreter, r"expected an interpreter at .*missing/bin/python, found No such file"),
        (break_file, r"expected the file infra/policies/PulumiPolicy.yaml, found none\n  fix: git checkout"),
        (break_environment, r"expected runtime.options.virtualenv in .*, found none"),
        (break_import, r"expected it to load, found ImportError: no pulumi_policy\n  fix: make setup"),
        (break_rules, r"expected at least one policy, found none"),
    ],
)
def test_nothing_runs_without_the_policy_pack(
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    breaking: Callable[[Path], None],
    found: str,
) -> None:
    notes = install(tmp_path, monkeypatch)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    breaking(project.root / "infra" / "policies")
    target = AwsTarget(project)
    for action in (lambda: target.apply("up", "dev"), lambda: target.preview("dev"), lambda: target.drift("dev")):
        with pytest.raises(MlopsError, match=rf"the policy pack cannot run: {found}"):
            action()
    assert not notes.exists()


def test_a_program_that_fails_is_an_error_or_drift(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, status=255)
    with pytest.raises(MlopsError, match=r"pulumi preview --stack dev .* failed with status 255") as failed:
        AwsTarget(project).apply("preview", "dev")
    assert "run the command again" in failed.value.fix
    assert "    1 unchanged" in AwsTarget(project).drift("dev")


UP = """#!{python}
import json, pathlib, sys
arguments = sys.argv[1:]
if arguments[:2] == ["eks", "update-kubeconfig"]:
    pathlib.Path(arguments[-1]).touch()
    sys.exit(0)
with open({notes!r}, "a") as notes:
    print(" ".join(arguments[:2]), file=notes)
if arguments[:2] == ["stack", "export"]:
    print(json.dumps({{"deployment": {{"resources": []}}}}))
"""


@pytest.mark.parametrize("operation", ["up", "refresh", "destroy"])
def test_an_operation_holds_the_stack_and_first_resolves_an_interrupted_update(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, account: EmulatedAccount, operation: Any
) -> None:
    notes = install(tmp_path, monkeypatch, program=UP)
    bucket = f"state-{operation}"
    boto3.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"s3://{bucket}")
    AwsTarget(project).apply(operation, "dev")
    assert notes.read_text().splitlines() == ["stack export", f"{operation} --stack"]
    locks = StackLocks.of_backend(f"s3://{bucket}", project.name, "dev")
    assert locks is not None
    assert locks.read_record()[1], "the record of the holder was written"
    with hold_stack(locks, project.root, "up", print), pytest.raises(StackHeldError):
        AwsTarget(project).apply(operation, "dev")
    assert len(notes.read_text().splitlines()) == 2, "Pulumi did not start"
    AwsTarget(project).apply("preview", "dev")


def test_the_state_is_the_one_that_the_program_names(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    with (project.root / "Pulumi.yaml").open("a") as program:
        program.write("backend: {url: file:///tmp/state}\n")
    with pytest.raises(MlopsError, match="expected a backend s3://…, found file:///tmp/state"):
        AwsTarget(project).unlock("dev", print, force=False)


def test_unlocking_a_stack_whose_state_is_not_in_s3_names_pulumis_own_command(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "file:///tmp/state")
    with pytest.raises(MlopsError, match="expected a backend s3://") as caught:
        AwsTarget(project).unlock("dev", print, force=False)
    assert caught.value.fix == "pulumi cancel --stack dev"


ENGINE = """#!{python}
import json, sys
arguments = sys.argv[1:]
if arguments == ["version"]:
    print("v{version}")
elif arguments == ["plugin", "ls", "--json"]:
    print(json.dumps([{{"name": "aws", "kind": "resource", "version": "7.1.0"}}]))
else:
    with open({notes!r}, "a") as notes:
        print(" ".join(arguments), file=notes)
"""


@pytest.mark.parametrize("version", ["3.200.0", "3.199.0"])
def test_a_job_gets_the_pinned_engine(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    pins = project.root / "requirements" / "infra.txt"
    pins.parent.mkdir()
    pins.write_text("pulumi==3.200.0 \\\npulumi-aws==7.1.0 \\\npulumi-kubernetes==4.2.0 \\\npulumi-policy==1.0.0 \\\n")
    notes = tmp_path / "notes"
    file = tmp_path / "bin" / "pulumi"
    file.parent.mkdir()
    file.write_text(ENGINE.format(python=sys.executable, notes=str(notes), version=version))
    file.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    said: list[str] = []
    with pytest.raises(
        MlopsError, match=r"Pulumi.yaml names no state: expected `backend: \{url: s3://…\}`, found none"
    ):
        AwsTarget(project).install_engine(said.append)
    with (project.root / "Pulumi.yaml").open("a") as program:
        program.write("backend: {url: s3://state}\n")
    if version != "3.200.0":
        with pytest.raises(MlopsError, match=r"expected 3\.200\.0, as the SDK, found 3\.199\.0"):
            AwsTarget(project).install_engine(said.append)
        assert not notes.exists()
        return
    AwsTarget(project).install_engine(said.append)
    assert notes.read_text() == "plugin install resource kubernetes 4.2.0\n"
    assert said == ["Pulumi 3.200.0", "installed the provider kubernetes 4.2.0"]


def test_an_engine_that_is_not_pinned_is_an_error(tmp_path: Path) -> None:
    from pipelines.targets.aws import engine_versions

    with pytest.raises(MlopsError, match="expected a pin of pulumi, pulumi-aws, pulumi-kubernetes, found none"):
        engine_versions(tmp_path)


def test_only_the_foundation_is_applied_on_request(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, monkeypatch)
    monkeypatch.setenv("PULUMI_BACKEND_URL", "file://~")
    monkeypatch.setattr("pipelines.targets.aws.resolve_interrupted_update", lambda *_: None)
    target = AwsTarget(project)
    target.apply("up", "dev", foundation_only=True)
    assert capfd.readouterr().out.startswith("foundation only\n")
    target.apply("up", "dev")
    assert capfd.readouterr().out.startswith("all\n"), "the variable does not outlive one operation"


def test_a_stack_whose_secrets_cannot_be_read_says_what_to_restore(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "#!{python}\nimport sys\nprint('passphrase must be set', file=sys.stderr)\nsys.exit({status})\n"
    install(tmp_path, monkeypatch, status=255, program=broken)
    with pytest.raises(MlopsError, match="pulumi stack output --json --stack dev") as failed:
        AwsTarget(project).outputs("dev")
    assert "restore `secretsprovider" in failed.value.fix
