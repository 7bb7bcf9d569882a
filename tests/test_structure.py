"""Structure of the repository: layers import downward only, and nothing imports the laptop."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = [
    {"pipelines.cli"},
    {"pipelines.promotion"},
    {"pipelines.targets"},
    {"pipelines.github"},
    {"pipelines.training_runs"},
    {"pipelines.monitoring"},
    {"pipelines.dataset_catalog"},
    {"pipelines.lineage"},
    {"pipelines.prediction"},
    {"pipelines.training"},
    {"pipelines.serving"},
    {"pipelines.data"},
    {"pipelines.registry", "pipelines.cluster"},
    {"pipelines.declarations", "pipelines.startup"},
]
"""Layers from top to bottom. A package imports only itself and packages of lower layers."""


def package(module: str) -> str:
    return ".".join(module.split(".")[:2])


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import: use an absolute one, which shows its layer"
            yield node.lineno, node.module or ""


def layer_of(module: str) -> int | None:
    return next((n for n, layer in enumerate(LAYERS) if package(module) in layer), None)


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", sources("pipelines"), ids=lambda path: str(path.relative_to(ROOT)))
def test_pipelines_import_only_downward(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    if module == "pipelines.__init__":
        return
    own = layer_of(module)
    assert own is not None, f"{module} belongs to no layer: add its package to LAYERS"
    for line, imported in imports(path):
        assert imported.split(".")[0] not in ("infra", "tests"), f"{path}:{line} imports {imported}"
        if imported.split(".")[0] == "pipelines" and package(imported) != package(module):
            target = layer_of(imported)
            assert target is not None and target > own, f"{path}:{line} imports {imported}, which is not lower"


@pytest.mark.parametrize("path", sources("infra"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_infrastructure_imports_only_declarations(path: Path) -> None:
    for line, imported in imports(path):
        if imported.split(".")[0] == "pipelines":
            assert package(imported) == "pipelines.declarations", f"{path}:{line} imports {imported}"
        assert imported.split(".")[0] != "tests", f"{path}:{line} imports {imported}"


@pytest.mark.parametrize("folder", ["infra", "pipelines", "tests", "models"])
def test_the_product_does_not_refer_to_the_laptop(folder: str) -> None:
    for path in sources(folder):
        for line, imported in imports(path):
            assert imported.split(".")[0] != "laptop", f"{path}:{line} imports {imported}"


def test_the_pulumi_program_does_not_refer_to_an_emulator() -> None:
    for path in sources("infra"):
        assert not re.search(r"moto|127\.0\.0\.1|localhost", path.read_text()), path


@pytest.mark.parametrize("folder", ["tests", "laptop/tests"])
def test_no_test_runs_a_command_inside_the_sample_project(folder: str) -> None:
    """It would find this repository, so the test would fail in a fork that has other declarations."""
    inside = re.compile(r"chdir\(PROJECT\b")
    found = [str(path.relative_to(ROOT)) for path in sources(folder) if inside.search(path.read_text())]
    assert found == [], "use work_in_sample or copy_as_forked"


def test_no_two_modules_or_public_classes_share_a_name() -> None:
    """Gates are left out: a gate's module is called like the gate."""
    places: dict[str, list[str]] = {}
    for folder in ("infra", "pipelines", "laptop"):
        for path in sources(folder):
            name = str(path.relative_to(ROOT))
            if name.startswith(("laptop/tests/", "pipelines/promotion/gates/")) or path.stem.startswith("__"):
                continue
            places.setdefault(path.stem, []).append(name)
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places.setdefault(node.name, []).append(name)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
