"""Run the Pulumi CLI with a program in this process and providers that are already running."""

from __future__ import annotations

import base64
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from pulumi.automation._server import LanguageServer
from pulumi.runtime.proto import language_pb2_grpc

PASSPHRASE = "conformance"
TIMEOUT = 120.0  # seconds for one command

_SECRET_SIGNATURE = "4dabf18193072939515e22adb298388d"
_ITERATIONS = 1_000_000


@dataclass(frozen=True)
class Finished:
    """A finished command.

    Attributes:
        code: exit code; negative if a signal killed it.
        output: standard output and error.
        began: (operation, URN) of the steps in the order in which they began.
        failed: (operation, URN) of the steps that failed.
        ended: (operation, URN) of the steps that succeeded. For a refresh, the operation says what it found.
    """

    code: int
    output: str
    began: tuple[tuple[str, str], ...] = ()
    failed: frozenset[tuple[str, str]] = frozenset()
    ended: tuple[tuple[str, str], ...] = ()

    @property
    def succeeded(self) -> tuple[tuple[str, str], ...]:
        """Return the steps that did not fail."""
        return tuple(step for step in self.began if step not in self.failed)


@dataclass
class InlineCli:
    """The CLI with a project, a file backend and running providers.

    Args:
        binary: the CLI.
        home: folder for everything that the CLI writes.
        project: folder with `Pulumi.yaml`.
        providers: package → port of 127.0.0.1.
    """

    binary: Path
    home: Path
    project: Path
    providers: Mapping[str, int]
    running: subprocess.Popen[str] | None = field(default=None, init=False)

    def environ(self) -> dict[str, str]:
        attached = ",".join(f"{package}:{port}" for package, port in self.providers.items())
        backend = self.home / "backend"
        backend.mkdir(parents=True, exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PULUMI_HOME": str(self.home / "pulumi"),
            "PULUMI_BACKEND_URL": f"file://{backend}",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_AUTOMATION_API": "true",
            "PULUMI_DEBUG_COMMANDS": "true",
            "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
            "PULUMI_DEBUG_PROVIDERS": attached,
        }

    def init(self, stack: str) -> None:
        """Create an empty stack."""
        done = self._run("stack", "init", stack)
        if done.code != 0:
            raise RuntimeError(done.output)

    def copy_of(self, template: InlineCli) -> None:
        """Take over the stacks that another one initialised."""
        shutil.copytree(template.home / "backend", self.home / "backend")
        for file in template.project.glob("Pulumi.*.yaml"):
            shutil.copy(file, self.project / file.name)

    def run(self, operation: str, stack: str, program: Callable[[], None], *arguments: str) -> Finished:
        """Run `up` or `preview` with a program."""
        with _language_host(program) as port:
            inline = [f"--client=127.0.0.1:{port}", "--exec-kind=auto.inline", *arguments]
            return self.operate(operation, stack, *inline)

    def cancel(self, stack: str) -> None:
        """Remove the lock that a killed run left."""
        done = self._run("cancel", "--yes", "--stack", stack)
        if done.code != 0:
            raise RuntimeError(done.output)

    def operate(self, operation: str, stack: str, *arguments: str) -> Finished:
        """Run `up`, `preview`, `refresh` or `destroy`, and read its events."""
        log = self.home / "events.json"
        log.unlink(missing_ok=True)
        options = ["--stack", stack, "--non-interactive", "--event-log", str(log)]
        if operation != "preview":
            options += ["--yes", "--skip-preview"]
        done = self._run(operation, *options, *arguments)
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        steps, failed, ended = [], set(), []
        for line in text.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue  # the last line of a killed command
            if "resourcePreEvent" in event:
                metadata = event["resourcePreEvent"]["metadata"]
                steps.append((metadata["op"], metadata["urn"]))
            if "resOutputsEvent" in event:
                metadata = event["resOutputsEvent"]["metadata"]
                ended.append((metadata["op"], metadata["urn"]))
            if "resOpFailedEvent" in event:
                metadata = event["resOpFailedEvent"]["metadata"]
                failed.add((metadata["op"], metadata["urn"]))
        return Finished(done.code, done.output, tuple(steps), frozenset(failed), tuple(ended))

    def deployment(self, stack: str) -> dict[str, Any]:
        """Return the stack's deployment as `pulumi stack export --show-secrets` does, read from the backend's file."""
        (file,) = (self.home / "backend" / ".pulumi" / "stacks").rglob(f"{stack}.json")
        checkpoint: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["checkpoint"]["latest"] or {}
        salt = ((checkpoint.get("secrets_providers") or {}).get("state") or {}).get("salt", "")
        decrypted: dict[str, Any] = _decrypted(checkpoint, salt)
        return decrypted

    def _run(self, *arguments: str) -> Finished:
        command = [str(self.binary), *arguments]
        # In its own group, so a Ctrl-C in the terminal reaches the tests only.
        self.running = subprocess.Popen(
            command,
            cwd=self.project,
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = self.running.communicate(timeout=TIMEOUT)
        except BaseException:
            self.running.kill()
            self.running.communicate()
            raise
        return Finished(self.running.returncode, output)


@contextmanager
def _language_host(program: Callable[[], None]) -> Iterator[int]:
    """Serve a program to the CLI and yield the port."""
    server = grpc.server(ThreadPoolExecutor(4))
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageServer(program), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(grace=None).wait()


def _decrypted(value: Any, salt: str) -> Any:
    """Replace each encrypted secret by one with its `plaintext`, as `--show-secrets` does."""
    if isinstance(value, list):
        return [_decrypted(item, salt) for item in value]
    if not isinstance(value, dict):
        return value
    if _SECRET_SIGNATURE in value and "ciphertext" in value:
        _, nonce, sealed = value["ciphertext"].split(":")
        text = AESGCM(_key(salt)).decrypt(base64.b64decode(nonce), base64.b64decode(sealed), None)
        return {_SECRET_SIGNATURE: value[_SECRET_SIGNATURE], "plaintext": text.decode()}
    return {key: _decrypted(item, salt) for key, item in value.items()}


@functools.cache
def _key(salt: str) -> bytes:
    """Derive the key of Pulumi's passphrase secrets provider."""
    raw = base64.b64decode(salt.split(":")[1])
    return PBKDF2HMAC(SHA256(), length=32, salt=raw, iterations=_ITERATIONS).derive(PASSPHRASE.encode())
