"""Which container engine builds the images, and what a container may do."""

from __future__ import annotations

from pathlib import Path

import pytest

from laptop.conformance.container_engine import (
    BuildahEngine,
    DockerEngine,
    NoContainerEngine,
    find_container_engine,
    runtime_config,
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install(path: Path, name: str, status: int = 0) -> None:
    (path / name).write_text(f"#!/bin/sh\nexit {status}\n")
    (path / name).chmod(0o700)


def test_the_first_engine_that_works_is_used(path: Path) -> None:
    install(path, "docker", 1)
    install(path, "podman")
    found = find_container_engine(path)
    assert isinstance(found, DockerEngine)
    assert found.name == "podman"


def test_buildah_is_used_by_root_with_what_it_needs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("buildah", "runc", "debootstrap"):
        install(path, name)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert isinstance(find_container_engine(path), BuildahEngine)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(NoContainerEngine, match="buildah needs root here"):
        find_container_engine(path)


def test_every_reason_is_named_if_none_works(path: Path) -> None:
    install(path, "docker", 1)
    with pytest.raises(NoContainerEngine) as error:
        find_container_engine(path)
    assert error.value.what == (
        "`docker info` fails: its daemon does not run, or this user may not use it; podman is not on the PATH; "
        "for buildah, missing: buildah, runc, debootstrap"
    )


def test_a_container_gets_a_read_only_root_the_images_user_and_no_capabilities() -> None:
    image = {"User": "10001:10001", "Env": ["PATH=/bin"], "WorkingDir": "/app"}
    config = runtime_config("/root-of-it", image, ["python", "-V"], {"PORT": "80"})
    assert config["root"] == {"path": "/root-of-it", "readonly": True}
    process = config["process"]
    assert process["user"] == {"uid": 10001, "gid": 10001}
    assert (process["args"], process["env"], process["cwd"]) == (["python", "-V"], ["PATH=/bin", "PORT=80"], "/app")
    assert (process["capabilities"], process["noNewPrivileges"]) == ({}, True)
    assert {mount["destination"] for mount in config["mounts"]} == {"/proc", "/dev", "/tmp"}
