"""Run git: read commits, and create and push commits without touching the working tree."""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pipelines.declarations.digests import digest_of_bytes, digest_of_files
from pipelines.declarations.errors import MlopsError
from pipelines.github.outages import AFTER_AN_OUTAGE, OutageError, is_outage

MAIN = "refs/remotes/origin/main"
"""The branch that releases are merged into, as of the last fetch.

It is the full ref: of two refs with one short name git takes the tag, and everyone with write access may push a tag
`origin/main`.
"""

AUTHOR = ("-c", "user.name=mlops", "-c", "user.email=mlops@users.noreply.github.com", "-c", "commit.gpgsign=false")
"""Options that make `mlops` the author of every commit, whatever the user's configuration says."""

_OF_THE_ORIGIN = ("fetch", "ls-remote", "push")
"""Commands that ask the origin."""

_REGULAR_FILES = ("100644", "100755")
"""Modes of regular files in a git tree; links and submodules have other modes."""


@dataclass(frozen=True)
class Git:
    """A clone.

    Attributes:
        root: its working tree, or a folder inside it.
        env: environment variables for git, added to those of this process.
    """

    root: Path
    env: Mapping[str, str] | None = None

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run a git command and return its standard output.

        Commits get the author `mlops`. `GH_TOKEN`, if set, authorizes requests to `GITHUB_SERVER_URL`.

        Args:
            arguments: the command and its arguments.
            stdin: its standard input.

        Raises:
            MlopsError: git failed, or is not installed.
        """
        return self._checked(arguments, self._start(*arguments, stdin=stdin))

    @staticmethod
    def _checked(arguments: Sequence[str], done: subprocess.CompletedProcess[bytes]) -> bytes:
        """Return what a command printed, if it did not fail."""
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"
            what = f"git {' '.join(arguments)}: {reason}"
            if arguments[0] in _OF_THE_ORIGIN and is_outage(reason):
                raise OutageError(what, fix=AFTER_AN_OUTAGE)
            raise MlopsError(what)
        return done.stdout

    def read(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run a git command and return its standard output as stripped text; see `run`."""
        return self.run(*arguments, stdin=stdin).decode(errors="replace").strip()

    def _start(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        # Messages in English: `is_outage` reads them.
        environ = {**os.environ, "LC_ALL": "C", **authorization(), **(self.env or {})}
        try:
            return subprocess.run(
                ["git", *AUTHOR, *arguments], cwd=self.root, env=environ, input=stdin, capture_output=True, check=False
            )
        except FileNotFoundError:
            if not self.root.is_dir():
                raise MlopsError(f"{self.root} is not a folder") from None
            raise MlopsError("git is not on the PATH", fix="install git") from None

    # --- reading ---

    def head(self) -> str:
        """Return the id of the commit that is checked out.

        Raises:
            MlopsError: this is not a clone, or it has no commit yet.
        """
        return self.resolve("HEAD")

    def resolve(self, name: str) -> str:
        """Return the full id of the commit that a name stands for.

        Raises:
            MlopsError: the commit does not exist here.
        """
        return self.read("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")

    def tree(self, commit: str) -> str:
        """Return the id of a commit's tree: equal trees hold equal files.

        Raises:
            MlopsError: the commit does not exist.
        """
        return self.read("rev-parse", "--verify", "--end-of-options", f"{commit}^{{tree}}")

    def parents(self, commit: str) -> list[str]:
        """Return the ids of a commit's parents.

        Raises:
            MlopsError: the commit does not exist.
        """
        return self.read("rev-list", "--parents", "-n", "1", "--end-of-options", commit).split()[1:]

    def changed_files(self, base: str, head: str) -> tuple[str, ...]:
        """Return the files that `head` changed since it branched off `base`, sorted; renames under both names.

        Raises:
            MlopsError: the commit does not exist here, or the two have no common ancestor.
        """
        range_ = f"{self.resolve(base)}...{self.resolve(head)}"
        listed = self.run("diff", "--name-only", "--no-renames", "-z", range_)
        return tuple(sorted(_decode_path(name) for name in listed.split(b"\0") if name))

    def merge_base(self, base: str, head: str) -> str:
        """Return the commit at which `head` branched off `base`.

        Raises:
            MlopsError: a commit does not exist here, or the two have no common ancestor.
        """
        found = self.find_merge_base(base, head)
        if found is None:
            raise MlopsError(
                f"{base} and {head} have no common ancestor here: expected the whole history, found a part of it",
                fix="git fetch --unshallow origin; in a workflow, check out with fetch-depth: 0",
            )
        return found

    def find_merge_base(self, base: str, head: str) -> str | None:
        """Return the commit at which `head` branched off `base`; None if this clone, such as a shallow one, lacks it.

        Raises:
            MlopsError: a commit does not exist here.
        """
        arguments = ("merge-base", self.resolve(base), self.resolve(head))
        done = self._start(*arguments)
        return None if done.returncode == 1 else self._checked(arguments, done).decode(errors="replace").strip()

    def uncommitted_files(self) -> tuple[str, ...]:
        """Return the files of the working tree that differ from the checked-out commit or are new, sorted."""
        changed = self.run("diff", "--name-only", "--no-renames", "-z", "HEAD")
        new = self.run("ls-files", "--others", "--exclude-standard", "--full-name", "-z", ":/")
        return tuple(sorted({_decode_path(name) for name in (changed + new).split(b"\0") if name}))

    def last_change(self, path: str) -> str:
        """Return the newest commit or merge on the first-parent line of HEAD that changed a file.

        Raises:
            MlopsError: no commit has the file.
        """
        commit = self.read("rev-list", "-1", "--first-parent", "HEAD", "--", path)
        if not commit:
            raise MlopsError(f"{path} is not committed", fix="commit it first")
        return commit

    def is_on_main(self, commit: str) -> bool:
        """Return whether main contains a commit; False if the commit is unknown here.

        Raises:
            MlopsError: main was never fetched.
        """
        return self._start("merge-base", "--is-ancestor", commit, self.resolve(MAIN)).returncode == 0

    def read_file(self, commit: str, path: str) -> bytes:
        """Return the content of a file in a commit.

        Raises:
            MlopsError: the commit or the file does not exist.
        """
        return self.run("cat-file", "blob", f"{commit}:{path}")

    def has_file(self, commit: str, path: str) -> bool:
        """Return whether a commit has a file at this path.

        Raises:
            MlopsError: the commit does not exist.
        """
        return bool(self.run("ls-tree", "-z", "--full-tree", self.resolve(commit), "--", path))

    def digest_of_folder(self, commit: str, folder: str, *, without: tuple[str, ...] = ()) -> str:
        """Return the digest of a folder in a commit, equal to `digests.digest_of_folder` of its checkout.

        Args:
            commit: the commit.
            folder: the folder's path in the repository.
            without: names of files or folders to leave out, at any depth.

        Raises:
            MlopsError: the commit or the folder does not exist, or the folder holds a link: a commit has no content
                for it.
        """
        left_out = {"__pycache__", *without}
        files = {}
        for line in filter(None, self.run("ls-tree", "-r", "-z", f"{commit}:{folder}").split(b"\0")):
            about, _, path = line.partition(b"\t")
            name = _decode_path(path)
            parts = PurePosixPath(name).parts
            if any(part.startswith(".") or part in left_out for part in parts):
                continue
            mode, _, blob = about.decode().split()
            if mode not in _REGULAR_FILES:
                raise MlopsError(
                    f"{folder}/{name} in {commit[:12]}: expected a regular file, found a link",
                    fix="replace the link with the file itself",
                )
            files[name] = digest_of_bytes(self.run("cat-file", "blob", blob))
        return digest_of_files(files)

    def origin_url(self) -> str:
        """Return the URL of the remote `origin`, or "" if there is none."""
        return self._start("config", "--get", "remote.origin.url").stdout.decode(errors="replace").strip()

    # --- writing ---

    def fetch(self, branch: str) -> str | None:
        """Fetch a branch of the origin and return its commit, or None if the origin has no such branch.

        Raises:
            OutageError: the origin does not answer, or not now.
            MlopsError: the origin refuses.
        """
        if not self.read("ls-remote", "origin", f"refs/heads/{branch}"):
            return None
        tracking = f"refs/remotes/origin/{branch}"
        self.run("fetch", "--quiet", "--no-tags", "origin", f"+refs/heads/{branch}:{tracking}")
        return self.resolve(tracking)

    def commit_files(self, base: str, files: Mapping[str, bytes], message: str) -> str:
        """Create a commit on top of `base` that changes some files; return its id.

        The index, the working tree and the branches are unchanged.

        Args:
            base: the parent commit.
            files: path → new content.
            message: the commit message.

        Returns:
            The id of the new commit, or `base` if the files have this content already.

        Raises:
            MlopsError: the commit does not exist, or git refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            scratch = replace(self, env={**(self.env or {}), "GIT_INDEX_FILE": str(Path(folder) / "index")})
            scratch.run("read-tree", base)
            for path, content in files.items():
                blob = self.read("hash-object", "-w", "--stdin", stdin=content)
                scratch.run("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
            tree = scratch.read("write-tree")
        if tree == self.tree(base):
            return base
        return self.read("commit-tree", tree, "-p", base, "-F", "-", stdin=message.encode())

    def push(self, commit: str, branch: str, *, force: bool = False) -> None:
        """Push a commit to a branch of the origin.

        Args:
            commit: the commit.
            branch: the branch to create or move.
            force: move the branch even if that drops commits from it.

        Raises:
            OutageError: the origin does not answer, or not now.
            MlopsError: the origin refuses the push.
        """
        options = ["--force"] if force else []
        self.run("push", "--quiet", *options, "origin", f"{commit}:refs/heads/{branch}")

    def restore_files(self, paths: Iterable[str]) -> None:
        """Reset files of the index and the working tree to HEAD; delete those that HEAD does not have.

        Raises:
            MlopsError: git refuses.
        """
        for path in paths:
            if self.has_file("HEAD", path):
                self.run("checkout", "--quiet", "HEAD", "--", path)
            else:
                self.run("rm", "--quiet", "--cached", "--ignore-unmatch", "--", path)
                (self.root / path).unlink(missing_ok=True)


def authorization() -> dict[str, str]:
    """Return the environment variables that make git send `GH_TOKEN` to `GITHUB_SERVER_URL`, if both are set.

    Variables, because other processes could read the token in argv or in the clone's configuration.
    """
    token, server = os.environ.get("GH_TOKEN"), os.environ.get("GITHUB_SERVER_URL")
    if not token or not server:
        return {}
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{server}/.extraheader",
        "GIT_CONFIG_VALUE_0": f"AUTHORIZATION: basic {basic}",
        "GIT_TERMINAL_PROMPT": "0",
    }


def _decode_path(path: bytes) -> str:
    """Decode a path; bytes that are not UTF-8 become escapes, which match no path that we look for."""
    return path.decode(errors="backslashreplace")
