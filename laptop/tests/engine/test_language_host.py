from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import (
    analyzer_pb2,
    analyzer_pb2_grpc,
    engine_pb2,
    language_pb2,
    language_pb2_grpc,
)

from laptop.engine.language_host import find_interpreter, required_plugins
from laptop.plugin_executables import LANGUAGE_HOST, install_language_host, write_executable
from laptop.tests.engine.plugin_client import WITHIN, Engine, engine, started, wait_until_ended
from pipelines.declarations.errors import MlopsError

ROOT = Path(__file__).resolve().parents[3]
VENV = Path(sys.prefix)

pytestmark = pytest.mark.slow


@dataclass
class Host:
    """A language host in a process, and the engine that it talks to."""

    process: subprocess.Popen[bytes]
    stub: Any
    engine: Engine
    address: str
    folder: Path

    def info(self, folder: Path | None = None) -> Any:
        options = struct_pb2.Struct()
        options.update({"virtualenv": str(VENV)})
        program = str(folder or self.folder)
        return language_pb2.ProgramInfo(
            root_directory=program, program_directory=program, entry_point=".", options=options
        )

    def run(self, program: str, **request: Any) -> Any:
        return self.start(program, **request).result(WITHIN)

    def start(self, program: str, **request: Any) -> Any:
        (self.folder / "__main__.py").write_text("import pulumi\n" + textwrap.dedent(program))
        return self.stub.Run.future(
            language_pb2.RunRequest(
                project="shop",
                stack="dev",
                pwd=str(self.folder),
                monitor_address=self.address,
                parallel=4,
                organization="organization",
                info=self.info(),
                **request,
            )
        )


@pytest.fixture(scope="module")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("bin") / LANGUAGE_HOST
    write_executable(file, "laptop.engine.language_host")
    return file


@pytest.fixture
def host(executable: Path, tmp_path: Path) -> Iterator[Host]:
    with engine() as (served, address), started(executable, address) as (process, channel):
        yield Host(process, language_pb2_grpc.LanguageRuntimeStub(channel), served, address, tmp_path)


def test_a_program_runs_with_its_configuration_against_the_engines_monitor(host: Host) -> None:
    program = """
    pulumi.ComponentResource("shop:index:Shelf", "top", {"size": pulumi.Config().require_int("size")})
    pulumi.export("settings", [pulumi.get_stack(), pulumi.runtime.is_dry_run(), pulumi.Config().require("key")])
    pulumi.export("token", pulumi.Config().require_secret("key"))
    """
    answer = host.run(program, config={"shop:size": "3", "shop:key": "k"}, configSecretKeys=["shop:key"], dryRun=True)
    assert (answer.error, answer.bail) == ("", False)
    stack, shelf = host.engine.registered
    assert (stack.type, stack.name) == ("pulumi:pulumi:Stack", "shop-dev")
    assert (shelf.type, shelf.name, shelf.object["size"]) == ("shop:index:Shelf", "top", 3)
    outputs = host.engine.outputs["urn:pulumi:pulumi:pulumi:Stack::shop-dev"]
    assert list(outputs["settings"]) == ["dev", True, "k"]
    assert outputs["token"]["value"] == "k"


def test_a_run_error_is_logged_without_a_traceback(host: Host) -> None:
    answer = host.run("raise pulumi.RunError('size: expected a number')")
    assert host.engine.logged == [(engine_pb2.ERROR, "size: expected a number")]
    assert (answer.error, answer.bail) == ("Program exited with non-zero exit code: 1", False)


def test_an_exception_is_logged_with_the_frames_of_the_program_only(host: Host) -> None:
    answer = host.run("def fail():\n    raise ValueError('too small')\nfail()\n")
    ((severity, message),) = host.engine.logged
    assert severity == engine_pb2.ERROR
    assert message.startswith("Program failed with an unhandled exception:\nTraceback")
    assert message.count("File ") == 2
    assert "ValueError: too small" in message
    assert (answer.error, answer.bail) == ("", True)


def test_a_cancelled_call_ends_the_program(host: Host) -> None:
    call = host.start("import asyncio\npulumi.export('never', pulumi.Output.from_input(asyncio.sleep(600)))\n")
    assert host.engine.called.wait(WITHIN)
    children = [child.pid for child in psutil.Process(host.process.pid).children()]
    assert children
    call.cancel()
    wait_until_ended(children)


