from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from laptop.engine.deployment import Deployment, Result
from laptop.engine.resource_steps import ResourceStep
from laptop.engine.resources import Contents
from laptop.engine.sealing import Seal
from laptop.engine.state_file import load
from laptop.tests.engine.fake_cloud import FakeCloud, FakeProvider

PREAMBLE = """
import pulumi
from pulumi import Alias, ComponentResource, CustomResource, Output, ResourceOptions as Opts

class _Fake(CustomResource):
    TYPE = ""
    arn: pulumi.Output[str]
    name: pulumi.Output[str]
    size: pulumi.Output[int]
    secret: pulumi.Output[str]
    tags: pulumi.Output[dict]
    def __init__(self, logical, /, opts=None, **props):
        super().__init__(self.TYPE, logical, {"arn": None, "name": None, **props}, opts)

class Thing(_Fake):
    TYPE = "fake:index:Thing"

class Named(_Fake):
    TYPE = "fake:index:Named"

class Paper(_Fake):
    TYPE = "fake:index:Paper"

class Group(ComponentResource):
    def __init__(self, name, opts=None, type_="fake:index:Group"):
        super().__init__(type_, name, None, opts)
"""


@dataclass
class CollectedProgress:
    """Collects the events of a run."""

    steps: list[ResourceStep] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def began(self, step: ResourceStep) -> None:
        pass

    def ended(self, step: ResourceStep) -> None:
        self.steps.append(step)

    def noticed(self, text: str) -> None:
        self.notices.append(text)


@dataclass
class Site:
    """A project, a laptop home and a fake cloud in one folder."""

    folder: Path
    provider: FakeProvider
    progress: CollectedProgress = field(default_factory=CollectedProgress)

    @property
    def root(self) -> Path:
        return self.folder / "project"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def cloud(self) -> FakeCloud:
        return self.provider.cloud

    def write(self, program: str, config: str = "config: {}\n", stack: str = "dev") -> None:
        main = self.root / "infra" / "__main__.py"
        main.parent.mkdir(parents=True, exist_ok=True)
        (self.root / "Pulumi.yaml").write_text("name: shop\nruntime: python\nmain: infra\n")
        (self.root / f"Pulumi.{stack}.yaml").write_text(config)
        main.write_text(PREAMBLE + textwrap.dedent(program))

    def deployment(self, stack: str = "dev", **options: Any) -> Deployment:
        options.setdefault("progress", self.progress)
        return Deployment(self.root, stack, {"fake": self.provider}, self.home, **options)

    def up(self, program: str | None = None, **options: Any) -> Result:
        if program is not None:
            self.write(program)
        self.provider.calls.clear()
        return self.deployment(**options).up()

    def preview(self, program: str | None = None, **options: Any) -> Result:
        if program is not None:
            self.write(program)
        self.provider.calls.clear()
        return self.deployment(**options).preview()

    def state(self, stack: str = "dev") -> Contents:
        folder = self.home / "state"
        return load(folder / f"{stack}.json", "shop", stack, "", Seal(folder))

    def names(self) -> list[str]:
        return sorted(thing["name"].rpartition("-")[0] or thing["name"] for thing in self.cloud.things().values())

    def verbs(self) -> list[tuple[str, str]]:
        return list(self.provider.calls)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, FakeProvider(FakeCloud(tmp_path / "cloud.json")))


def kinds(result: Result) -> dict[str, str]:
    """Map the name of each resource and component to its step."""
    return {step.name: step.kind.value for step in result.steps}
