"""Declarations of a repository are checked against each other."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.declarations.documents import parse
from pipelines.declarations.errors import DeclarationError, MlopsError
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release
from pipelines.declarations.validation import validate_project
from tests.sample_project import ROOT, copy_as_forked

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(copy_as_forked(tmp_path))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_declarations_of_this_repository_are_valid() -> None:
    project = Project(ROOT)
    assert project.environments
    for model in project.model_names:
        declared = project.model(model)
        assert set(declared.features) <= set(project.contract(declared.contract).columns)
        for environment in project.environments:
            assert project.release(model, environment).model == model


def test_the_project_is_found_from_any_folder_inside_it(project: Project) -> None:
    assert Project.find(project.root / "models" / "diabetes-progression").root == project.root.resolve()


def test_inside_the_bootstrap_the_project_around_it_is_found(project: Project) -> None:
    inner = project.root / "infra" / "bootstrap"
    inner.mkdir(parents=True, exist_ok=True)
    (inner / "Pulumi.yaml").touch()
    assert Project.find(inner).root == project.root.resolve()


def test_a_clone_inside_another_project_is_found_as_itself(project: Project) -> None:
    clone = project.root / "clones" / "mine"
    (clone / ".git").mkdir(parents=True)
    (clone / "Pulumi.yaml").touch()
    (clone / "models").mkdir()
    assert Project.find(clone / "models").root == clone.resolve()


def test_outside_a_project_the_error_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(MlopsError, match=r"no Pulumi\.yaml in .* or any folder above"):
        Project.find(tmp_path)


LABELS = """# yaml-language-server: $schema=../pipelines/declarations/schemas/contract.schema.json
apiVersion: v3.1.0
kind: DataContract
id: urn:mlops:contract:outcomes
name: outcomes
version: 1.0.0
status: active
schema:
  - name: outcomes
    physicalType: table
    properties:
      - {name: id, logicalType: string, required: true, primaryKey: true}
      - {name: text, logicalType: string}
      - {name: flag, logicalType: boolean}
      - {name: count, logicalType: integer}
      - {name: size, logicalType: number}
"""

GATES = """gates:
  thresholds: [{metric: accuracy, minimum: 0.5}]
  champion: {metric: log_loss, maximum_regression: 0.05}
  latency: {p99_ms: 20}
  soak: {requests: 1, seconds: 1}
