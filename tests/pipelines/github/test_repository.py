from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.declarations.digests import digest_of_bytes, digest_of_files, digest_of_folder
from pipelines.declarations.errors import MlopsError
from pipelines.github import committing
from pipelines.github.committing import commit_onto, fetch, put_back
from pipelines.github.repository import Repository
from tests.pipelines.promotion.world import commit_all, git


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


def test_a_commit_is_on_main_when_main_holds_it(clone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    repository = Repository(clone)
    first = repository.head()
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "not pushed")
    assert (repository.is_on_main(first), repository.is_on_main(repository.head())) == (True, False)
    capfd.readouterr()
    assert not repository.is_on_main("e" * 40), "nobody knows that commit"
    assert capfd.readouterr() == ("", ""), "and git does not talk in between"
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
    with pytest.raises(MlopsError) as caught:
        Repository(clone).last_change("nothing")
    assert (caught.value.what, caught.value.fix) == ("nothing is not committed", "commit it first")


def test_a_file_is_there_or_not_in_a_commit_whatever_the_working_tree_says(clone: Path) -> None:
    first = Repository(clone).head()
    (clone / "m").mkdir()
    (clone / "m" / "new").write_text("x")
    second = commit_all(clone, "more")
    (clone / "README.md").unlink()
    within = Repository(clone / "m")
    for repository in (Repository(clone), within):
        assert [repository.has_file(first, path) for path in ("README.md", "m/new")] == [True, False]
        assert [repository.has_file(second, path) for path in ("README.md", "m/new", "new")] == [True, True, False]
        assert repository.file_at(second, "m/new") == b"x"
        assert not repository.has_file(second, "-d"), "which is a file's name, and no option"
    with pytest.raises(MlopsError):
        within.has_file("e" * 40, "README.md")


def test_a_commit_names_everything_that_it_holds_and_stands_on(clone: Path) -> None:
    first = Repository(clone).head()
    git(clone, "checkout", "--quiet", "-b", "feature")
    (clone / "more").write_text("x")
    second = commit_all(clone, "more")
    git(clone, "checkout", "--quiet", "main")
    git(clone, "merge", "--quiet", "--no-ff", "--message", "the merge", "feature")
    repository = Repository(clone)
    assert repository.parents("HEAD") == [first, second]
    assert repository.parents(second) == [first] and repository.parents(first) == []
    assert repository.tree("HEAD") == repository.tree(second) == git(clone, "rev-parse", "HEAD^{tree}")
    assert repository.tree(first) != repository.tree(second)
    for name in ("nowhere", "--all"):
        with pytest.raises(MlopsError):
            repository.parents(name)
        with pytest.raises(MlopsError):
            repository.tree(name)


def test_why_git_failed_is_told_in_its_words_or_by_its_status(clone: Path) -> None:
    repository = Repository(clone)
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "later")
    with pytest.raises(MlopsError) as caught:
        repository.run("merge-base", "--is-ancestor", "HEAD", "HEAD~1")
    assert caught.value.what == "git merge-base --is-ancestor HEAD HEAD~1: status 1"
    with pytest.raises(MlopsError) as caught:
        repository.run("cat-file", "blob", "\udcff")
    assert caught.value.what.endswith(": fatal: Not a valid object name \ufffd")
    with pytest.raises(MlopsError) as caught:
        committing.git(clone, "merge-base", "--is-ancestor", "HEAD", "HEAD~1")
    assert caught.value.what == "git merge-base --is-ancestor: status 1"
    with pytest.raises(MlopsError) as caught:
        committing.git(clone, "cat-file", "blob", "\udcff")
    assert caught.value.what == "git cat-file blob: fatal: Not a valid object name \ufffd"


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


