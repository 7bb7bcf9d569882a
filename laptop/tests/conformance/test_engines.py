"""Engines are found on the PATH, or built once; what is missing is said clearly. A fake `go` builds here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from laptop.conformance import engines
from laptop.conformance.engines import ENGINES, MODULES, EngineMissing, built_folder, find, provide

pytestmark = pytest.mark.slow

GO = """#!{python} -IS
import os, sys, time, pathlib
if sys.argv[1] == "env":
    print("go{version}\\n{toolchain}")
elif sys.argv[1] == "list":
    print("{source}")
else:
    pathlib.Path("{builds}").open("a").write(sys.argv[-1] + "\\n")
    output = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
    (output / "half").write_text("")
    {action}
    (output / "half").unlink()
    name = sys.argv[-1].rpartition("/")[2]
    name = "server" if name == "v3" else "pulumi-kubernetes" if name == "." else name
    (output / name).write_text("built")
"""


class Machine:
    """A machine with a PATH of its own.

    Args:
        folder: an empty folder.
        patch: changes the environment of this process.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.cache = folder / "cache" / "mlops" / "engines"
        self.said: list[str] = []
        patch.setenv("PATH", str(self.bin))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))

    def install(self, name: str, script: str) -> None:
        file = self.bin / name
        file.write_text(script)
        file.chmod(0o700)

    def install_engine(self, name: str, version: str) -> None:
        self.install(name, f'#!/bin/sh\necho "{name} Version: {version}"\n')

    def install_go(self, *, version: str = "1.26.6", toolchain: str = "local", action: str = "pass") -> None:
        script = GO.format(
            python=sys.executable,
            version=version,
            toolchain=toolchain,
            source=self.folder,
            builds=self.folder / "builds",
            action=action,
        )
        self.install("go", script)

    def builds(self) -> list[str]:
        file = self.folder / "builds"
        return file.read_text().splitlines() if file.exists() else []

    def provide(self, name: str) -> engines.FoundEngine:
        return provide(name, self.said.append)

    def left(self) -> list[str]:
        """Return what a build left in the cache, other than locks."""
        return [path.name for path in self.cache.glob("*") if not path.name.endswith(".lock")]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_is_pinned_by_its_module(name: str) -> None:
    engine = ENGINES[name]
    assert engines.numbers(engine.version) >= engines.numbers(engine.minimum)
    assert (MODULES / engine.module / "go.sum").is_file()


def test_every_module_builds_an_engine() -> None:
    assert {folder.name for folder in MODULES.iterdir()} == {engine.module for engine in ENGINES.values()}


def test_an_engine_on_the_path_is_used(machine: Machine) -> None:
    machine.install_engine("etcd", "3.5.9")
    found = machine.provide("etcd")
    assert (found.path, found.version, found.built) == (machine.bin / "etcd", "3.5.9", False)


def test_an_engine_that_is_too_old_is_named_and_built_instead(machine: Machine) -> None:
    machine.install_engine("etcd", "3.4.1")
    machine.install_go()
    found = machine.provide("etcd")
    assert found.built
    assert machine.said[0] == (
        f"etcd: {machine.bin}/etcd is too old: expected 3.5.0 or newer, found 3.4.1; "
        f"the pinned {ENGINES['etcd'].version} is used instead"
    )


def test_an_engine_that_does_not_tell_its_version_is_not_used(machine: Machine) -> None:
    machine.install("etcd", "#!/bin/sh\nexit 3\n")
    with pytest.raises(EngineMissing, match="does not tell its version, and there is no Go"):
        find("etcd")


def test_an_engine_without_its_other_files_is_not_used(machine: Machine) -> None:
    machine.install_engine("kwok", "0.7.0")
    with pytest.raises(EngineMissing, match="kwok has no kwok-stages beside it"):
        find("kwok")


def test_without_go_the_reason_names_what_is_missing_and_how_to_get_it(machine: Machine) -> None:
    with pytest.raises(EngineMissing) as error:
        machine.provide("etcd")
    assert error.value.what == "etcd: not on the PATH, and Go is missing, which builds it: expected Go 1.26.6 or newer"
    assert error.value.fix == "install Go, or put the engine on the PATH."


@pytest.mark.parametrize(("version", "toolchain"), [("1.20.3", "auto"), ("1.25.0", "local")])
def test_a_go_that_is_too_old_is_named(machine: Machine, version: str, toolchain: str) -> None:
    machine.install_go(version=version, toolchain=toolchain)
    with pytest.raises(
        EngineMissing, match=rf"Go is too old to build it: expected 1\.26\.6 or newer, found go{version}"
    ):
        machine.provide("etcd")


def test_a_go_that_may_fetch_a_newer_one_builds(machine: Machine) -> None:
    machine.install_go(version="1.22.0", toolchain="auto")
    assert machine.provide("etcd").built


def test_an_engine_is_built_once_and_found_afterwards(machine: Machine) -> None:
    machine.install_go()
    found = machine.provide("etcd")
    assert found.path == built_folder("etcd") / "etcd"
    assert machine.provide("etcd") == found == find("etcd")
    assert machine.builds() == ["go.etcd.io/etcd/server/v3"]
    assert machine.left() == [built_folder("etcd").name]
    assert machine.said[0].startswith(f"building etcd {ENGINES['etcd'].version} from ")
    assert machine.said[1].startswith(f"built etcd {ENGINES['etcd'].version} in ")


