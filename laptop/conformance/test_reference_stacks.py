"""Reference stacks: the laptop's engine and Pulumi's make the same resources by the same steps."""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from laptop import lifecycle
from laptop.conformance.comparison import (
    differences,
    found_by_laptop,
    found_by_pulumi,
    of_laptop,
    of_pulumi,
    steps_of_laptop,
    steps_of_pulumi,
)
from laptop.conformance.engines import FoundEngine
from laptop.conformance.inline_cli import InlineCli
from laptop.engine.deployment import Deployment, Result
from laptop.engine.project_file import load_project
from laptop.engine.provider_servicer import ProviderServicer, serving
from laptop.engine.sealing import Seal
from laptop.engine.state_file import load
from laptop.lifecycle import Laptop

pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).parents[2]
IMAGES = {"training": "sha256:" + "a1" * 32, "serving": "sha256:" + "b2" * 32}
VERSIONS = {"aws": "7.51.1", "kubernetes": "4.34.2"}

GENERATED: Mapping[str, str] = {
    r"-[0-9a-f]{7,8}\b": "suffix of an automatic name",
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}": "id of a key, a rule or a Kubernetes object",
    r"\bA[A-Z0-9]{16,20}\b": "unique id in IAM",
    r"\b(?:sg|sgr|vpc|subnet|eni|rtb|acl)-[0-9a-f]+": "id in EC2",
    r"(?s:-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----)": "public key of a signing key",
    r"127\.0\.0\.1:\d+": "port of a laptop",
    r"(?<=#)sha256:[0-9a-f]{64}": "certificate authority of a laptop's cluster, in the identity of its provider",
    r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}[.\d]*(?:Z|\+00:00)?": "time",
}
"""What two accounts generate differently: pattern → meaning."""

SERVER_SIDE = frozenset(
    {"resourceVersion", "uid", "creationTimestamp", "time", "generation", "cluster_authority", "__internal"}
)
"""Fields that differ in every cluster, and what Pulumi's engine notes for itself in a provider."""


@dataclass(frozen=True)
class LaptopCopy:
    """One of the two laptops, with a copy of the repository."""

    laptop: Laptop
    repository: Path


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which the images are pinned, so the jobs are part of dev."""
    folder = tmp_path_factory.mktemp("repository")
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith(("laptop/tests", "tests/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for file in folder.glob("Pulumi.*.yaml"):
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        document["config"]["mlops:environment"]["images"] = IMAGES
        file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _kubeconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore KUBECONFIG, which each engine's run sets to its own laptop."""
    monkeypatch.setenv("KUBECONFIG", "")


@pytest.fixture(scope="module")
def halves(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LaptopCopy, LaptopCopy]]:
    homes = [tmp_path_factory.mktemp(name) for name in ("ours", "theirs")]
    with contextlib.ExitStack() as stack:
        found = []
        for home in homes:
            found.append(LaptopCopy(lifecycle.start(home, repository, attached=True), repository))
            stack.callback(lifecycle.stop, home)
        yield found[0], found[1]


@pytest.fixture(scope="module")
def attached(halves: tuple[LaptopCopy, LaptopCopy]) -> Iterator[dict[str, int]]:
    """Ports of the providers of the second laptop."""
    with contextlib.ExitStack() as stack:
        yield {
            package: stack.enter_context(serving(ProviderServicer(provider, package, VERSIONS[package])))
            for package, provider in halves[1].laptop.providers().items()
        }


