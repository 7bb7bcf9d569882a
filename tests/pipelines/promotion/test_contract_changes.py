from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.github.git import Git
from pipelines.promotion.contract_changes import find_contract_changes, refuse_contract_breaks
from tests.clones import commit_all
from tests.pipelines.promotion.promotion_project import DATASET
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
    assert changes(clone, base) == {f"data-contracts/{contracts.name}": ["age: maximum was 120, is 130"]}


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
        "keep the contract compatible, or add a new dataset and move the consumers to it; "
        "to delete a contract, merge `status: deprecated` first"
    )


def test_an_unknown_base_is_an_error(clone: Path, contracts: Path) -> None:
    with pytest.raises(MlopsError, match="rev-parse"):
        find_contract_changes(Git(clone), "e" * 40, [f"data-contracts/{contracts.name}"])
