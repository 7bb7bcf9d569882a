"""Project: the models, contracts and environments of a repository, checked against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import Column, Contract
from pipelines.declarations.documents import Key, dotted, parse_yaml, read, read_bytes
from pipelines.declarations.environment import StackFile
from pipelines.declarations.errors import DeclarationError, MlopsError, Problem
from pipelines.declarations.inference_logging import MOST_GROUPS, lists_groups
from pipelines.declarations.model import TARGET_TYPES, Model, Task
from pipelines.declarations.names import PREDICTIONS_SUFFIX
from pipelines.declarations.predictions_contract import is_predictions, predictions_contract
from pipelines.declarations.release import Release
from pipelines.declarations.repository_root import PROGRAM, find_root


@dataclass(frozen=True)
class Project:
    """Repository based on this template.

    Attributes:
        root: folder with `Pulumi.yaml`.
    """

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """Find the project that contains `start`, by default the working directory.

        In a project inside it, such as `infra/bootstrap`, this is the outer one; the search ends at a git repository.

        Raises:
            MlopsError: neither the folder nor any parent has a `Pulumi.yaml`.
        """
        return cls(find_root(start))

    @property
    def name(self) -> str:
        """The project's name in `Pulumi.yaml`, the first part of every physical name.

        Raises:
            MlopsError: the file has no name.
        """
        program = self._program()
        if not isinstance(program.get("name"), str):
            raise MlopsError(
                f"{self.root / PROGRAM}: expected a text at name, found none", fix=f"write `name: …` in {PROGRAM}"
            )
        return str(program["name"])

    @property
    def backend(self) -> str | None:
        """URL of the Pulumi state that `Pulumi.yaml` names; None if it names none.

        Raises:
            MlopsError: the file is not valid YAML, or the URL is not a text.
        """
        backend = self._program().get("backend")
        url = backend.get("url") if isinstance(backend, dict) else backend
        if url is not None and (not isinstance(url, str) or backend is url):
            raise MlopsError(
                f"{self.root / PROGRAM}: expected a text at backend.url, found {backend!r}",
                fix=f"write `backend: {{url: …}}` in {PROGRAM}",
            )
        return url

    def _program(self) -> dict[str, object]:
        """Return the content of `Pulumi.yaml`; empty if it is not an object.

        Raises:
            MlopsError: it is not valid YAML, or environments are configured elsewhere than in the files that gates
                judge and that approvers own.
        """
        file = self.root / PROGRAM
        program = parse_yaml(read_bytes(file), file)[0]
        if not isinstance(program, dict):
            return {}
        defaults = program.get("config")
        names = ("environment", f"{program.get('name')}:environment", "mlops:environment")
        found = [key for key in names if isinstance(defaults, dict) and key in defaults]
        found += ["config"] if isinstance(defaults, str) else []  # the former name of stackConfigDir
        found += ["stackConfigDir"] if "stackConfigDir" in program else []
        found += [
            name for name in ("Pulumi.json", "Pulumi.yml") if (self.root / name).exists()
        ]  # Pulumi reads one file
        if found:
            raise MlopsError(
                f"{file}: expected environments to be configured in Pulumi.<environment>.yaml only, found {found[0]}",
                fix="remove it",
            )
        return program

    @property
    def models_folder(self) -> Path:
        """Folder of the models."""
        return self.root / "models"

    @property
    def contracts_folder(self) -> Path:
        """Folder of the data contracts."""
        return self.root / "data-contracts"

    def samples(self, dataset: str) -> list[Path]:
        """Return the sample files of a dataset, sorted."""
        return sorted((self.contracts_folder / "samples").glob(f"{dataset}.*"))

    def model_file(self, model: str) -> Path:
        """Return the path of a model's declaration."""
        return self.models_folder / model / "model.yaml"

    def release_file(self, model: str, environment: str) -> Path:
        """Return the path of a model's release file for an environment."""
        return self.models_folder / model / "releases" / f"{environment}.yaml"

    def contract_file(self, dataset: str) -> Path:
        """Return the path of a dataset's contract."""
        return self.contracts_folder / f"{dataset}.odcs.yaml"

    def stack_file(self, environment: str) -> Path:
        """Return the path of an environment's configuration."""
        return self.root / f"Pulumi.{environment}.yaml"

    @cached_property
    def model_names(self) -> tuple[str, ...]:
        """Names of the models: folders in `models/` with a `model.yaml`."""
        return tuple(sorted(path.parent.name for path in self.models_folder.glob("*/model.yaml")))

    @cached_property
    def dataset_names(self) -> tuple[str, ...]:
        """Names of the datasets: files in `data-contracts/`."""
        return tuple(sorted(p.name.removesuffix(".odcs.yaml") for p in self.contracts_folder.glob("*.odcs.yaml")))

    @cached_property
    def environments(self) -> tuple[str, ...]:
        """Names of the environments in the order of promotion.

        Raises:
            DeclarationError: an environment promotes from an unknown one, there is a cycle, or two are first.
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
                cycle = sorted(set(before) - set(order))
                raise DeclarationError(
                    [Problem(self.stack_file(n), self._line(n), key, "no cycle", "a cycle") for n in cycle]
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
        """Read the configuration of an environment.

        Raises:
            MlopsError: the environment does not exist.
            DeclarationError: its file is not valid.
        """
        path = self.stack_file(environment)
        if not path.is_file():
            names = (p.name.split(".")[1] for p in sorted(self.root.glob("Pulumi.*.yaml")))
            raise MlopsError(
                f"unknown environment {environment!r}: {path.name} does not exist",
                fix=f"use one of the environments: {', '.join(names) or 'none yet'}",
            )
        return read(path, StackFile)

    def check_trains(self, environment: str) -> None:
        """Check that data is ingested and models are trained in an environment.

        Raises:
            MlopsError: they are not, or the environment does not exist.
        """
        if not self.stack(environment).config.environment.trains:
            first = self.environments[0]
            raise MlopsError(
                f"{environment} ingests no data and trains no model: expected {first}, found {environment}",
                fix=f"--env {first}",
            )

    def check_disposable(self, environment: str) -> None:
        """Check that an environment may be removed together with its data.

        Raises:
            MlopsError: it may not, or it does not exist.
        """
        if not self.stack(environment).config.environment.disposable:
            raise MlopsError(
                f"{environment} is protected: expected `disposable: true` in {self.stack_file(environment).name}, "
                "found `disposable: false`",
                fix="set it in a pull request, and follow docs/platform-engineer.md#remove-an-environment",
            )

    def ingested(self, environment: str) -> tuple[str, ...]:
        """Return the datasets that are ingested in an environment.

        That is every dataset where models are trained, and elsewhere the labels of models.

        Raises:
            MlopsError: the environment does not exist, or a declaration is not valid.
        """
        if self.stack(environment).config.environment.trains:
            return tuple(self.dataset_names)
        sources = [self.model(name).monitoring for name in self.model_names]
        labels = {each.labels.dataset for each in sources if each.enabled and each.labels is not None}
        return tuple(name for name in self.dataset_names if name in labels)

    def predicting(self, dataset: str) -> tuple[str, ...]:
        """Return the models that may predict versions of a dataset by batch.

        Raises:
            MlopsError: a model is not valid.
        """
        models = ((name, self.model(name)) for name in self.model_names)
        return tuple(name for name, model in models if dataset in model.predicted_datasets)

    def check_ingests(self, environment: str, dataset: str) -> None:
        """Check that a dataset is ingested in an environment.

        Raises:
            MlopsError: it is not, or the environment does not exist.
        """
        if dataset not in self.ingested(environment):
            first = self.environments[0]
            raise MlopsError(
                f"{environment} does not ingest {dataset}: expected {first}, which ingests all data, or a dataset of "
                "labels that a model names",
                fix=f"--env {first}",
            )

    def check_maintains(self, environment: str, dataset: str) -> Contract:
        """Check that an environment maintains the table of a dataset, or of a model's predictions.

        Returns:
            The contract of the table.

        Raises:
            MlopsError: it does not, or the environment does not exist.
        """
        contract = self.dataset_contract(dataset)
        if not is_predictions(contract):
            self.check_ingests(environment, dataset)
        elif self.release(dataset.removesuffix(PREDICTIONS_SUFFIX), environment).bundle is None:
            model = dataset.removesuffix(PREDICTIONS_SUFFIX)
            raise MlopsError(
                f"{environment} does not maintain {dataset}: expected a release of {model} there, found none",
                fix=f"release {model} in {environment}, or name an environment that has a release of it",
            )
        return contract

    def model(self, name: str) -> Model:
        """Read a model's declaration and check it against its contract.

        Raises:
            MlopsError: the model does not exist.
            DeclarationError: its file is not valid, or names an unknown contract or column.
        """
        path = self.model_file(name)
        if not path.is_file():
            raise MlopsError(
                f"unknown model {name!r}: {path.relative_to(self.root)} does not exist",
                fix=f"use one of {', '.join(self.model_names) or 'none yet'}, or run `mlops new model {name}`",
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
        problems += self._label_problems(path, model, lines)
        problems += _protected_problems(path, model, columns, lines)
        problems += _optional_problems(path, model, columns, lines)
        problems += self._batch_problems(path, model, lines)
        problems += [
            Problem(path, lines.get(key), dotted(key), expected, found, fix)
            for key, expected, found, fix in _misfits(model, {n: c.logical_type for n, c in columns.items()})
        ]
        if problems:
            raise DeclarationError(problems)
        return model

    def _label_problems(self, path: Path, model: Model, lines: Mapping[Key, int]) -> list[Problem]:
        """Check the source of labels against its contract."""
        source = model.monitoring.labels
        if source is None:
            return []
        at: Key = ("monitoring", "labels")
        if not self.contract_file(source.dataset).is_file():
            known = ", ".join(self.dataset_names) or "none yet"
            key = (*at, "dataset")
            return [Problem(path, lines.get(key), dotted(key), f"one of {known}", repr(source.dataset))]
        columns = self.contract(source.dataset).columns
        named = {"id": source.id, "label": source.label or model.target, "row": source.row, "time": source.time}
        target = self.contract(model.contract).columns.get(model.target)
        fitting: dict[str, tuple[str, ...]] = {"row": ("integer",)}
        if target is not None:
            fitting["label"] = _label_types(model.task, target.logical_type)
        problems = []
        for name, column in named.items():
            key = (*at, name)
            line = lines.get(key, lines.get(at))
            if column is None:
                continue
            if column not in columns:
                expected = f"a column of {source.dataset} ({', '.join(columns)})"
                problems.append(Problem(path, line, dotted(key), expected, repr(column)))
            elif (kind := columns[column].logical_type) not in fitting.get(name, (kind,)):
                expected = f"a column of type {' or '.join(fitting[name])}"
                if name == "label":
                    expected += f", as the target {model.target!r}"
                problems.append(Problem(path, line, dotted(key), expected, f"{column!r}, a {kind}"))
        return problems

    def _batch_problems(self, path: Path, model: Model, lines: Mapping[Key, int]) -> list[Problem]:
        """Check the datasets that may be predicted by batch against their contracts."""
        problems = []
        for index, dataset in enumerate(model.batch.datasets):
            key: Key = ("batch", "datasets", index)
            if not self.contract_file(dataset).is_file():
                known = ", ".join(self.dataset_names) or "none yet"
                problems.append(Problem(path, lines.get(key), dotted(key), f"one of {known}", repr(dataset)))
                continue
            columns = self.contract(dataset).columns
            if lacks := [name for name in model.features if name not in columns]:
                expected = f"a dataset with the features {', '.join(model.features)}"
                found = f"{dataset!r} without {', '.join(lacks)}"
                problems.append(Problem(path, lines.get(key), dotted(key), expected, found))
        return problems

    def dataset_contract(self, dataset: str) -> Contract:
        """Return the contract of a dataset, or of the batch predictions of a model.

        Raises:
            MlopsError: there is neither.
            DeclarationError: a declaration is not valid.
        """
        model = dataset.removesuffix(PREDICTIONS_SUFFIX)
        if model != dataset and model in self.model_names:
            declared = self.model(model)
            return predictions_contract(declared, self.contract(declared.contract))
        return self.contract(dataset)

    def contract(self, dataset: str) -> Contract:
        """Read the contract of a dataset.

        Raises:
            MlopsError: the contract does not exist.
            DeclarationError: its file is not valid.
        """
        path = self.contract_file(dataset)
        if not path.is_file():
            raise MlopsError(
                f"unknown dataset {dataset!r}: {path.relative_to(self.root)} does not exist",
                fix=f"use one of the datasets: {', '.join(self.dataset_names) or 'none yet'}",
            )
        contract = read(path, Contract)
        model = dataset.removesuffix(PREDICTIONS_SUFFIX)
        if model != dataset and model in self.model_names:
            fix = f"rename the dataset: {dataset} has the batch predictions of the model {model}"
            raise DeclarationError(
                [Problem(path, None, "name", "a name that does not belong to the predictions of a model", dataset, fix)]
            )
        if contract.name != dataset:
            _, lines = parse_yaml(read_bytes(path), path)
            expected = f"{dataset!r}, the file's name"
            raise DeclarationError([Problem(path, lines.get(("name",)), "name", expected, repr(contract.name))])
        return contract

    def release(self, model: str, environment: str) -> Release:
        """Read the release of a model for an environment.

        Raises:
            DeclarationError: the file is missing or not valid, or names another model or environment.
        """
        path = self.release_file(model, environment)
        if not path.exists() and not path.is_symlink():
            fix = f"create it with `model: {model}`, `environment: {environment}`, `bundle: null` and `replaces: null`"
            raise DeclarationError(
                [Problem(path, None, "", "a release file for each environment", "no such file", fix)]
            )
        for part in (path, path.parent, path.parent.parent):
            if part.is_symlink():
                fix = "replace it by what it leads to"
                raise DeclarationError([Problem(part, None, "", "a file or folder", "a symbolic link", fix)])
        release = read(path, Release)
        _, lines = parse_yaml(read_bytes(path), path)
        problems = [
            Problem(path, lines.get((key,)), key, f"{expected!r}, as in the path", repr(found))
            for key, expected, found in (
                ("model", model, release.model),
                ("environment", environment, release.environment),
            )
            if expected != found
        ]
        if problems:
            raise DeclarationError(problems)
        return release


def _misfits(model: Model, types: Mapping[str, str]) -> Iterator[tuple[Key, str, str, str]]:
    """Yield each use of a column that its type does not allow: key, what was expected, what was found, and the fix.

    Args:
        model: the declaration.
        types: column → logical type. Unknown columns are not looked at.
    """
    fitting = TARGET_TYPES[model.task]
    if (kind := types.get(model.target)) is not None and kind not in fitting:
        fix = "choose another target or task"
        yield (
            ("target",),
            f"a column of type {' or '.join(fitting)} for {model.task}",
            f"{model.target!r}, a {kind}",
            fix,
        )
    for index, column in enumerate(model.features):
        if (kind := types.get(column)) in ("date", "timestamp"):
            fix = "add a column with a number derived from it to the dataset"
            yield ("features", index), "a number, boolean or text column", f"{column!r}, a {kind}", fix
    for index, part in enumerate(model.slices):
        kind = types.get(part.column)
        if kind is None:
            continue
        if part.equals is None and kind not in ("integer", "number"):
            yield ("slices", index, "column"), "a column of numbers, for a range", f"{part.column!r}, a {kind}", ""
        elif part.equals is not None and not isinstance(part.equals, _COMPARED.get(kind, ())):
            expected = f"a value of {part.column}, of type {kind}"
            yield ("slices", index, "equals"), expected, repr(part.equals), ""
        elif isinstance(part.equals, bool) and kind != "boolean":
            yield ("slices", index, "equals"), f"a value of {part.column}, of type {kind}", repr(part.equals), ""


def _label_types(task: Task, target: str) -> tuple[str, ...]:
    """Return the types of a label that a prediction of the target can be compared with."""
    if task == "classification" and target != "string":
        return ("integer", "boolean")  # booleans are 0 and 1
    return TARGET_TYPES["regression"] if task == "regression" else ("string",)


_LIST_GROUPS = "list the values in the contract, or protect a column that has groups, such as ten years of age"


def _optional_problems(
    path: Path, model: Model, columns: Mapping[str, Column], lines: Mapping[Key, int]
) -> Iterator[Problem]:
    """Yield the features that a request cannot leave out, although the model lists them as optional."""
    optional = model.serving.optional_features
    known = [name for name in model.features if name in columns]
    numbers = [name for name in known if columns[name].logical_type != "string"]
    last = numbers[len(numbers) - sum(name in optional for name in numbers) :]
    for index, name in enumerate(optional):
        key: Key = ("serving", "optional_features", index)
        if name not in known:
            continue
        if columns[name].required or columns[name].primary_key:
            expected, found = f"a column of {model.contract} that may be missing", f"{name!r}, which is required"
            yield Problem(path, lines.get(key), dotted(key), expected, found)
        elif name in numbers and name not in last:
            expected, found = "the last numbers of features", f"{name!r} before {numbers[-1]!r}"
            yield Problem(path, lines.get(key), dotted(key), expected, found, "move it to the end of features")


def _protected_problems(
    path: Path, model: Model, columns: Mapping[str, Column], lines: Mapping[Key, int]
) -> Iterator[Problem]:
    """Yield a problem for each personal attribute without listed groups: names of groups appear in reports."""
    for index, name in enumerate(model.protected):
        column = columns.get(name)
        if column is not None and is_personal(column) and not lists_groups(column):
            key: Key = ("protected", index)
            expected = f"a column whose contract lists at most {MOST_GROUPS} values, as {name!r} is personal"
            yield Problem(path, lines.get(key), dotted(key), expected, "no such list", _LIST_GROUPS)


_COMPARED: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int, float),
    "number": (int, float),
    "boolean": (bool,),
}
"""Type of a column → types of the values that a slice can compare it with. Dates cannot be compared."""


def render_release(release: Release) -> str:
    """Render the text of a release file."""
    body = yaml.safe_dump(release.model_dump(mode="json"), sort_keys=False, default_flow_style=False, width=120)
    return "# yaml-language-server: $schema=../../../pipelines/declarations/schemas/release.schema.json\n" + body
