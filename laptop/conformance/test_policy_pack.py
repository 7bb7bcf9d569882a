"""Policies: the CLI's policy pack and our engine see the same resources and refuse the same programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from infra.policies import PlannedResource, Violation, violations
from infra.policies.resource_graph import UNKNOWN
from laptop.aws.account import start
from laptop.aws.aws_provider import AwsProvider
from laptop.aws.eks_clusters import declare_clusters, declared_clusters
from laptop.conformance.attached_cli import AttachedCli, connect, path_with
from laptop.conformance.engines import FoundEngine
from laptop.engine.deployment import Deployment, DeploymentError
from laptop.engine.provider import Provider
from laptop.tests.engine.planted_violations import PACKAGES, AnyProvider, batches, write_project
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.targets.aws import AwsTarget
from tests.infra.policies.examples import Resources
from tests.infra.recording import AUTHORITY, release_everywhere, write_kubeconfig
from tests.sample_project import copy_as_forked

_SHOWING_PACK = """
import json, os
from pathlib import Path
from infra.policies.resource_graph import UNKNOWN, plain
from pulumi_policy import EnforcementLevel, PolicyPack, StackValidationPolicy

def show(args, report):
    seen = {one.urn: plain(one.props) for one in args.resources}
    text = json.dumps(seen, default=lambda value: {"unknown": True} if value is UNKNOWN else repr(value))
    Path(os.environ["SHOWN"]).write_text(text)

policy = StackValidationPolicy(name="show", description="Write what a policy sees.", validate=show)
PolicyPack(name="show", policies=[policy], enforcement_level=EnforcementLevel.MANDATORY)
"""


@pytest.fixture(scope="session")
def path(pulumi_cli: FoundEngine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Value of PATH with the CLI and a language host."""
    return path_with(pulumi_cli, tmp_path_factory.mktemp("bin"))


@pytest.fixture(scope="session")
def planted(path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AttachedCli, Path]]:
    """The CLI with providers that create anything, and the project of the planted violations."""
    home = tmp_path_factory.mktemp("planted")
    with ExitStack() as stack:
        cli = connect(stack, path, home, {package: AnyProvider() for package in PACKAGES})
        project = write_project(home / "project", ())
        cli.create_stack(project, "dev")
        yield cli, project


def engine_violations(project: Path, home: Path) -> set[tuple[str, str]]:
    """Return the violations in a preview of our engine: rule and URN."""
    found: list[Violation] = []

    def policy(resources: Sequence[PlannedResource]) -> list[Violation]:
        found.extend(violations(resources))
        return found

    deployment = Deployment(project, "dev", {package: AnyProvider() for package in PACKAGES}, home, policies=[policy])
    with pytest.raises(DeploymentError, match=r"policy violation\(s\); nothing was changed"):
        deployment.preview()
    return {(one.rule, one.urn) for one in found}


@pytest.mark.parametrize("batch", batches(), ids=lambda batch: next(iter(batch)))
def test_the_pack_refuses_planted_violations_as_the_engine_does(
    planted: tuple[AttachedCli, Path], batch: Mapping[str, Resources], tmp_path: Path
) -> None:
    cli, project = planted
    write_project(project, [resource for graph in batch.values() for resource in graph])
    found = cli.violations(project, "preview")
    for rule in batch:
        assert [urn for name, urn in found if name == rule and urn.rpartition("::")[2].startswith(f"{rule}.")]
    assert found == engine_violations(project, tmp_path)


def shown_by_the_cli(cli: AttachedCli, project: Path, pack: Path, operation: str, *more: str) -> dict[str, Any]:
    """Return what a stack policy of the CLI sees: URN → properties, without providers and the stack."""
    pack.mkdir(exist_ok=True)
    options = {"virtualenv": sys.prefix}
    pack.joinpath("PulumiPolicy.yaml").write_text(json.dumps({"runtime": {"name": "python", "options": options}}))
    pack.joinpath("__main__.py").write_text(_SHOWING_PACK)
    file = pack / "shown.json"
    done = cli.run(project, operation, "--stack", "dev", "--policy-pack", str(pack), *more, SHOWN=str(file))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    shown: dict[str, Any] = json.loads(file.read_text())
    return _of_the_program(shown)


def shown_by_the_engine(project: Path, home: Path, providers: Mapping[str, Provider], operation: str) -> dict[str, Any]:
    """Return what a policy of our engine sees, in the same form."""
    seen: list[dict[str, Any]] = []

    def show(resources: Sequence[PlannedResource]) -> tuple[()]:
        seen.append({one.urn: one.plain for one in resources})
        return ()

    getattr(Deployment(project, "dev", providers, home, policies=[show]), operation)()
    text = json.dumps(seen[-1], default=lambda value: {"unknown": True} if value is UNKNOWN else repr(value))
    return _of_the_program(json.loads(text))


