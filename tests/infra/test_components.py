"""Conventions that every component follows."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from pathlib import Path

import pulumi
import pytest

import infra.bootstrap
import infra.components
from tests.infra.recording import Recording, record

MODULES = [
    importlib.import_module(f"{package.__name__}.{module.name}")
    for package in (infra.components, infra.bootstrap)
    for module in pkgutil.iter_modules(package.__path__)
    if module.name != "__main__"
]
COMPONENTS = sorted(
    {
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, pulumi.ComponentResource)
        and value.__module__ == module.__name__
    },
    key=lambda component: component.__qualname__,
)


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda component: component.__name__)
def test_a_component_takes_a_name_keyword_only_args_and_opts(component: type) -> None:
    *_, args, opts = inspect.signature(component).parameters.values()
    assert (opts.name, opts.default, opts.annotation) == ("opts", None, "pulumi.ResourceOptions | None")
    args_type = getattr(inspect.getmodule(component), str(args.annotation))
    assert args_type.__name__.endswith("Args")
    assert all(field.kw_only for field in dataclasses.fields(args_type))


def test_there_are_components_to_check() -> None:
    assert {"Bucket", "Endpoint", "Ingestion", "TrainingJob", "CanaryCheck", "ImageRepositories"} <= {
        component.__name__ for component in COMPONENTS
    }


def test_every_component_registers_its_outputs(graphs: dict[str, Recording], bootstrap: Recording) -> None:
    for recording in (*graphs.values(), bootstrap):
        components = {resource.urn for resource in recording.resources if resource.package == "mlops"}
        assert components == set(recording.registered) & components


def test_a_component_passes_options_on_and_stays_the_parent_of_its_children(project: Path, tmp_path: Path) -> None:
    program = tmp_path / "options.py"
    program.write_text(
        "import pulumi\n"
        "from infra.components.namespace import Namespace, NamespaceArgs\n"
        "from infra.scopes import load_environment\n"
        "from pipelines.declarations.project import Project\n"
        "owner = pulumi.ComponentResource('test:index:Owner', 'owner')\n"
        "args = NamespaceArgs(environment=load_environment(Project.find()))\n"
        "Namespace('namespace', args, pulumi.ResourceOptions(parent=owner))\n"
    )
    recording = record(project, "dev", program=program)
    owner = recording.one("test:index:Owner", "owner")
    component = recording.one("mlops:cluster:Namespace", "namespace")
    assert component.parent == owner.urn
    children = [resource for resource in recording.resources if resource.package == "kubernetes"]
    assert {resource.parent for resource in children} == {component.urn}
