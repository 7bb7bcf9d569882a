"""Create the hosted repository: its first commit, its state, and the programs that reach the server."""

from __future__ import annotations

import json
import os
import shlex
import sys
import sysconfig
from pathlib import Path
from typing import Any

from laptop.github.forge.bare_repository import BareRepository, GitError, git
from laptop.github.forge.github_state import GitHubState, State
from laptop.github.forge.repository_settings import RepositorySettings
from pipelines.declarations.atomic_files import write_atomically

MAIN = "main"
_ROOT = Path(__file__).resolve().parents[3]


def create_repository(
    folder: Path,
    repository: BareRepository,
    state: GitHubState,
    source: Path,
    full_name: str,
    settings: RepositorySettings,
) -> str:
    """Create a repository from a folder, as one commit on main, and return the commit; see `GitHubServer.create`."""
    (folder / "bin").mkdir(parents=True, exist_ok=True, mode=0o700)
    path = repository.path
    git(folder, "init", "--quiet", "--bare", "--template=", f"--initial-branch={MAIN}", str(path))
    (path / "hooks").mkdir()
    with (path / "config").open("a", encoding="utf-8") as config:
        config.write("[gc]\n\tauto = 0\n[uploadpack]\n\tallowAnySHA1InWant = true\n")
    _write_executables(folder, path)
    environ = {"GIT_DIR": str(path), "GIT_WORK_TREE": str(source.resolve())}
    environ["GIT_INDEX_FILE"] = str(folder / "first-index")
    git(source, "update-index", "--add", "-z", "--stdin", text="\0".join(_source_files(source)), environ=environ)
    tree = git(source, "write-tree", environ=environ)
    first = repository.commit(tree, (), "First commit\n", full_name.split("/")[0])
    (folder / "first-index").unlink()
    repository.move_ref(f"refs/heads/{MAIN}", first)
    # Checkouts and clones read from here: git sends a pack as it is, but packs loose objects each time.
    repository.run("repack", "-a", "-d", "--quiet", "--window=0")
    numbers = ("issue", "comment", "review", "run", "slot", "move")
    objects: dict[str, Any] = {name: {} for name in ("tokens", "apps", "pulls", "checks", "runs")}
    lists: dict[str, Any] = {name: [] for name in ("comments", "events", "suppressed", "slots", "moves")}
    start: State = {"repository": full_name, "next": dict.fromkeys(numbers, 1), "settings": settings.to_json()}
    state.create({**start, **objects, **lists})
    return first


def _write_executables(folder: Path, repository: Path) -> None:
    python, home = shlex.quote(sys.executable), shlex.quote(str(folder))
    paths = json.dumps([str(_ROOT), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    programs = {
        folder / "bin" / "gh": "laptop.github.gh_cli.gh_program",
        folder / "bin" / "connect": "laptop.github.forge.git_transport",
        repository / "hooks" / "pre-receive": "laptop.github.forge.push_hook",
    }
    for path, module in programs.items():
        # -I: a job's PYTHONPATH must not decide which code runs here. -S: reading the .pth files of the installed
        # packages takes longer than the rest of the program.
        code = f"import sys; sys.path[:0] = {paths}; from {module} import main; sys.exit(main(sys.argv[1:]))"
        text = f"#!/bin/sh\nMLOPS_GITHUB=${{MLOPS_GITHUB:-{home}}}\nexport MLOPS_GITHUB\n"
        write_atomically(path, f'{text}exec {python} -I -S -c {shlex.quote(code)} "$@"\n')
        path.chmod(0o700)


def _source_files(source: Path) -> list[str]:
    """List the files that git would commit of a folder; all files if it is not a repository."""
    try:
        listed = git(source, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    except GitError:
        found = (path for path in sorted(source.rglob("*")) if path.is_file() or path.is_symlink())
        return [path.relative_to(source).as_posix() for path in found if ".git" not in path.parts]
    return sorted({name for name in listed if name and os.path.lexists(source / name)})