def test_nothing_stays_after_the_cli_was_killed(executable: Path, tmp_path: Path) -> None:
    # A shell stands for the CLI: it starts the language host and is killed.
    with engine() as (_, address):
        shell = subprocess.Popen(
            ["sh", "-c", f"{executable} {address}; true"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert shell.stdout is not None
        port = int(shell.stdout.readline())
        children = [child.pid for child in psutil.Process(shell.pid).children()]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            language_pb2_grpc.LanguageRuntimeStub(channel).GetPluginInfo(empty_pb2.Empty())
            shell.kill()
            shell.wait()
            wait_until_ended(children)
        shell.stdout.close()
        assert shell.stdin is not None
        shell.stdin.close()


def test_a_policy_pack_runs_as_an_analyzer_and_ends_with_the_call(host: Host) -> None:
    pack = ROOT / "infra" / "policies"
    call = host.stub.RunPlugin(
        language_pb2.RunPluginRequest(
            pwd=str(host.folder),
            args=[host.address],
            env=[f"{name}={value}" for name, value in {**os.environ, "PYTHONPATH": str(ROOT)}.items()],
            kind="analyzer",
            info=host.info(pack),
        )
    )
    port = int(next(call).stdout)
    children = [child.pid for child in psutil.Process(host.process.pid).children()]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        found = analyzer_pb2_grpc.AnalyzerStub(channel).GetAnalyzerInfo(empty_pb2.Empty())
    assert found.name == "mlops"
    assert {analyzer_pb2.MANDATORY} == {policy.enforcementLevel for policy in found.policies}
    call.cancel()
    wait_until_ended(children)


def test_the_plugins_of_installed_sdks_are_required(host: Host) -> None:
    found = host.stub.GetRequiredPackages(language_pb2.GetRequiredPackagesRequest(info=host.info()))
    names = {package.name: package.version for package in found.packages}
    assert {"aws", "kubernetes"} <= names.keys()
    assert all(names.values())


def test_a_missing_virtual_environment_is_named_with_its_fix(host: Host) -> None:
    info = host.info()
    info.options.update({"virtualenv": "nowhere"})
    with pytest.raises(grpc.RpcError) as failure:
        host.stub.GetRequiredPackages(language_pb2.GetRequiredPackagesRequest(info=info))
    assert failure.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert f"expected {host.folder}/nowhere/bin/python, found nothing" in failure.value.details()
    assert "fix: make it: `make setup`." in failure.value.details()


def test_about_names_the_interpreter_of_the_program(host: Host) -> None:
    about = host.stub.About(language_pb2.AboutRequest(info=host.info()))
    assert about.executable == str(VENV / "bin" / "python")
    assert about.version == ".".join(str(part) for part in sys.version_info[:3])


def test_code_generation_is_not_implemented(host: Host) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        host.stub.Pack(language_pb2.PackRequest())
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_an_sdk_without_a_plugin_is_left_out(tmp_path: Path) -> None:
    for name, text in {
        "pulumi_aws": '{"resource": true, "name": "aws", "version": "7.1.0", "server": "example"}',
        "pulumi_policy": '{"resource": false, "name": "policy"}',
        "broken": "{",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "pulumi-plugin.json").write_text(text)
    assert required_plugins(tmp_path) == [{"name": "aws", "version": "7.1.0", "server": "example"}]


def test_without_a_virtual_environment_this_interpreter_runs_the_program(tmp_path: Path) -> None:
    assert find_interpreter(tmp_path, {}) == Path(sys.executable)
    with pytest.raises(MlopsError, match="make setup"):
        find_interpreter(tmp_path, {"virtualenv": ".venv"})


def test_the_language_host_is_installed_only_for_a_cli_without_one(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    path = f"{ours}:{theirs}"
    assert not install_language_host(ours, path)  # no CLI at all
    theirs.mkdir()
    for name in ("pulumi", LANGUAGE_HOST):
        (theirs / name).write_text("#!/bin/sh\n")
        (theirs / name).chmod(0o755)
        installed = install_language_host(ours, path)
        assert installed is (name == "pulumi")
        assert (ours / LANGUAGE_HOST).exists() is installed