def test_caches_and_hidden_files_are_no_part_of_a_folder_and_others_may_be_left_out(clone: Path) -> None:
    folder = clone / "m"
    for name in (
        "train.py",
        "модель/ü",
        ".hidden",
        "a/.git-x/y",
        "__pycache__/x.pyc",
        "a/releases/dev.yaml",
        "a/b",
        "a\tb",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    git(clone, "add", "--force", "--all")
    commit_all(clone, "a folder")
    listed = {name: digest_of_bytes(name.encode()) for name in ("train.py", "модель/ü", "a/b", "a\tb")}
    digest = Repository(clone).digest_of_folder_at
    assert digest("HEAD", "m", without=("releases",)) == digest_of_files(listed)
    more = {"a/releases/dev.yaml": digest_of_bytes(b"a/releases/dev.yaml")}
    assert digest("HEAD", "m") == digest_of_files(listed | more) == digest_of_folder(folder)


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
    with pytest.raises(MlopsError, match=r"m/data in [0-9a-f]{12} is a link, not a file") as caught:
        Repository(clone).digest_of_folder_at(Repository(clone).head(), "m")
    assert caught.value.fix == "put the content there itself"


def test_a_folder_or_a_commit_that_does_not_exist_is_an_error(clone: Path) -> None:
    for commit, folder in (("HEAD", "nowhere"), ("e" * 40, "m"), ("HEAD", "README.md")):
        with pytest.raises(MlopsError):
            Repository(clone).digest_of_folder_at(commit, folder)


# --- the token --------------------------------------------------------------------------------------------------------


def test_the_token_goes_to_the_server_that_it_is_for_by_gits_environment_alone(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GH_TOKEN", "secret")
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://git.example.org")
    basic = base64.b64encode(b"x-access-token:secret").decode()
    assert committing.authorization() == {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "http.https://git.example.org/.extraheader",
        "GIT_CONFIG_VALUE_0": f"AUTHORIZATION: basic {basic}",
        "GIT_TERMINAL_PROMPT": "0",
    }

    def header(address: str) -> str:
        return committing.git(clone, "config", "--get-urlmatch", "http.extraheader", address)

    assert header("https://git.example.org/o/r") == f"AUTHORIZATION: basic {basic}"
    with pytest.raises(MlopsError, match="git config --get-urlmatch: status 1"):
        header("https://elsewhere.example.org/o/r")
    assert "AUTHORIZATION" not in (clone / ".git" / "config").read_text()


@pytest.mark.parametrize("missing", ["GH_TOKEN", "GITHUB_SERVER_URL"])
def test_without_a_token_or_a_server_to_send_it_to_git_asks_as_it_does(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name in ("GH_TOKEN", "GITHUB_SERVER_URL"):
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv(missing)
    assert committing.authorization() == {}
    monkeypatch.setenv(missing, "")
    assert committing.authorization() == {}


def test_what_git_prints_is_text_even_where_it_is_none(clone: Path) -> None:
    blob = committing.git(clone, "hash-object", "-w", "--stdin", given=b"  b\xe4d \n\n")
    assert committing.git(clone, "cat-file", "blob", blob) == "b\ufffdd"
    assert committing.git(clone, "hash-object", "--stdin") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", "no input"


# --- committing -------------------------------------------------------------------------------------------------------


def test_a_commit_changes_the_named_files_only_and_leaves_the_clone_as_it_is(clone: Path) -> None:
    (clone / "README.md").write_text("work in progress\n")
    (clone / "untracked").write_text("mine")
    (clone / "kept").write_text("as it is")
    git(clone, "add", "kept")
    git(clone, "commit", "--quiet", "--message", "another file")
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
    git(other, "tag", "v1")
    git(other, "push", "--quiet", "origin", "v1", "HEAD:refs/heads/another")
    assert fetch(clone, "main") == newest == Repository(clone).commit("origin/main")
    refs = git(clone, "for-each-ref", "--format=%(refname)").splitlines()
    assert refs == ["refs/heads/main", "refs/remotes/origin/main"], "neither tags nor branches that nobody asked for"
    assert fetch(clone, "release/dev/m") is None
    git(other, "push", "--quiet", "--force", "origin", "HEAD~1:main")
    assert fetch(clone, "main") == Repository(clone).head(), "also what was pushed by force"


def test_files_are_put_back_as_the_commit_has_them_whatever_they_are_called(clone: Path) -> None:
    (clone / "-f").write_text("a file")
    git(clone, "add", "--", "-f")
    git(clone, "commit", "--quiet", "--message", "a name like an option")
    for name in ("README.md", "-f"):
        (clone / name).write_text("changed, and staged")
        git(clone, "add", "--", name)
    (clone / "-n").write_text("new")
    git(clone, "add", "--", "-n")
    put_back(clone, ["README.md", "-f", "-n"])
    assert git(clone, "status", "--porcelain") == ""
    assert ((clone / "README.md").read_text(), (clone / "-f").read_text()) == ("hello\n", "a file")


def test_files_are_put_back_as_the_commit_has_them(clone: Path) -> None:
    (clone / "README.md").write_text("changed")
    (clone / "new").write_text("new")
    (clone / "added").write_text("new")
    git(clone, "add", "added")
    (clone / "other").write_text("stays")
    put_back(clone, ["README.md", "new", "added", "never-there"])
    assert git(clone, "status", "--porcelain") == "?? other"
