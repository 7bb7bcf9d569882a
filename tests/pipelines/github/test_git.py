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
from pipelines.github.git import Git, authorization
from tests.clones import commit_all, git


def status(root: Path) -> str:
    return git(root, "status", "--porcelain", "--branch")


# --- reading ----------------------------------------------------------------------------------------------------------


def test_changed_files_lists_a_renamed_file_under_both_names(clone: Path) -> None:
    base = Git(clone).head()
    git(clone, "mv", "README.md", "README.txt")
    (clone / "a b\n\"c'").write_text("x")
    commit_all(clone, "change")
    assert Git(clone).changed_files(base, "HEAD") == ("README.md", "README.txt", "a b\n\"c'")


def test_changed_files_leaves_out_later_commits_on_the_base(clone: Path) -> None:
    git(clone, "checkout", "--quiet", "-b", "feature")
    (clone / "feature").write_text("x")
    git(clone, "add", ".")
    git(clone, "commit", "--quiet", "--message", "feature")
    git(clone, "checkout", "--quiet", "main")
    (clone / "other").write_text("x")
    commit_all(clone, "a later commit")
    assert Git(clone).changed_files("main", "feature") == ("feature",)


@pytest.mark.skipif(os.name != "posix", reason="paths are bytes on POSIX only")
def test_a_path_that_is_not_utf_8_is_escaped(clone: Path) -> None:
    base = Git(clone).head()
    blob = git(clone, "hash-object", "-w", "--stdin")
    entry = b"100644 " + blob.encode() + b"\tb\xe4d\n"
    subprocess.run(["git", "update-index", "--index-info"], cwd=clone, input=entry, check=True)
    git(clone, "commit", "--quiet", "--message", "a name in latin 1")
    assert Git(clone).changed_files(base, "HEAD") == ("b\\xe4d",)


@pytest.mark.parametrize("name", ["nowhere", "--output=/tmp/x", "-h", "HEAD~99", ""])
def test_an_unknown_commit_is_an_error_and_never_read_as_an_option(clone: Path, name: str) -> None:
    with pytest.raises(MlopsError, match="git rev-parse"):
        Git(clone).resolve(name)
    with pytest.raises(MlopsError):
        Git(clone).changed_files(name, "HEAD")


def test_a_commit_is_on_main_if_the_fetched_main_contains_it(clone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    repository = Git(clone)
    first = repository.head()
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "not pushed")
    assert (repository.is_on_main(first), repository.is_on_main(repository.head())) == (True, False)
    capfd.readouterr()
    assert not repository.is_on_main("e" * 40), "an unknown commit is not on main"
    assert capfd.readouterr() == ("", ""), "git prints nothing"
    git(clone, "push", "--quiet", "origin", "HEAD:main")
    git(clone, "fetch", "--quiet", "origin")
    assert repository.is_on_main(repository.head())


def test_a_tag_named_like_main_is_not_taken_for_main(clone: Path) -> None:
    repository = Git(clone)
    first = repository.head()
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "not reviewed")
    git(clone, "tag", "origin/main")
    assert not repository.is_on_main(repository.head())
    git(clone, "tag", "--force", "origin/main", first)
    git(clone, "push", "--quiet", "origin", "HEAD:refs/heads/main")
    git(clone, "fetch", "--quiet", "origin")
    assert repository.is_on_main(repository.head()), "a tag on an old commit holds up nothing"


def test_is_on_main_fails_if_main_was_never_fetched(clone: Path) -> None:
    git(clone, "update-ref", "-d", "refs/remotes/origin/main")
    with pytest.raises(MlopsError, match="origin/main"):
        Git(clone).is_on_main("HEAD")


def test_the_last_change_of_a_file_is_the_merge_that_brought_it(clone: Path) -> None:
    git(clone, "checkout", "--quiet", "-b", "feature")
    (clone / "README.md").write_text("changed\n")
    git(clone, "commit", "--quiet", "--all", "--message", "in the branch")
    git(clone, "checkout", "--quiet", "main")
    git(clone, "merge", "--quiet", "--no-ff", "--message", "the merge", "feature")
    merge = Git(clone).head()
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "later")
    assert Git(clone).last_change("README.md") == merge
    with pytest.raises(MlopsError) as caught:
        Git(clone).last_change("nothing")
    assert (caught.value.what, caught.value.fix) == ("nothing is not committed", "commit it first")


