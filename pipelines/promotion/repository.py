"""What git knows: which files a change touches, what a file said in a commit, whether a commit is on main."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.declarations.digests import digest_of_bytes, digest_of_files
from pipelines.declarations.errors import MlopsError


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
        return self.run("rev-parse", "HEAD").decode().strip()

    def commit(self, name: str) -> str:
        """The full id of a commit.

        Raises:
            MlopsError: there is no such commit here.
        """
        return self.run("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}").decode().strip()

    def changed_files(self, base: str, head: str) -> tuple[str, ...]:
        """The files that `head` changes since it left `base`, renamed ones under both names."""
        listed = self.run("diff", "--name-only", "--no-renames", "-z", f"{base}...{head}")
        return tuple(sorted(name for name in listed.decode().split("\0") if name))

    def last_change(self, path: str) -> str:
        """The commit that last changed a file, as seen from the line of merges that leads here.

        Raises:
            MlopsError: no commit has it.
        """
        commit = self.run("log", "-1", "--first-parent", "--diff-merges=first-parent", "--format=%H", "--", path)
        if not commit.strip():
            raise MlopsError(f"{path} is not committed", fix="commit it first")
        return commit.decode().strip()

    def is_on_main(self, commit: str) -> bool:
        """Whether a commit is part of main.

        Raises:
            MlopsError: git cannot tell, because main is not here.
        """
        self.commit(self.main)
        known = subprocess.run(
            ["git", "merge-base", "--is-ancestor", commit, self.main], cwd=self.root, capture_output=True, check=False
        )
        return known.returncode == 0

    def file_at(self, commit: str, path: str) -> bytes:
        """What a file said in a commit.

        Raises:
            MlopsError: it was not there.
        """
        return self.run("cat-file", "blob", f"{commit}:{path}")

    def digest_of_folder_at(self, commit: str, folder: str, *, without: tuple[str, ...] = ()) -> str:
        """The digest that `digests.digest_of_folder` gives for a folder as it was in a commit.

        Args:
            commit: the commit.
            folder: its path.
            without: names of files or folders, at any depth, that do not belong to it.

        Raises:
            MlopsError: there is no such commit.
        """
        listed = self.run("ls-tree", "-r", "-z", "--name-only", f"{commit}:{folder}").decode().split("\0")
        left_out = {"__pycache__", *without}
        files = {}
        for name in filter(None, listed):
            parts = PurePosixPath(name).parts
            if not any(part.startswith(".") or part in left_out for part in parts):
                files[name] = digest_of_bytes(self.file_at(commit, f"{folder}/{name}"))
        return digest_of_files(files)
