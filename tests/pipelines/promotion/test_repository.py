from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.declarations.digests import digest_of_folder
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.committing import commit_onto, fetch, put_back
from pipelines.promotion.repository import Repository
from pipelines.promotion.review import contract_changes
from tests.forked import PROJECT
from tests.pipelines.promotion.world import DATASET, commit_all, git


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of a bare origin with one commit."""
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    root = tmp_path / "clone"
    git(tmp_path, "init", "--quiet", "--initial-branch=main", "clone")
    git(root, "remote", "add", "origin", str(tmp_path / "origin.git"))
    (root / "README.md").write_text("hello\n")
    commit_all(root, "start")
    return root


def status(root: Path) -> str:
    return git(root, "status", "--porcelain", "--branch")


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_change_names_its_files_renamed_ones_under_both_names(clone: Path) -> None:
    base = Repository(clone).head()
    git(clone, "mv", "README.md", "README.txt")
    (clone / "a b\n\"c'").write_text("x")
    commit_all(clone, "change")
    assert Repository(clone).changed_files(base, "HEAD") == ("README.md", "README.txt", "a b\n\"c'")


def test_what_main_did_meanwhile_is_no_part_of_a_change(clone: Path) -> None:
    git(clone, "checkout", "--quiet", "-b", "feature")
    (clone / "feature").write_text("x")
    git(clone, "add", ".")
    git(clone, "commit", "--quiet", "--message", "feature")
    git(clone, "checkout", "--quiet", "main")
    (clone / "other").write_text("x")
    commit_all(clone, "main goes on")
    assert Repository(clone).changed_files("main", "feature") == ("feature",)


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes there")
def test_a_name_that_is_no_text_is_spelt_out_and_stops_nothing(clone: Path) -> None:
    base = Repository(clone).head()
    blob = git(clone, "hash-object", "-w", "--stdin")
    entry = b"100644 " + blob.encode() + b"\tb\xe4d\n"
    subprocess.run(["git", "update-index", "--index-info"], cwd=clone, input=entry, check=True)
    git(clone, "commit", "--quiet", "--message", "a name in latin 1")
    assert Repository(clone).changed_files(base, "HEAD") == ("b\\xe4d",)


@pytest.mark.parametrize("name", ["nowhere", "--output=/tmp/x", "-h", "HEAD~99", ""])
def test_a_commit_that_does_not_exist_is_an_error_and_never_an_option(clone: Path, name: str) -> None:
    with pytest.raises(MlopsError, match="git rev-parse"):
        Repository(clone).commit(name)
    with pytest.raises(MlopsError):
        Repository(clone).changed_files(name, "HEAD")


def test_a_commit_is_on_main_when_main_holds_it(clone: Path) -> None:
    repository = Repository(clone)
    first = repository.head()
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "not pushed")
    assert (repository.is_on_main(first), repository.is_on_main(repository.head())) == (True, False)
    assert not repository.is_on_main("e" * 40), "nobody knows that commit"
    git(clone, "push", "--quiet", "origin", "HEAD:main")
    git(clone, "fetch", "--quiet", "origin")
    assert repository.is_on_main(repository.head())


def test_where_main_is_not_known_nothing_is_said_to_be_on_it(clone: Path) -> None:
    git(clone, "update-ref", "-d", "refs/remotes/origin/main")
    with pytest.raises(MlopsError, match="origin/main"):
        Repository(clone).is_on_main("HEAD")


def test_the_last_change_of_a_file_is_the_merge_that_brought_it(clone: Path) -> None:
    git(clone, "checkout", "--quiet", "-b", "feature")
    (clone / "README.md").write_text("changed\n")
    git(clone, "commit", "--quiet", "--all", "--message", "in the branch")
    git(clone, "checkout", "--quiet", "main")
    git(clone, "merge", "--quiet", "--no-ff", "--message", "the merge", "feature")
    merge = Repository(clone).head()
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "later")
    assert Repository(clone).last_change("README.md") == merge
    with pytest.raises(MlopsError, match="nothing is not committed"):
        Repository(clone).last_change("nothing")


# --- the digest of a folder in a commit -------------------------------------------------------------------------------

names = st.text(alphabet="ab.é ", min_size=1, max_size=4).filter(
    lambda name: name.strip(". ") == name.strip() and name not in (".", "..") and name == name.strip()
)
hidden = st.sampled_from([".hidden", "__pycache__", "releases", "train.py", "модель"])
paths = st.lists(names | hidden, min_size=1, max_size=3).map("/".join)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(paths, st.binary(max_size=20), max_size=6))
def test_a_folder_in_a_commit_has_the_digest_that_it_has_when_it_is_checked_out(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("clone")
    git(root, "init", "--quiet")
    (root / "m").mkdir()
    (root / "m" / "model.yaml").write_text("name: m\n")
    for path, content in files.items():
        place = root / "m" / path
        if any(parent.is_file() for parent in place.parents) or place.is_dir():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    git(root, "add", "--force", "--all")
    git(root, "commit", "--quiet", "--message", "x")
    repository = Repository(root)
    for without in ((), ("releases",)):
        assert repository.digest_of_folder_at("HEAD", "m", without=without) == digest_of_folder(
            root / "m", without=without
        )


def test_executable_files_count_as_any_other_and_changes_that_are_not_committed_do_not(clone: Path) -> None:
    folder = clone / "m"
    folder.mkdir()
    (folder / "train.py").write_text("x")
    commit_all(clone, "one")
    plain = Repository(clone).digest_of_folder_at("HEAD", "m")
    (folder / "train.py").chmod(0o755)
    commit_all(clone, "two")
    (folder / "train.py").write_text("y")
    assert Repository(clone).digest_of_folder_at("HEAD", "m") == plain != digest_of_folder(folder)


def test_a_link_in_a_folder_is_refused_for_the_commit_does_not_hold_what_it_leads_to(clone: Path) -> None:
    (clone / "m").mkdir()
    (clone / "m" / "data").symlink_to("/etc/hostname")
    commit_all(clone, "a link")
    with pytest.raises(MlopsError, match=r"m/data in [0-9a-f]{12} is a link, not a file"):
        Repository(clone).digest_of_folder_at(Repository(clone).head(), "m")


def test_a_folder_or_a_commit_that_does_not_exist_is_an_error(clone: Path) -> None:
    for commit, folder in (("HEAD", "nowhere"), ("e" * 40, "m"), ("HEAD", "README.md")):
        with pytest.raises(MlopsError):
            Repository(clone).digest_of_folder_at(commit, folder)


# --- committing -------------------------------------------------------------------------------------------------------


def test_a_commit_changes_the_named_files_only_and_leaves_the_clone_as_it_is(clone: Path) -> None:
    (clone / "README.md").write_text("work in progress\n")
    (clone / "untracked").write_text("mine")
    git(clone, "add", "README.md")
    before = status(clone)
    base = Repository(clone).head()
    made = commit_onto(
        clone, base, {"deep/er/new.yaml": b"a: 1\n", "README.md": b"committed\n"}, "Say so\n\nin words\n"
    )
    repository = Repository(clone)
    assert repository.parents(made) == [base]
    assert repository.changed_files(base, made) == ("README.md", "deep/er/new.yaml")
    assert repository.file_at(made, "README.md") == b"committed\n"
    assert git(clone, "log", "-1", "--format=%an <%ae> %s", made) == "mlops <mlops@users.noreply.github.com> Say so"
    assert (status(clone), repository.head()) == (before, base)
    assert (clone / "README.md").read_text() == "work in progress\n"


def test_nothing_is_committed_where_nothing_changes(clone: Path) -> None:
    base = Repository(clone).head()
    assert commit_onto(clone, base, {"README.md": b"hello\n"}, "nothing") == base


def test_no_identity_of_a_person_is_needed(clone: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    git(clone, "config", "user.useConfigOnly", "true")
    git(clone, "config", "commit.gpgsign", "true")
    assert commit_onto(clone, "HEAD", {"x": b"1"}, "by the tool") != Repository(clone).head()


def test_fetching_finds_what_the_origin_has_now(clone: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(tmp_path / "origin.git"), "other")
    (other / "new").write_text("x")
    newest = commit_all(other, "somebody else")
    assert fetch(clone, "main") == newest == Repository(clone).commit("origin/main")
    assert fetch(clone, "release/dev/m") is None
    git(other, "push", "--quiet", "--force", "origin", "HEAD~1:main")
    assert fetch(clone, "main") == Repository(clone).head(), "also what was pushed by force"


def test_files_are_put_back_as_the_commit_has_them(clone: Path) -> None:
    (clone / "README.md").write_text("changed")
    (clone / "new").write_text("new")
    (clone / "added").write_text("new")
    git(clone, "add", "added")
    (clone / "other").write_text("stays")
    put_back(clone, ["README.md", "new", "added", "never-there"])
    assert git(clone, "status", "--porcelain") == "?? other"


# --- contracts --------------------------------------------------------------------------------------------------------


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


def test_a_base_that_git_does_not_know_is_an_error_and_not_a_contract_that_is_new(clone: Path, contracts: Path) -> None:
    with pytest.raises(MlopsError, match="rev-parse"):
        contract_changes(Repository(clone), "e" * 40, [f"data-contracts/{contracts.name}"])
