from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.github.repository import Repository
from pipelines.promotion.review import contract_changes, refuse_broken
from tests.pipelines.promotion.world import DATASET, commit_all
from tests.sample_project import PROJECT


@pytest.fixture
def contracts(clone: Path) -> Path:
    """The clone with the example's contract; the file."""
    path = clone / "data-contracts" / f"{DATASET}.odcs.yaml"
    path.parent.mkdir()
    path.write_text((PROJECT / "data-contracts" / path.name).read_text())
    commit_all(clone, "a contract")
    return path


def changes(clone: Path, base: str) -> dict[str, list[str]]:
    repository = Repository(clone)
    return contract_changes(repository, base, repository.changed_files(base, "HEAD"))


def test_a_contract_that_takes_a_promise_back_says_which(clone: Path, contracts: Path) -> None:
    base = Repository(clone).head()
    contracts.write_text(contracts.read_text().replace("maximum: 120", "maximum: 130"))
    commit_all(clone, "weaker")
    assert changes(clone, base) == {f"data-contracts/{contracts.name}": ["age: maximum was 120, is 130"]}


def test_a_contract_may_go_when_it_was_deprecated_before_and_not_in_the_same_change(
    clone: Path, contracts: Path
) -> None:
    active = Repository(clone).head()
    contracts.write_text(contracts.read_text().replace("status: active", "status: deprecated"))
    commit_all(clone, "deprecated")
    deprecated = Repository(clone).head()
    contracts.unlink()
    commit_all(clone, "gone")
    name = f"data-contracts/{contracts.name}"
    assert (changes(clone, deprecated), changes(clone, active)) == ({name: []}, {name: ["the contract is gone"]})


def test_a_contract_that_promises_more_breaks_nothing(clone: Path, contracts: Path) -> None:
    base = Repository(clone).head()
    contracts.write_text(contracts.read_text().replace("maximum: 120", "maximum: 110"))
    (clone / "data-contracts" / "README.md").write_text("no contract")
    commit_all(clone, "stronger")
    assert changes(clone, base) == {f"data-contracts/{contracts.name}": []}


def test_a_contract_that_is_renamed_is_gone_for_those_who_read_it(clone: Path, contracts: Path) -> None:
    base = Repository(clone).head()
    contracts.rename(contracts.with_name("patients.odcs.yaml"))
    commit_all(clone, "renamed")
    found = changes(clone, base)
    assert found == {
        f"data-contracts/{contracts.name}": ["the contract is gone"],
        "data-contracts/patients.odcs.yaml": [],
    }


def test_a_contract_that_is_wrong_is_an_error_and_one_that_was_wrong_before_breaks_nothing(
    clone: Path, contracts: Path
) -> None:
    base, good = Repository(clone).head(), contracts.read_text()
    contracts.write_text("kind: no contract\n")
    wrong = commit_all(clone, "wrong")
    with pytest.raises(MlopsError, match=contracts.name):
        changes(clone, base)
    contracts.write_text(good.replace("maximum: 120", "maximum: 130"))
    commit_all(clone, "right again")
    assert changes(clone, wrong) == {f"data-contracts/{contracts.name}": []}


def test_contracts_that_break_are_refused_with_all_that_they_take_and_others_are_not() -> None:
    refuse_broken({"a.odcs.yaml": []})
    with pytest.raises(MlopsError) as caught:
        refuse_broken({"a.odcs.yaml": ["one", "two"], "b.odcs.yaml": [], "c.odcs.yaml": ["three"]})
    assert caught.value.what == "a data contract breaks: a.odcs.yaml: one; two; c.odcs.yaml: three"
    assert caught.value.fix == (
        "keep the promise, or start a new dataset beside it, to which its consumers move in their own time; "
        "a contract may go when `status: deprecated` was merged before"
    )


def test_a_base_that_git_does_not_know_is_an_error_and_not_a_contract_that_is_new(clone: Path, contracts: Path) -> None:
    with pytest.raises(MlopsError, match="rev-parse"):
        contract_changes(Repository(clone), "e" * 40, [f"data-contracts/{contracts.name}"])