def test_has_file_looks_at_the_commit_not_at_the_working_tree(clone: Path) -> None:
    first = Git(clone).head()
    (clone / "m").mkdir()
    (clone / "m" / "new").write_text("x")
    second = commit_all(clone, "more")
    (clone / "README.md").unlink()
    within = Git(clone / "m")
    for repository in (Git(clone), within):
        assert [repository.has_file(first, path) for path in ("README.md", "m/new")] == [True, False]
        assert [repository.has_file(second, path) for path in ("README.md", "m/new", "new")] == [True, True, False]
        assert repository.read_file(second, "m/new") == b"x"
        assert not repository.has_file(second, "-d"), "-d is a path here, not an option"
    with pytest.raises(MlopsError):
        within.has_file("e" * 40, "README.md")


def test_commits_without_a_common_ancestor_are_an_error_that_says_what_to_fetch(clone: Path) -> None:
    (clone / "file").write_text("x")
    head = commit_all(clone, "second")
    git(clone, "checkout", "--quiet", "--orphan", "alone")
    git(clone, "commit", "--quiet", "--message", "alone")
    assert Git(clone).find_merge_base("main", "alone") is None
    assert Git(clone).merge_base("main", "main") == head
    with pytest.raises(MlopsError) as caught:
        Git(clone).merge_base("main", "alone")
    assert "fetch --unshallow" in caught.value.fix


def test_a_commit_has_a_tree_and_parents(clone: Path) -> None:
    first = Git(clone).head()
    git(clone, "checkout", "--quiet", "-b", "feature")
    (clone / "more").write_text("x")
    second = commit_all(clone, "more")
    git(clone, "checkout", "--quiet", "main")
    git(clone, "merge", "--quiet", "--no-ff", "--message", "the merge", "feature")
    repository = Git(clone)
    assert repository.parents("HEAD") == [first, second]
    assert repository.parents(second) == [first] and repository.parents(first) == []
    assert repository.tree("HEAD") == repository.tree(second) == git(clone, "rev-parse", "HEAD^{tree}")
    assert repository.tree(first) != repository.tree(second)
    for name in ("nowhere", "--all"):
        with pytest.raises(MlopsError):
            repository.parents(name)
        with pytest.raises(MlopsError):
            repository.tree(name)


def test_an_error_quotes_git_or_its_exit_status(clone: Path) -> None:
    repository = Git(clone)
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "later")
    with pytest.raises(MlopsError) as caught:
        repository.run("merge-base", "--is-ancestor", "HEAD", "HEAD~1")
    assert caught.value.what == "git merge-base --is-ancestor HEAD HEAD~1: status 1"
    with pytest.raises(MlopsError) as caught:
        repository.run("cat-file", "blob", "\udcff")
    assert caught.value.what.endswith(": fatal: Not a valid object name \ufffd")


# --- the digest of a folder in a commit -------------------------------------------------------------------------------

names = st.text(alphabet="ab.é ", min_size=1, max_size=4).filter(
    lambda name: name.strip(". ") == name.strip() and name not in (".", "..") and name == name.strip()
)
hidden = st.sampled_from([".hidden", "__pycache__", "releases", "train.py", "модель"])
paths = st.lists(names | hidden, min_size=1, max_size=3).map("/".join)