def _of_the_program(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out default providers, which only the CLI registers, and the stack, which no rule reads."""
    return {urn: props for urn, props in shown.items() if ":pulumi:" not in urn.partition("::")[2]}


@pytest.fixture
def account(path: str, tmp_path: Path) -> Iterator[tuple[AttachedCli, Path, AwsProvider]]:
    """The CLI, a copy of the bootstrap with the stack `dev`, and the AWS provider of an empty account."""
    account = start(tmp_path / "aws")
    project = copy_as_forked(tmp_path / "project", "infra/bootstrap") / "infra" / "bootstrap"
    (tmp_path / "project" / ".venv").symlink_to(sys.prefix)
    (project / "Pulumi.account.yaml").rename(project / "Pulumi.dev.yaml")
    provider = AwsProvider(account.environ(), account.home)
    try:
        with ExitStack() as stack:
            cli = connect(stack, path, tmp_path, {"aws": provider})
            cli.create_stack(project, "dev")
            yield cli, project, provider
    finally:
        account.stop()


def test_the_bootstrap_passes_the_pack_and_policies_see_what_our_engine_shows(
    account: tuple[AttachedCli, Path, AwsProvider], tmp_path: Path
) -> None:
    cli, project, provider = account
    shown = shown_by_the_cli(cli, project, tmp_path / "pack", "preview")
    expected = shown_by_the_engine(project, tmp_path / "engine", {"aws": provider}, "preview")
    different = [
        f"{urn} {key}: the CLI shows {shown.get(urn, {}).get(key)!r}, the engine {expected.get(urn, {}).get(key)!r}"
        for urn in sorted({*shown, *expected})
        for key in sorted({*shown.get(urn, {}), *expected.get(urn, {})})
        if shown.get(urn, {}).get(key) != expected.get(urn, {}).get(key)
    ]
    assert not different, "\n".join(different)
    assert shown.keys() == expected.keys()
    assert cli.violations(project, "preview") == set()
    assert cli.violations(project, "up", "--yes") == set()
    refreshed = ("--refresh", "--expect-no-changes")
    assert cli.violations(project, "preview", *refreshed) == set()
    assert len(shown) > 50
    (access,) = (props for urn, props in shown.items() if urn.endswith("AccessPolicy::deploy-dev"))
    assert set(access) == {"exemptions"}


def test_the_aws_target_refuses_an_unsafe_change_before_it_is_applied(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = release_everywhere(copy_as_forked(tmp_path / "project", "infra", "pipelines"))
    (root / ".venv").symlink_to(sys.prefix)
    program = root / "infra" / "__main__.py"
    safe = program.read_text()
    program.write_text(f"{safe}\nimport pulumi_aws\npulumi_aws.kms.Key('careless', deletion_window_in_days=7)\n")
    fake_aws = tmp_path / "bin" / "aws"
    fake_aws.parent.mkdir()
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", AUTHORITY)
    fake_aws.write_text(f'#!/bin/sh\nfor file; do :; done\ncp {kubeconfig} "$file"\n')  # `aws eks update-kubeconfig`
    fake_aws.chmod(0o755)
    account = start(tmp_path / "aws")
    try:
        with ExitStack() as stack:
            declare_clusters(account.home, kubeconfig, declared_clusters(Project(root)), cluster="declared")
            aws = AwsProvider(account.environ(), account.home)
            providers: dict[str, Provider] = {"aws": aws, "kubernetes": AnyProvider()}
            cli = connect(stack, f"{fake_aws.parent}{os.pathsep}{path}", tmp_path, providers)
            for name, value in cli.environ(PYTHONPATH=str(root)).items():
                monkeypatch.setenv(name, value)
            monkeypatch.delenv("AWS_ENDPOINT_URL")  # as on AWS, where the program requires the pack
            cli.create_stack(root, "dev")
            typed = cli.run(root, "preview", "--stack", "dev", PYTHONPATH=str(root), AWS_ENDPOINT_URL="")
            assert typed.returncode != 0
            assert "expected --policy-pack infra/policies, the rules of this project, found none" in typed.stdout
            assert "Traceback" not in typed.stdout + typed.stderr
            target = AwsTarget(Project(root))
            assert "aws:kms/key:Key careless: is not rotated" in target.preview("dev").problem
            with pytest.raises(MlopsError, match=r"pulumi up --stack dev .*--policy-pack .* failed"):
                target.apply("up", "dev")
            assert "kms-slow-to-delete" in capfd.readouterr().out
            exported = json.loads(cli.run(root, "stack", "export", "--stack", "dev").stdout)
            assert "resources" not in exported["deployment"]
            program.write_text(safe)
            assert target.preview("dev").problem == ""
    finally:
        account.stop()