def test_all_engines_of_a_module_are_built_together(machine: Machine) -> None:
    machine.install_go()
    machine.provide("kube-apiserver")
    assert find("kube-controller-manager").built
    assert len(machine.builds()) == 2


def test_another_pin_is_another_engine(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = machine.folder / "modules"
    shutil.copytree(MODULES, copy)
    monkeypatch.setattr(engines, "MODULES", copy)
    before = built_folder("etcd")
    with (copy / "etcd" / "go.mod").open("a") as file:
        file.write("\n")
    assert built_folder("etcd") != before


def test_two_runs_at_once_build_once(machine: Machine) -> None:
    machine.install_go(action="time.sleep(0.5)")
    found: list[engines.FoundEngine] = []
    threads = [threading.Thread(target=lambda: found.append(machine.provide("etcd"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 2
    assert len(machine.builds()) == 1
    assert "waiting for another process that builds etcd" in machine.said


def test_a_build_that_fails_ends_with_its_log_and_leaves_nothing(machine: Machine) -> None:
    machine.install_go(action='print("module lookup disabled", file=sys.stderr); sys.exit(1)')
    with pytest.raises(EngineMissing, match=r"`go build` failed with status 1\n  \| module lookup disabled"):
        machine.provide("etcd")
    assert machine.left() == []


def test_too_little_disk_is_named_before_the_build(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.install_go()
    usage = shutil.disk_usage(machine.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100 << 20))
    with pytest.raises(EngineMissing, match=r"etcd: not enough disk space .* expected 1 GiB, found 0\.1 GiB"):
        machine.provide("etcd")
    assert machine.builds() == []


def test_a_disk_that_fills_up_during_the_build_is_named(machine: Machine) -> None:
    machine.install_go(action='print("write x: no space left on device", file=sys.stderr); sys.exit(1)')
    with pytest.raises(EngineMissing, match="etcd: not enough disk space"):
        machine.provide("etcd")
    assert machine.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_no_process_and_no_file(machine: Machine, number: signal.Signals) -> None:
    machine.install_go(action=f"open('{machine.folder}/pid', 'w').write(str(os.getpid())); time.sleep(60)")
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    program = (
        "import runpy, signal; "
        # A shell starts background jobs with SIGINT ignored, and a child inherits that.
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('laptop.conformance', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", program, "build", "etcd"]
    with subprocess.Popen(
        command, env=environ, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        deadline = time.monotonic() + 30
        while not (machine.folder / "pid").exists() or not (machine.folder / "pid").read_text():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert not psutil.pid_exists(int((machine.folder / "pid").read_text()))
    assert machine.left() == []


def test_a_killed_build_leaves_no_process(machine: Machine) -> None:
    machine.install_go(action=f"open('{machine.folder}/pid', 'w').write(str(os.getpid())); time.sleep(60)")
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen([sys.executable, "-m", "laptop.conformance", "build", "etcd"], env=environ) as process:
        deadline = time.monotonic() + 30
        while not (machine.folder / "pid").exists() or not (pid := (machine.folder / "pid").read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        process.wait(10)
    while psutil.pid_exists(int(pid)):
        assert time.monotonic() < deadline, "the compiler runs on"
        time.sleep(0.02)


def test_what_a_killed_build_left_is_removed_by_the_next(machine: Machine) -> None:
    left = machine.cache / ".etcd-x.build"
    left.mkdir(parents=True)
    machine.install_go()
    machine.provide("etcd")
    assert not left.exists()


def test_gos_build_cache_is_removed_unless_something_builds(machine: Machine) -> None:
    machine.install_go()
    machine.provide("etcd")
    kept = machine.cache.parent / "go-build"
    kept.mkdir()
    with FileLock(machine.cache / ".kwok.lock"):
        assert not engines.remove_build_cache()
        assert kept.exists()
    assert engines.remove_build_cache()
    assert not kept.exists()
    assert find("etcd").built


def test_the_other_files_of_an_engine_come_with_it(machine: Machine) -> None:
    crds = machine.folder / "manifests" / "crds"
    crds.mkdir(parents=True)
    (crds / "rollout-crd.yaml").write_text("kind: CustomResourceDefinition")
    machine.install_go()
    machine.provide("argo-rollouts")
    folder = engines.link_binaries(machine.folder / "links", ("argo-rollouts",))
    assert (folder / "rollouts-controller").read_text() == "built"
    assert (folder / "argo-crds" / "rollout-crd.yaml").read_text() == "kind: CustomResourceDefinition"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v3.274.1", "3.274.1"),
        ("etcd Version: 3.6.16\nGit SHA: abc", "3.6.16"),
        ("Kubernetes v1.34.5", "1.34.5"),
        ("kwok version v0.7.0 go1.26.8 (linux/amd64)", "0.7.0"),
        ("v1.9.0+unknown", "1.9.0"),
        ("1.35.0-rc.1", "1.35.0-rc.1"),
        ("no version", None),
    ],
)
def test_a_version_is_read_as_each_engine_prints_it(text: str, version: str | None) -> None:
    assert engines.version_in(text) == version
