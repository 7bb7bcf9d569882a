"""What git knows: which files a change touches, what a file said in a commit, whether a commit is on main."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.declarations.digests import digest_of_bytes, digest_of_files
from pipelines.declarations.errors import MlopsError

_FILES = ("100644", "100755")
"""Modes of files, as git writes them; links have others."""


@dataclass(frozen=True)
class Repository:
    """A git repository.

    Attributes:
        root: its working tree.
        main: the branch that counts, as it is known here.
    """

    root: Path
    main: str = "origin/main"

    def run(self, *arguments: str) -> bytes:
        """Run git; what it printed.

        Raises:
            MlopsError: it failed.
        """
        done = subprocess.run(["git", *arguments], cwd=self.root, capture_output=True, check=False)
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"
            raise MlopsError(f"git {' '.join(arguments)}: {reason}")
        return done.stdout

    def head(self) -> str:
        """The commit that is checked out."""
        return self.commit("HEAD")

    def commit(self, name: str) -> str:
        """The full id of a commit.

        Raises:
            MlopsError: there is no such commit here.
        """
        return self.run("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}").decode().strip()

    def changed_files(self, base: str, head: str) -> tuple[str, ...]:
        """The files that `head` changes since it left `base`, renamed ones under both names.

        Raises:
            MlopsError: there is no such commit here, or the two have nothing in common.
        """
        listed = self.run("diff", "--name-only", "--no-renames", "-z", f"{self.commit(base)}...{self.commit(head)}")
        return tuple(sorted(_shown(name) for name in listed.split(b"\0") if name))

    def last_change(self, path: str) -> str:
        """The commit that last changed a file, as seen from the line of merges that leads here.

        Raises:
            MlopsError: no commit has it.
        """
        commit = self.run("rev-list", "-1", "--first-parent", "HEAD", "--", path)
        if not commit.strip():
            raise MlopsError(f"{path} is not committed", fix="commit it first")
        return commit.decode().strip()

    def is_on_main(self, commit: str) -> bool:
        """Whether a commit is part of main; one that is not known here is not.

        Raises:
            MlopsError: git cannot tell, because main is not here.
        """
        main = self.commit(self.main)
        known = subprocess.run(
            ["git", "merge-base", "--is-ancestor", commit, main], cwd=self.root, capture_output=True, check=False
        )
        return known.returncode == 0

    def file_at(self, commit: str, path: str) -> bytes:
        """What a file said in a commit.

        Raises:
            MlopsError: it was not there.
        """
        return self.run("cat-file", "blob", f"{commit}:{path}")

    def has_file(self, commit: str, path: str) -> bool:
        """Whether there is such a file in a commit.

        Raises:
            MlopsError: there is no such commit.
        """
        return bool(self.run("ls-tree", "-z", "--full-tree", self.commit(commit), "--", path))

    def digest_of_folder_at(self, commit: str, folder: str, *, without: tuple[str, ...] = ()) -> str:
        """The digest that `digests.digest_of_folder` gives for a folder as it was in a commit.

        Args:
            commit: the commit.
            folder: its path.
            without: names of files or folders, at any depth, that do not belong to it.

        Raises:
            MlopsError: there is no such commit or folder; or it holds something else than files, whose content is not
                in the commit.
        """
        left_out = {"__pycache__", *without}
        files = {}
        for line in filter(None, self.run("ls-tree", "-r", "-z", f"{commit}:{folder}").split(b"\0")):
            about, _, path = line.partition(b"\t")
            name = _shown(path)
            parts = PurePosixPath(name).parts
            if any(part.startswith(".") or part in left_out for part in parts):
                continue
            mode, _, blob = about.decode().split()
            if mode not in _FILES:
                raise MlopsError(
                    f"{folder}/{name} in {commit[:12]} is a link, not a file", fix="put the content there itself"
                )
            files[name] = digest_of_bytes(self.run("cat-file", "blob", blob))
        return digest_of_files(files)

    def tree(self, commit: str) -> str:
        """The id of everything that a commit holds.

        Raises:
            MlopsError: there is no such commit.
        """
        return self.run("rev-parse", "--verify", "--end-of-options", f"{commit}^{{tree}}").decode().strip()

    def parents(self, commit: str) -> list[str]:
        """The commits that a commit stands on.

        Raises:
            MlopsError: there is no such commit.
        """
        return self.run("rev-list", "--parents", "-n", "1", "--end-of-options", commit).decode().split()[1:]


def _shown(name: bytes) -> str:
    """A file's name as text; bytes that are no UTF-8 are spelt out, and never the name of a file that we look for."""
    return name.decode(errors="backslashreplace")