"""


@pytest.mark.parametrize(
    ("target", "label", "found"),
    [
        ("regression", "size", ""),
        ("regression", "count", ""),
        (
            "regression",
            "text",
            "expected a column of type integer or number, as the target 'progression', found 'text', a string",
        ),
        ("regression", "flag", "found 'flag', a boolean"),
        ("integer", "count", ""),
        ("integer", "flag", ""),
        ("integer", "text", "expected a column of type integer or boolean"),
        ("integer", "size", "found 'size', a number"),
        ("string", "text", ""),
        ("string", "flag", "expected a column of type string, as the target 'sex', found 'flag', a boolean"),
    ],
)
def test_a_label_has_a_type_that_predictions_can_be_compared_with(
    project: Project, target: str, label: str, found: str
) -> None:
    (project.root / "data-contracts" / "outcomes.odcs.yaml").write_text(LABELS)
    model = project.root / "models" / "diabetes-progression" / "model.yaml"
    model.write_text(f"{model.read_text()}monitoring: {{labels: {{dataset: outcomes, id: id, label: {label}}}}}\n")
    if target != "regression":
        contract = project.root / "data-contracts" / "diabetes-patients.odcs.yaml"
        column = f"- {{name: sex, logicalType: {target}}}\n      - name: bmi"
        contract.write_text(re.sub(r"(?s)- name: sex\n.*?- name: bmi", column, contract.read_text()))
        text = re.sub(r"(?ms)^gates:.*?(?=^serving:)", GATES, model.read_text()).replace(
            "task: regression", "task: classification"
        )
        model.write_text(text.replace("target: progression", "target: sex").replace("age, sex, bmi", "age, bmi"))
    if not found:
        assert project.model("diabetes-progression").monitoring.labels is not None
        return
    with pytest.raises(DeclarationError) as error:
        project.model("diabetes-progression")
    assert len(error.value.problems) == 1
    assert found in str(error.value)


def test_the_row_of_a_label_is_a_number(project: Project) -> None:
    (project.root / "data-contracts" / "outcomes.odcs.yaml").write_text(LABELS)
    model = project.root / "models" / "diabetes-progression" / "model.yaml"
    labels = "{dataset: outcomes, id: id, label: size, row: text}"
    model.write_text(f"{model.read_text()}monitoring: {{labels: {labels}}}\n")
    with pytest.raises(
        DeclarationError, match=r"monitoring\.labels\.row: expected a column of type integer, found 'text'"
    ):
        project.model("diabetes-progression")


def test_an_environment_is_added_by_adding_its_file(project: Project) -> None:
    text = (project.root / "Pulumi.prod.yaml").read_text().replace("promotes_from: staging", "promotes_from: prod")
    (project.root / "Pulumi.canary.yaml").write_text(text)
    assert project.environments == ("dev", "staging", "prod", "canary")


def test_a_cycle_of_environments_is_rejected(project: Project) -> None:
    change(project.root / "Pulumi.staging.yaml", "promotes_from: dev", "promotes_from: prod")
    with pytest.raises(DeclarationError, match="expected no cycle, found a cycle"):
        _ = project.environments


def test_promoting_from_an_unknown_environment_is_rejected_with_the_line(project: Project) -> None:
    change(project.root / "Pulumi.staging.yaml", "promotes_from: dev", "promotes_from: qa")
    with pytest.raises(DeclarationError, match=r"Pulumi\.staging\.yaml:\d+: .*one of dev, prod, staging, found 'qa'"):
        _ = project.environments


def test_only_the_first_environment_trains(project: Project) -> None:
    change(project.root / "Pulumi.prod.yaml", "trains: false", "trains: true")
    with pytest.raises(DeclarationError, match="trains: true if, and only if, promotes_from is null"):
        project.stack("prod")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p.stack("qa"), "one of the environments: dev, prod, staging"),
        (lambda p: p.model("churn"), "mlops new model churn"),
        (lambda p: p.contract("patients"), "one of the datasets: diabetes-patients"),
    ],
)
def test_an_unknown_name_is_an_error_that_lists_the_known_ones(
    project: Project, call: Callable[[Project], object], words: str
) -> None:
    with pytest.raises(MlopsError, match=words):
        call(project)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "target: progression",
            "target: outcome",
            r"target: expected a column of diabetes-patients .* found 'outcome'",
        ),
        (
            "contract: diabetes-patients",
            "contract: patients",
            "contract: expected one of diabetes-patients, found 'patients'",
        ),
        ("[age, sex, bmi,", "[age, sex, weight,", r"features\[2\]: .* found 'weight'"),
        (
            "protected: [sex]",
            "protected: [gender]",
            r"gates\.fairness\[0\]\.attribute: expected an attribute of protected \(gender\)",
        ),
        ("features: [age,", "features: [progression, age,", r"features\[0\]: expected a column other than"),
        ("features: [age,", "features: [age, age,", r"features\[1\]: expected each feature once, found 'age' twice"),
        ("name: diabetes-progression", "name: diabetes", "expected 'diabetes-progression', the folder's name"),
        ("metric: r2", "metric: auc", r":29: gates\.thresholds\[1\]\.metric: expected a metric of regression"),
        ("metric: mae", "metric: recall", r":32: gates\.fairness\[0\]\.metric: .* found 'recall'"),
        ("below: 40", "equals: x", r":14: slices\[0\]\.equals: expected a value of age, of type integer, found 'x'"),
        ("below: 40", "equals: true", r"slices\[0\]\.equals: .* found True"),
        (
            "alpha: 1.0",
            "alpha: .inf",
            r":22: training\.parameters\.alpha: expected a number that JSON holds .* found inf",
        ),
        ("alpha: 1.0", "a: {b: [1, 9007199254740992]}", r"parameters\.a\.b\[1\]: .* found 9007199254740992"),
        ("requests: 20", f"requests: {10**400}", r"gates\.soak\.requests: .* found a larger one"),
        ("column: bmi", "column: weight", r"slices\[2\]\.column: .* found 'weight'"),
    ],
)
def test_a_model_that_does_not_match_its_contract_or_task_is_rejected(
    project: Project, old: str, new: str, words: str
) -> None:
    change(project.model_file("diabetes-progression"), old, new)
    with pytest.raises(DeclarationError, match=words):
        project.model("diabetes-progression")


def test_a_protected_attribute_that_is_personal_must_have_listed_groups(project: Project) -> None:
    """Its groups appear in evaluations, model cards and reports."""
    contract = project.contract_file("diabetes-patients")
    text = contract.read_text()
    assert "validValues: [1, 2]" in text
    contract.write_text(text.replace("validValues: [1, 2]", f"validValues: {list(range(1, 52))}"))
    with pytest.raises(DeclarationError, match=r"protected\[0\]: expected a column whose contract lists at most 50"):
        project.model("diabetes-progression")
    contract.write_text(text.replace("classification: protected", "classification: internal"))
    assert project.model("diabetes-progression").protected == ("sex",)


def test_a_feature_that_requests_may_leave_out_may_be_missing_and_is_one_of_the_last(project: Project) -> None:
    declaration, contract = project.model_file("diabetes-progression"), project.contract_file("diabetes-patients")
    *_, before, last = project.model("diabetes-progression").features

    def optional(name: str) -> Project:
        text = declaration.read_text().split("\n  optional_features:")[0].rstrip("\n")
        declaration.write_text(f"{text}\n  optional_features: [{name}]\n")
        return Project(project.root)

    assert declaration.read_text().rstrip().rpartition("\n")[2].startswith("    "), "serving is the last key"
    with pytest.raises(DeclarationError, match=r"optional_features\[0\]: expected a feature of the model, found 'x'"):
        optional("x").model("diabetes-progression")
    with pytest.raises(DeclarationError, match=rf"expected a column .* may be missing, found '{last}', .* is required"):
        optional(last).model("diabetes-progression")
    contract.write_text(re.sub(r"^( +)required: true\n", "", contract.read_text(), flags=re.MULTILINE))
    with pytest.raises(DeclarationError, match=f"expected the last numbers of features, found '{before}'"):
        optional(before).model("diabetes-progression")
    found = optional(last).model("diabetes-progression")
    assert found.serving.optional_features == (last,)
    assert optional(f"{last}, {before}").model("diabetes-progression").serving.optional_features == (last, before)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            "string",
            r"target: expected a column of type integer or number for regression, found 'progression', a string",
        ),
        ("date", r"target: expected a column of type integer or number for regression, found 'progression', a date"),
    ],
)
def test_a_target_of_a_type_that_the_task_cannot_predict_is_rejected(project: Project, kind: str, words: str) -> None:
    contract = project.contract_file("diabetes-patients")
    head, column, rest = contract.read_text().partition("      - name: progression\n")
    rest = f"        logicalType: {kind}\n" + rest[rest.index("        description") :]
    contract.write_text(head + column + rest.replace("        logicalTypeOptions: {minimum: 0, maximum: 500}\n", "", 1))
    with pytest.raises(DeclarationError, match=words):
        project.model("diabetes-progression")


@pytest.mark.parametrize(
    ("column", "selects", "found"),
    [
        ("bmi", "below: 3", None),
        ("name", "below: 3", "a column of numbers"),
        ("name", "equals: a", None),
        ("seen", "below: 3", "a column of numbers"),
        ("seen", 'equals: "2026-01-31"', "a value of seen, of type date"),
        ("smoker", "equals: true", None),
        ("smoker", "equals: 1", "a value of smoker, of type boolean"),
    ],
)
def test_a_slice_compares_a_column_with_values_of_its_type(
    project: Project, column: str, selects: str, found: str | None
) -> None:
    more = "".join(
        f"      - {{name: {name}, logicalType: {kind}}}\n"
        for name, kind in (("name", "string"), ("seen", "date"), ("smoker", "boolean"))
    )
    change(project.contract_file("diabetes-patients"), "    properties:\n", f"    properties:\n{more}")
    change(project.model_file("diabetes-progression"), "column: age, below: 40", f"column: {column}, {selects}")
    if found is None:
        project.model("diabetes-progression")
        return
    with pytest.raises(DeclarationError, match=found):
        project.model("diabetes-progression")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, r"model.yaml:18: training.entrypoint: expected a module in models/.*, found no file train.py"),
        ("def fit(data): ...", r"model.yaml:18: training.entrypoint: expected a function in train.py, found 'train'"),
        ("x = 1\ndef train(data:", r"train.py:2: expected Python code, found '\(' was never closed"),
        ("\0", "expected Python code"),
        ("(" * 10_000, "expected Python code"),
        ("def train(data): ...", None),
        ("if True:\n    train = print", None),
        ("from .other import train", None),
        ("from .other import *", None),
    ],
)
def test_a_valid_model_has_its_entry_point(project: Project, code: str | None, words: str | None) -> None:
    file = project.models_folder / "diabetes-progression" / "train.py"
    if code is None:
        file.unlink()
    else:
        file.write_text(code)
    if words is None:
        validate_project(project)
        return
    with pytest.raises(MlopsError, match=words):
        validate_project(project)


def test_a_contract_without_the_target_column_is_rejected(project: Project) -> None:
    change(project.contract_file("diabetes-patients"), "- name: progression", "- name: outcome")
    with pytest.raises(DeclarationError, match="found 'progression'"):
        project.model("diabetes-progression")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "relationships: [{to: visits.id}]",
            r"relationships\[0\]: expected a dataset of this repository: one of .*'visits'",
        ),
        (
            "relationships: [{to: diabetes-patients.no}]",
            r"expected a column of diabetes-patients: one of .*, found 'no'",
        ),
        (
            "relationships: [{to: diabetes-patients.bmi}]",
            r"expected a column of the type integer, as age, found bmi of number",
        ),
        ("relationships: [{to: diabetes-patients.sex}]", None),
        ("relationships: [{to: visits.id, customProperties: [{property: enforced, value: false}]}]", None),
        (
            'quality: [{type: sql, query: "SELECT max({x}) FROM {object}", mustBe: 1}]',
            r"quality\[0\].query: expected .*found {x}",
        ),
        ('quality: [{type: sql, query: "SELECT max({property}) FROM {diabetes-patients}", mustBe: 1}]', None),
    ],
)
def test_what_a_contract_refers_to_must_be_there(project: Project, line: str, words: str | None) -> None:
    change(project.contract_file("diabetes-patients"), "      - name: age\n", f"      - name: age\n        {line}\n")
    if words is None:
        validate_project(project)
        return
    with pytest.raises(MlopsError, match=r"diabetes-patients.odcs.yaml:\d+: .*" + words):
        validate_project(project)


def test_a_model_with_a_missing_contract_is_rejected(project: Project) -> None:
    project.contract_file("diabetes-patients").unlink()
    with pytest.raises(DeclarationError, match="expected one of none yet"):
        project.model("diabetes-progression")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("mustBe: 0}", "mustBee: 0}", "mustBee"),
        ("primaryKey: true", "primaryKey: false", "at least one property with primaryKey: true, found none"),
        (
            "{minimum: 0, maximum: 120}",
            '{minimum: "young"}',
            r"logicalTypeOptions\.minimum: expected a number, found 'young'",
        ),
        (
            "{minimum: 10, maximum: 80}",
            "{pattern: abc}",
            "expected pattern on columns of type string only, found it on number",
        ),
        (
            "logicalType: integer\n        physicalType: int\n",
            "logicalType: string\n        physicalType: int\n",
            r"patients\.odcs\.yaml:\d+: schema\[0\]\.properties\[\d+\]\.physicalType: "
            r"expected one of string, varchar, text, varchar\(n\), char\(n\) \(logicalType is string\), found 'int'",
        ),
        ("metric: rowCount", "metric: freshness", "'nullValues', 'missingValues'"),
        ("apiVersion: v3.1.0", "apiVersion: v2.2.2", "'v3.1.0'"),
        (
            "- name: bmi",
            "- name: age",
            r"properties\[3\]\.name: expected a name that no other property has, found 'age'",
        ),
        (
            "{metric: invalidValues, arguments: {validValues: [1, 2]}, mustBe: 0}",
            "{metric: invalidValues, mustBe: 0}",
            "validValues",
        ),
    ],
)
def test_a_contract_that_cannot_be_enforced_is_rejected(project: Project, old: str, new: str, words: str) -> None:
    change(project.contract_file("diabetes-patients"), old, new)
    with pytest.raises(DeclarationError, match=words):
        project.contract("diabetes-patients")


def test_a_release_is_read_back_as_it_was_written(project: Project) -> None:
    release = Release(model="diabetes-progression", environment="dev", bundle=DIGEST, replaces=None)
    path = project.release_file("diabetes-progression", "dev")
    path.write_text(render_release(release))
    assert project.release("diabetes-progression", "dev") == release


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("bundle: sha256:abc\nreplaces: null", "text that matches"),
        (f"bundle: {DIGEST}\nreplaces: {DIGEST}", "bundle and replaces to differ"),
        (f"bundle: {DIGEST}", "replaces: expected this key"),
    ],
)
def test_an_inconsistent_release_is_rejected(body: str, words: str) -> None:
    text = f"model: diabetes-progression\nenvironment: dev\n{body}\n"
    with pytest.raises(DeclarationError, match=words):
        parse(text, Release, Path("dev.yaml"))


def test_a_release_in_the_wrong_folder_is_rejected(project: Project) -> None:
    shutil.copy(
        project.release_file("diabetes-progression", "prod"), project.release_file("diabetes-progression", "staging")
    )
    with pytest.raises(DeclarationError, match="expected 'staging', as in the path, found 'prod'"):
        project.release("diabetes-progression", "staging")


def test_the_program_names_the_state_or_none(tmp_path: Path) -> None:
    file = tmp_path / "Pulumi.yaml"
    for text, expected in (
        ("name: x\n", None),
        ("name: x\nbackend: {}\n", None),
        ("backend: {url: s3://x}\n", "s3://x"),
    ):
        file.write_text(text)
        assert Project(tmp_path).backend == expected
    for text in ("backend: s3://x\n", "backend: {url: 1}\n", "backend: [s3://x]\n"):
        file.write_text(text)
        with pytest.raises(MlopsError, match=r"Pulumi\.yaml: expected a text at backend\.url, found "):
            _ = Project(tmp_path).backend


def test_a_project_without_a_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text("runtime: python\n")
    with pytest.raises(MlopsError, match=r"Pulumi\.yaml: expected a text at name"):
        _ = Project(tmp_path).name


@pytest.mark.parametrize(
    "text",
    [
        "name: mlops\nstackConfigDir: elsewhere\n",
        "name: mlops\nconfig: elsewhere\n",
        "name: mlops\nconfig: {'mlops:environment': {value: {}}}\n",
        "name: mlops\nconfig: {environment: {value: {}}}\n",
    ],
)
def test_environments_are_configured_only_where_gates_and_approvers_look(tmp_path: Path, text: str) -> None:
    (tmp_path / "Pulumi.yaml").write_text(text)
    for name in ("name", "backend"):
        with pytest.raises(MlopsError, match=r"expected environments to be configured in Pulumi\.<environment>\.yaml"):
            getattr(Project(tmp_path), name)
    (tmp_path / "Pulumi.yaml").write_text("name: mlops\nconfig: {'pulumi:tags': {value: {}}}\n")
    assert Project(tmp_path).name == "mlops"
    (tmp_path / "Pulumi.json").write_text("{}")  # Pulumi takes the first by name
    with pytest.raises(MlopsError, match=r"found Pulumi\.json"):
        _ = Project(tmp_path).name