class Stack:
    """One stack, applied by both engines."""

    def __init__(
        self, folder: Path, root: Path, name: str, cli: Path, laptops: tuple[Laptop, Laptop], ports: dict[str, int]
    ) -> None:
        self.root, self.name = root, name
        self.laptop, self._other = laptops
        self.project = load_project(root)
        settings = yaml.safe_load((root / f"Pulumi.{name}.yaml").read_text(encoding="utf-8"))
        copied = folder / name
        copied.mkdir()
        (copied / "Pulumi.yaml").write_text(f"name: {self.project.name}\nruntime: python\n", encoding="utf-8")
        (copied / f"Pulumi.{name}.yaml").write_text(yaml.safe_dump({"config": settings["config"]}), encoding="utf-8")
        self.cli = InlineCli(cli, folder / "pulumi", copied, ports)
        self.cli.init(name)

    def engine(self) -> Deployment:
        home, incarnation = self.laptop.home, self.laptop.incarnation
        os.environ["KUBECONFIG"] = str(home / "kubeconfig")
        return Deployment(self.root, self.name, self.laptop.providers(), home, incarnation)

    def program(self) -> None:
        """Run the program as the language host does: in its folder, which is first on the path."""
        main = self.project.main
        before, path = Path.cwd(), list(sys.path)
        modules = set(sys.modules)
        os.environ["KUBECONFIG"] = str(self._other.home / "kubeconfig")
        os.chdir(main.parent)
        sys.path.insert(0, str(main.parent))
        try:
            runpy.run_path(str(main), run_name="__main__")
        finally:
            os.chdir(before)
            sys.path[:] = path
            for name in set(sys.modules) - modules:
                if name.partition(".")[0] == "infra":
                    del sys.modules[name]

    def compare(self, result: Result, operation: str, *arguments: str) -> list[str]:
        """Let Pulumi do what the laptop's engine did with this result, and return the differences."""
        if operation == "up":
            finished = self.cli.run("up", self.name, self.program, *arguments)
        else:
            finished = self.cli.operate(operation, self.name, *arguments)
        if finished.code != 0:
            return [finished.output[-6000:]]
        ours, theirs = self.ours(), scrubbed(of_pulumi(self.cli.deployment(self.name)))
        if operation == "refresh":
            a, b = found_by_laptop(result.steps), found_by_pulumi(finished)
        else:
            a, b = steps_of_laptop(result.steps), steps_of_pulumi(finished, {})
        steps = [
            f"step {kind} {urn}: laptop {a[kind, urn]} times, Pulumi {b[kind, urn]} times"
            for kind, urn in sorted(a.keys() | b.keys())
            if a[kind, urn] != b[kind, urn]
        ]
        return [*differences(ours, theirs), *steps]

    def ours(self) -> dict[str, Any]:
        state = self.laptop.home / "state"
        contents = load(state / f"{self.name}.json", self.project.name, self.name, self.laptop.incarnation, Seal(state))
        found: dict[str, Any] = scrubbed(of_laptop(contents))
        return found


def scrubbed(value: Any) -> Any:
    """Return a value with what an account generates replaced."""
    if isinstance(value, dict):
        return {scrubbed(key): scrubbed(item) for key, item in value.items() if key not in SERVER_SIDE}
    if isinstance(value, list):
        return [scrubbed(item) for item in value]
    if isinstance(value, str):
        for pattern in GENERATED:
            value = re.sub(pattern, "#", value)
    return value


STACKS = {"account": "infra/bootstrap", "dev": ".", "staging": ".", "prod": "."}


def test_both_engines_apply_refresh_and_destroy_the_reference_stacks_alike(
    halves: tuple[LaptopCopy, LaptopCopy], attached: dict[str, int], pulumi_cli: FoundEngine, tmp_path: Path
) -> None:
    ours, theirs = halves
    stacks = {}
    for name, folder in STACKS.items():
        stack = Stack(tmp_path, ours.repository / folder, name, pulumi_cli.path, (ours.laptop, theirs.laptop), attached)
        stacks[name] = stack
        found = stack.compare(stack.engine().up(), "up")
        assert not found, f"{name}:\n" + "\n".join(found)
        assert len(stack.ours()) >= 60, name
        found = stack.compare(stack.engine().up(), "up")
        assert not found, f"{name}, unchanged:\n" + "\n".join(found)
        found = stack.compare(stack.engine().refresh(), "refresh")
        assert not found, f"{name}, refreshed:\n" + "\n".join(found)
    found = stacks["dev"].compare(stacks["dev"].engine().destroy(), "destroy")
    assert not found, "dev, destroyed:\n" + "\n".join(found)