@settings(max_examples=25)
@given(st.dictionaries(paths, st.binary(max_size=20), max_size=6))
def test_a_committed_folder_has_the_same_digest_as_its_checkout(
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
    repository = Git(root)
    for without in ((), ("releases",)):
        assert repository.digest_of_folder("HEAD", "m", without=without) == digest_of_folder(
            root / "m", without=without
        )


def test_the_digest_of_a_folder_leaves_out_caches_hidden_files_and_chosen_names(clone: Path) -> None:
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
    digest = Git(clone).digest_of_folder
    assert digest("HEAD", "m", without=("releases",)) == digest_of_files(listed)
    more = {"a/releases/dev.yaml": digest_of_bytes(b"a/releases/dev.yaml")}
    assert digest("HEAD", "m") == digest_of_files(listed | more) == digest_of_folder(folder)


def test_the_digest_ignores_the_executable_bit_and_uncommitted_changes(clone: Path) -> None:
    folder = clone / "m"
    folder.mkdir()
    (folder / "train.py").write_text("x")
    commit_all(clone, "one")
    plain = Git(clone).digest_of_folder("HEAD", "m")
    (folder / "train.py").chmod(0o755)
    commit_all(clone, "two")
    (folder / "train.py").write_text("y")
    assert Git(clone).digest_of_folder("HEAD", "m") == plain != digest_of_folder(folder)


def test_a_link_in_a_folder_is_an_error(clone: Path) -> None:
    (clone / "m").mkdir()
    (clone / "m" / "data").symlink_to("/etc/hostname")
    commit_all(clone, "a link")
    with pytest.raises(MlopsError, match=r"m/data in [0-9a-f]{12}: expected a regular file, found a link") as caught:
        Git(clone).digest_of_folder(Git(clone).head(), "m")
    assert caught.value.fix == "replace the link with the file itself"


def test_an_unknown_folder_or_commit_is_an_error(clone: Path) -> None:
    for commit, folder in (("HEAD", "nowhere"), ("e" * 40, "m"), ("HEAD", "README.md")):
        with pytest.raises(MlopsError):
            Git(clone).digest_of_folder(commit, folder)


# --- the token --------------------------------------------------------------------------------------------------------


def test_the_token_reaches_only_its_server_and_only_by_environment_variables(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GH_TOKEN", "secret")
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://git.example.org")
    basic = base64.b64encode(b"x-access-token:secret").decode()
    assert authorization() == {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "http.https://git.example.org/.extraheader",
        "GIT_CONFIG_VALUE_0": f"AUTHORIZATION: basic {basic}",
        "GIT_TERMINAL_PROMPT": "0",
    }

    def header(address: str) -> str:
        return Git(clone).read("config", "--get-urlmatch", "http.extraheader", address)

    assert header("https://git.example.org/o/r") == f"AUTHORIZATION: basic {basic}"
    with pytest.raises(MlopsError, match=r"git config --get-urlmatch .*: status 1"):
        header("https://elsewhere.example.org/o/r")
    assert "AUTHORIZATION" not in (clone / ".git" / "config").read_text()


@pytest.mark.parametrize("missing", ["GH_TOKEN", "GITHUB_SERVER_URL"])
def test_without_a_token_or_a_server_git_uses_its_own_credentials(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name in ("GH_TOKEN", "GITHUB_SERVER_URL"):
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv(missing)
    assert authorization() == {}
    monkeypatch.setenv(missing, "")
    assert authorization() == {}


def test_read_replaces_bytes_that_are_not_utf_8(clone: Path) -> None:
    blob = Git(clone).read("hash-object", "-w", "--stdin", stdin=b"  b\xe4d \n\n")
    assert Git(clone).read("cat-file", "blob", blob) == "b\ufffdd"
    assert Git(clone).read("hash-object", "--stdin") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", "no input"


# --- committing -------------------------------------------------------------------------------------------------------


def test_commit_files_changes_only_these_files_and_leaves_the_clone_alone(clone: Path) -> None:
    (clone / "README.md").write_text("work in progress\n")
    (clone / "untracked").write_text("mine")
    (clone / "kept").write_text("as it is")
    git(clone, "add", "kept")
    git(clone, "commit", "--quiet", "--message", "another file")
    git(clone, "add", "README.md")
    before = status(clone)
    base = Git(clone).head()
    made = Git(clone).commit_files(
        base, {"deep/er/new.yaml": b"a: 1\n", "README.md": b"committed\n"}, "Say so\n\nin words\n"
    )
    repository = Git(clone)
    assert repository.parents(made) == [base]
    assert repository.changed_files(base, made) == ("README.md", "deep/er/new.yaml")
    assert repository.read_file(made, "README.md") == b"committed\n"
    assert git(clone, "log", "-1", "--format=%an <%ae> %s", made) == "mlops <mlops@users.noreply.github.com> Say so"
    assert (status(clone), repository.head()) == (before, base)
    assert (clone / "README.md").read_text() == "work in progress\n"


def test_commit_files_returns_the_base_if_nothing_changes(clone: Path) -> None:
    base = Git(clone).head()
    assert Git(clone).commit_files(base, {"README.md": b"hello\n"}, "nothing") == base


def test_commit_files_needs_no_user_configuration(clone: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    git(clone, "config", "user.useConfigOnly", "true")
    git(clone, "config", "commit.gpgsign", "true")
    assert Git(clone).commit_files("HEAD", {"x": b"1"}, "by the tool") != Git(clone).head()


def test_fetch_returns_the_newest_commit_of_a_branch(clone: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(tmp_path / "origin.git"), "other")
    (other / "new").write_text("x")
    newest = commit_all(other, "another clone")
    git(other, "tag", "v1")
    git(other, "push", "--quiet", "origin", "v1", "HEAD:refs/heads/another")
    assert Git(clone).fetch("main") == newest == Git(clone).resolve("origin/main")
    refs = git(clone, "for-each-ref", "--format=%(refname)").splitlines()
    assert refs == ["refs/heads/main", "refs/remotes/origin/main"], "no tags and no other branches"
    assert Git(clone).fetch("release/dev/m") is None
    git(other, "push", "--quiet", "--force", "origin", "HEAD~1:main")
    assert Git(clone).fetch("main") == Git(clone).head(), "also after a forced push"


def test_restore_files_accepts_names_that_look_like_options(clone: Path) -> None:
    (clone / "-f").write_text("a file")
    git(clone, "add", "--", "-f")
    git(clone, "commit", "--quiet", "--message", "a name like an option")
    for name in ("README.md", "-f"):
        (clone / name).write_text("changed, and staged")
        git(clone, "add", "--", name)
    (clone / "-n").write_text("new")
    git(clone, "add", "--", "-n")
    Git(clone).restore_files(["README.md", "-f", "-n"])
    assert git(clone, "status", "--porcelain") == ""
    assert ((clone / "README.md").read_text(), (clone / "-f").read_text()) == ("hello\n", "a file")


def test_restore_files_resets_to_head_and_deletes_new_files(clone: Path) -> None:
    (clone / "README.md").write_text("changed")
    (clone / "new").write_text("new")
    (clone / "added").write_text("new")
    git(clone, "add", "added")
    (clone / "other").write_text("stays")
    Git(clone).restore_files(["README.md", "new", "added", "never-there"])
    assert git(clone, "status", "--porcelain") == "?? other"


# --- the origin -------------------------------------------------------------------------------------------------------


def test_push_creates_and_moves_a_branch_but_drops_commits_only_if_forced(clone: Path, tmp_path: Path) -> None:
    repository = Git(clone)
    base = repository.head()
    one, other = (repository.commit_files(base, {"x": text}, "change") for text in (b"1", b"2"))

    def pushed() -> str:
        return git(tmp_path / "origin.git", "rev-parse", "refs/heads/topic")

    repository.push(one, "topic")
    assert pushed() == one
    with pytest.raises(MlopsError, match=r"\[rejected\]"):
        repository.push(other, "topic")
    assert pushed() == one
    repository.push(other, "topic", force=True)
    assert pushed() == other


def test_the_origin_url_is_empty_without_an_origin(clone: Path, tmp_path: Path) -> None:
    assert Git(clone).origin_url() == str(tmp_path / "origin.git")
    git(clone, "remote", "remove", "origin")
    assert Git(clone).origin_url() == ""


def test_a_missing_git_or_folder_is_an_error(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MlopsError) as caught:
        Git(clone / "nowhere").head()
    assert (caught.value.what, caught.value.fix) == (f"{clone / 'nowhere'} is not a folder", "")
    monkeypatch.setenv("PATH", str(clone))
    with pytest.raises(MlopsError) as caught:
        Git(clone).head()
    assert (caught.value.what, caught.value.fix) == ("git is not on the PATH", "install git")


def test_variables_of_a_clone_are_added_for_its_commands_only(clone: Path) -> None:
    index = {"GIT_INDEX_FILE": str(clone / "other-index")}
    assert Git(clone, index).read("rev-parse", "--git-path", "index") == str(clone / "other-index")
    assert Git(clone).read("rev-parse", "--git-path", "index") == ".git/index"
