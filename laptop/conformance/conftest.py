"""Fixtures of the conformance tests, skips for missing engines, and the record of a run.

A test names the engines that it needs: `pytest.mark.needs("pulumi", "kwok")`, or by a fixture of this file. Without
them it is skipped, with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from laptop.conformance import control_plane as real
from laptop.conformance.control_plane import KUBECONFIG, ControlPlane
from laptop.conformance.engines import CONTROL_PLANE, EngineMissing, FoundEngine, find, link_binaries
from laptop.conformance.run_record import ENGINES_PROPERTY, SUBJECT_PROPERTY, RunRecorder

_NEEDED_BY_FIXTURE = {
    "pulumi_cli": ("pulumi",),
    "pulumi_with_kubernetes": ("pulumi", "pulumi-kubernetes"),
    "control_plane": ("kwok",) if KUBECONFIG in os.environ else CONTROL_PLANE,
    "api_server": ("etcd", "kube-apiserver", "kube-controller-manager"),
}
"""Fixture → engines that it needs."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*engines): skip the test if one of these engines is not on this machine")
    # The SDK leaves the coroutine of a program that was refused or killed; it is collected in any later test.
    left = "Exception ignored in. <coroutine object run_in_stack"
    config.addinivalue_line("filterwarnings", f"ignore:{left}:pytest.PytestUnraisableExceptionWarning")
    config.pluginmanager.register(RunRecorder(config), "conformance-record")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.user_properties.append((ENGINES_PROPERTY, needed_by(item)))
        item.user_properties.append((SUBJECT_PROPERTY, _subject(item)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = [problem for name in needed_by(item) if (problem := _problem(name))]
    if missing:
        pytest.skip("; ".join(missing))


def needed_by(item: pytest.Item) -> list[str]:
    """Return the engines that a test needs, by its markers and fixtures."""
    named = [name for mark in item.iter_markers("needs") for name in mark.args]
    named += [name for fixture in getattr(item, "fixturenames", ()) for name in _NEEDED_BY_FIXTURE.get(fixture, ())]
    return list(dict.fromkeys(named))


def _subject(item: pytest.Item) -> str:
    """Return the first line of the docstring of a test's module, without the full stop."""
    module = item.getparent(pytest.Module)
    text = (module.obj.__doc__ or item.path.stem) if module else item.path.stem
    return str(text).strip().partition("\n")[0].rstrip(".")


@cache
def _problem(name: str) -> str:
    try:
        find(name)
    except EngineMissing as error:
        return error.what
    return ""


@pytest.fixture(autouse=True, scope="session")
def _environment() -> Iterator[None]:
    """Keep the operator's own accounts, clusters and Pulumi out of every test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("AWS_", "PULUMI_", "KUBE", "MLOPS_", "GITHUB_")):
                patch.delenv(name)
        patch.setenv("PULUMI_SKIP_UPDATE_CHECK", "true")
        patch.setenv("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "true")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session")
def pulumi_cli() -> FoundEngine:
    """The Pulumi CLI."""
    return find("pulumi")


@pytest.fixture(scope="session")
def pulumi_with_kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for the PATH with the Pulumi CLI and its own Kubernetes provider."""
    return link_binaries(tmp_path_factory.mktemp("pulumi-bin"), ("pulumi", "pulumi-kubernetes"))


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """API server and controllers, Argo's too, with a node whose pods kwok marks as running. One per worker."""
    given = os.environ.get(KUBECONFIG)
    binaries = link_binaries(tmp_path_factory.mktemp("control-plane-bin"), ("kwok",) if given else CONTROL_PLANE)
    home = tmp_path_factory.mktemp("control-plane")
    with real.attached(home, Path(given), binaries) if given else real.running(home, binaries) as plane:
        yield plane


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """API server and controllers without Argo's; nothing runs its pods. One per worker."""
    names = ("etcd", "kube-apiserver", "kube-controller-manager")
    binaries = link_binaries(tmp_path_factory.mktemp("api-server-bin"), names)
    with real.running(tmp_path_factory.mktemp("api-server"), binaries, argo=False, kwok=False) as plane:
        yield plane
