from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.github.git import Git
from pipelines.promotion.contract_changes import find_contract_changes, judge_contracts, refuse_contract_breaks
from tests.clones import commit_all
from tests.pipelines.promotion.promotion_project import DATASET, MODEL
from tests.sample_project import PROJECT


@pytest.fixture
def contracts(clone: Path) -> Path:
    """Commit the sample contract to the clone and return its path."""
    path = clone / "data-contracts" / f"{DATASET}.odcs.yaml"
    path.parent.mkdir()
    path.write_text((PROJECT / "data-contracts" / path.name).read_text())
    commit_all(clone, "a contract")
    return path


def changes(clone: Path, base: str) -> dict[str, list[str]]:
    repository = Git(clone)
    return find_contract_changes(repository, base, repository.changed_files(base, "HEAD"))


def test_a_weaker_bound_is_a_breaking_change(clone: Path, contracts: Path) -> None:
    base = Git(clone).head()
    contracts.write_text(contracts.read_text().replace("maximum: 120", "maximum: 130"))
    commit_all(clone, "weaker")
    assert changes(clone, base) == {f"data-contracts/{contracts.name}": []}, "no model reads the column"
    contracts.write_text(contracts.read_text().replace("required: true", "required: false", 4))
    commit_all(clone, "optional")
    (found,) = changes(clone, base).values()
    assert found[0] == "age: required was true, is false; needs version 2.0.0"


def test_a_contract_may_be_deleted_once_it_is_deprecated(clone: Path, contracts: Path) -> None:
    active = Git(clone).head()
    contracts.write_text(contracts.read_text().replace("status: active", "status: deprecated"))
    commit_all(clone, "deprecated")
    deprecated = Git(clone).head()
    contracts.unlink()
    commit_all(clone, "gone")
    name = f"data-contracts/{contracts.name}"
    assert (changes(clone, deprecated), changes(clone, active)) == ({name: []}, {name: ["the contract was deleted"]})


def test_a_stricter_bound_is_not_a_breaking_change(clone: Path, contracts: Path) -> None:
    base = Git(clone).head()
    contracts.write_text(contracts.read_text().replace("maximum: 120", "maximum: 110"))
    (clone / "data-contracts" / "README.md").write_text("no contract")
    commit_all(clone, "stronger")
    assert changes(clone, base) == {f"data-contracts/{contracts.name}": []}


def test_a_renamed_contract_counts_as_deleted(clone: Path, contracts: Path) -> None:
    base = Git(clone).head()
    contracts.rename(contracts.with_name("patients.odcs.yaml"))
    commit_all(clone, "renamed")
    found = changes(clone, base)
    assert found == {
        f"data-contracts/{contracts.name}": ["the contract was deleted"],
        "data-contracts/patients.odcs.yaml": [],
    }


def test_an_invalid_contract_is_an_error_unless_it_was_invalid_before(clone: Path, contracts: Path) -> None:
    base, good = Git(clone).head(), contracts.read_text()
    contracts.write_text("kind: no contract\n")
    wrong = commit_all(clone, "wrong")
    with pytest.raises(MlopsError, match=contracts.name):
        changes(clone, base)
    contracts.write_text(good.replace("maximum: 120", "maximum: 130"))
    commit_all(clone, "right again")
    assert changes(clone, wrong) == {f"data-contracts/{contracts.name}": []}


def test_the_error_lists_every_breaking_change() -> None:
    refuse_contract_breaks({"a.odcs.yaml": []})
    with pytest.raises(MlopsError) as caught:
        refuse_contract_breaks({"a.odcs.yaml": ["one", "two"], "b.odcs.yaml": [], "c.odcs.yaml": ["three"]})
    assert caught.value.what == "breaking change of a data contract: a.odcs.yaml: one; two; c.odcs.yaml: three"
    assert caught.value.fix == (
        "keep the contract compatible; or announce the change by the version it names, and train the models "
        "that read the column again; to delete a contract, merge `status: deprecated` first"
    )


def test_an_unknown_base_is_an_error(clone: Path, contracts: Path) -> None:
    with pytest.raises(MlopsError, match="rev-parse"):
        find_contract_changes(Git(clone), "e" * 40, [f"data-contracts/{contracts.name}"])


@pytest.fixture
def model(clone: Path, contracts: Path) -> str:
    """Commit the sample model, which reads the contract, and a release of it; return the commit."""
    folder = clone / "models" / MODEL
    shutil.copytree(PROJECT / "models" / MODEL, folder)
    (folder / "releases" / "dev.yaml").write_text(
        f"model: {MODEL}\nenvironment: dev\nbundle: sha256:{'a' * 64}\nreplaces: null\n"
    )
    return commit_all(clone, "a model")


def edit(contracts: Path, old: str, new: str) -> None:
    text = contracts.read_text()
    assert old in text
    contracts.write_text(text.replace(old, new, 1))


def test_a_wider_feature_needs_a_major_version_and_asks_for_retraining(
    clone: Path, contracts: Path, model: str
) -> None:
    name = f"data-contracts/{contracts.name}"
    edit(contracts, "maximum: 120", "maximum: 130")
    (found,) = judge_contracts(Git(clone), model, []).values()
    assert found.refused == (
        f"age: maximum was 120, is 130 (read by {MODEL}, released to dev); needs version 2.0.0",
    ), "changes that are not committed count"
    edit(contracts, "version: 1.0.0", "version: 1.1.0")
    assert judge_contracts(Git(clone), model, [])[name].refused
    edit(contracts, "version: 1.1.0", "version: 2.0.0")
    found = judge_contracts(Git(clone), model, [])[name]
    assert (found.refused, len(found.announced), found.retrain) == ((), 1, (MODEL,))


@pytest.mark.parametrize("status", ["draft", "proposed"])
def test_a_draft_binds_nobody(clone: Path, contracts: Path, model: str, status: str) -> None:
    edit(contracts, "status: active", f"status: {status}")
    base = commit_all(clone, status)
    edit(contracts, "required: true", "required: false")
    assert changes(clone, base) == {f"data-contracts/{contracts.name}": []}


def test_no_version_announces_a_type_that_the_table_cannot_take_or_an_older_version(
    clone: Path, contracts: Path, model: str
) -> None:
    edit(contracts, "version: 1.0.0", "version: 2.0.0")
    base = commit_all(clone, "two")
    edit(contracts, "version: 2.0.0", "version: 3.0.0")
    edit(contracts, "logicalType: integer\n        physicalType: int\n", "logicalType: number\n")
    (found,) = changes(clone, base).values()
    assert found[0].startswith("age: logicalType was integer, is number")
    assert "needs version" not in found[0]
    edit(contracts, "version: 3.0.0", "version: 1.9.0")
    assert changes(clone, base) == {f"data-contracts/{contracts.name}": ["the dataset: version was 2.0.0, is 1.9.0"]}
