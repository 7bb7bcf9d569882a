"""The repository as one thing: which models, contracts and environments it declares, checked against each other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from pipelines.declarations.contract import Contract
from pipelines.declarations.documents import dotted, parse_yaml, read, read_bytes
from pipelines.declarations.environment import StackFile
from pipelines.declarations.errors import DeclarationError, MlopsError, Problem
from pipelines.declarations.model import Model
from pipelines.declarations.release import Release

PROGRAM = "Pulumi.yaml"


@dataclass(frozen=True)
class Project:
    """A repository made from this template.

    Attributes:
        root: the folder that holds `Pulumi.yaml`.
    """

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """The project that `start` (the working directory) lies in.

        Raises:
            MlopsError: neither the folder nor any above it holds a `Pulumi.yaml`.
        """
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / PROGRAM).is_file():
                return cls(folder)
        raise MlopsError(
            f"no {PROGRAM} in {here} or any folder above it", fix="run this inside a clone of the repository"
        )

    @property
    def name(self) -> str:
        """The project's name in `Pulumi.yaml`, the first part of every physical name.

        Raises:
            MlopsError: the file has no name.
        """
        file = self.root / PROGRAM
        program = parse_yaml(read_bytes(file), file)[0]
        if not isinstance(program, dict) or not isinstance(program.get("name"), str):
            raise MlopsError(f"{file}: expected a text at name, found none", fix=f"write `name: …` in {PROGRAM}")
        return str(program["name"])

    @property
    def models_folder(self) -> Path:
        """Where each model has its folder."""
        return self.root / "models"

    @property
    def contracts_folder(self) -> Path:
        """Where the data contracts are."""
        return self.root / "data-contracts"

    def model_file(self, model: str) -> Path:
        """The declaration of a model."""
        return self.models_folder / model / "model.yaml"

    def release_file(self, model: str, environment: str) -> Path:
        """What an environment runs for a model."""
        return self.models_folder / model / "releases" / f"{environment}.yaml"

    def contract_file(self, dataset: str) -> Path:
        """The contract of a dataset."""
        return self.contracts_folder / f"{dataset}.odcs.yaml"

    def stack_file(self, environment: str) -> Path:
        """The configuration of an environment."""
        return self.root / f"Pulumi.{environment}.yaml"

    @cached_property
    def model_names(self) -> tuple[str, ...]:
        """The models: folders in `models/` with a `model.yaml`."""
        return tuple(sorted(path.parent.name for path in self.models_folder.glob("*/model.yaml")))

    @cached_property
    def dataset_names(self) -> tuple[str, ...]:
        """The datasets: files in `data-contracts/`."""
        return tuple(sorted(p.name.removesuffix(".odcs.yaml") for p in self.contracts_folder.glob("*.odcs.yaml")))

    @cached_property
    def environments(self) -> tuple[str, ...]:
        """The environments in the order of promotion.

        Raises:
            DeclarationError: an environment promotes from one that does not exist, from itself in a circle, or two
                are first.
        """
        before = {}
        for path in sorted(self.root.glob("Pulumi.*.yaml")):
            name = path.name.removeprefix("Pulumi.").removesuffix(".yaml")
            before[name] = self.stack(name).config.environment.promotes_from
        key = "config.mlops:environment.promotes_from"
        for name, previous in before.items():
            if previous is not None and previous not in before:
                known = ", ".join(sorted(before))
                raise DeclarationError(
                    [Problem(self.stack_file(name), self._line(name), key, f"one of {known}", repr(previous))]
                )
        order: list[str] = []
        while len(order) < len(before):
            ready = [n for n, p in before.items() if n not in order and (p is None or p in order)]
            if not ready:
                circle = sorted(set(before) - set(order))
                raise DeclarationError(
                    [Problem(self.stack_file(n), self._line(n), key, "an order", "a circle") for n in circle]
                )
            order += sorted(ready)
        first = [name for name, previous in before.items() if previous is None]
        if len(first) > 1:
            problems = [
                Problem(self.stack_file(n), self._line(n), key, "one first environment", "several")
                for n in sorted(first)
            ]
            raise DeclarationError(problems)
        return tuple(order)

    def _line(self, environment: str) -> int | None:
        path = self.stack_file(environment)
        _, lines = parse_yaml(read_bytes(path), path)
        return lines.get(("config", "mlops:environment", "promotes_from"))

    def stack(self, environment: str) -> StackFile:
        """The configuration of an environment.

        Raises:
            MlopsError: there is no such environment.
            DeclarationError: its file is wrong.
        """
        path = self.stack_file(environment)
        if not path.is_file():
            names = (p.name.split(".")[1] for p in sorted(self.root.glob("Pulumi.*.yaml")))
            raise MlopsError(
                f"no environment {environment!r}: there is no {path.name}",
                fix=f"the environments are {', '.join(names) or 'none yet'}",
            )
        return read(path, StackFile)

    def model(self, name: str) -> Model:
        """A model's declaration, checked against its contract.

        Raises:
            MlopsError: there is no such model.
            DeclarationError: its file is wrong, or names a contract or columns that do not exist.
        """
        path = self.model_file(name)
        if not path.is_file():
            raise MlopsError(
                f"no model {name!r}: there is no {path.relative_to(self.root)}",
                fix=f"the models are {', '.join(self.model_names) or 'none yet'}; `mlops new model {name}` starts one",
            )
        model = read(path, Model)
        _, lines = parse_yaml(read_bytes(path), path)
        problems = []
        if model.name != name:
            problems.append(
                Problem(path, lines.get(("name",)), "name", f"{name!r}, the folder's name", repr(model.name))
            )
        if not self.contract_file(model.contract).is_file():
            known = ", ".join(self.dataset_names) or "none yet"
            problems.append(
                Problem(path, lines.get(("contract",)), "contract", f"one of {known}", repr(model.contract))
            )
            raise DeclarationError(problems)
        columns = self.contract(model.contract).columns
        named: list[tuple[tuple[str | int, ...], str]] = [(("target",), model.target)]
        named += [(("features", i), c) for i, c in enumerate(model.features)]
        named += [(("protected", i), c) for i, c in enumerate(model.protected)]
        named += [(("slices", i, "column"), s.column) for i, s in enumerate(model.slices)]
        for key, column in named:
            if column not in columns:
                expected = f"a column of {model.contract} ({', '.join(columns)})"
                problems.append(Problem(path, lines.get(key), dotted(key), expected, repr(column)))
        for index, column in enumerate(model.features):
            if column in columns and columns[column].logical_type in ("date", "timestamp"):
                problems.append(
                    Problem(
                        path,
                        lines.get(("features", index)),
                        f"features[{index}]",
                        "a number, boolean or text column",
                        f"{column!r}, a {columns[column].logical_type}",
                        "derive a number from it when the data is collected",
                    )
                )
        if problems:
            raise DeclarationError(problems)
        return model

    def contract(self, dataset: str) -> Contract:
        """The contract of a dataset.

        Raises:
            MlopsError: there is no such contract.
            DeclarationError: its file is wrong.
        """
        path = self.contract_file(dataset)
        if not path.is_file():
            raise MlopsError(
                f"no contract for {dataset!r}: there is no {path.relative_to(self.root)}",
                fix=f"the datasets are {', '.join(self.dataset_names) or 'none yet'}",
            )
        contract = read(path, Contract)
        if contract.name != dataset:
            _, lines = parse_yaml(read_bytes(path), path)
            expected = f"{dataset!r}, the file's name"
            raise DeclarationError([Problem(path, lines.get(("name",)), "name", expected, repr(contract.name))])
        return contract

    def release(self, model: str, environment: str) -> Release:
        """What an environment is to run for a model.

        Raises:
            DeclarationError: the file is missing or wrong, or speaks of another model or environment.
        """
        path = self.release_file(model, environment)
        release = read(path, Release)
        _, lines = parse_yaml(read_bytes(path), path)
        problems = [
            Problem(path, lines.get((key,)), key, f"{expected!r}, as the path says", repr(found))
            for key, expected, found in (
                ("model", model, release.model),
                ("environment", environment, release.environment),
            )
            if expected != found
        ]
        if problems:
            raise DeclarationError(problems)
        return release


def render_release(release: Release) -> str:
    """The text of a release file."""
    body = yaml.safe_dump(release.model_dump(mode="json"), sort_keys=False, default_flow_style=False, width=120)
    return "# yaml-language-server: $schema=../../../pipelines/declarations/schemas/release.schema.json\n" + body
