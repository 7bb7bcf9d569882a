"""actions/checkout: a commit of the repository in the job's workspace.

The clone uses the objects of the bare repository (`objects/info/alternates`), so nothing is fetched: refs, the shallow
boundary and the configuration are written as a fetch would leave them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from laptop.github.actions.bytecode import copy_bytecode
from laptop.github.actions.remote import ActionCall, ActionResult
from laptop.github.forge.actors import RequestDeniedError
from laptop.github.forge.bare_repository import BareRepository, GitError, git
from laptop.github.forge.git_transport import authorization
from laptop.github.forge.webhook_event import SERVER_URL
from pipelines.declarations.errors import MlopsError

INPUTS = frozenset(
    ("repository", "ref", "token", "path", "fetch-depth", "fetch-tags", "persist-credentials", "clean", "show-progress")
)


@dataclass(frozen=True)
class _Target:
    """Commit to check out, and the shape of the clone.

    Attributes:
        ref: the full ref, "" for a bare commit.
        commit: the commit.
        depth: how many commits of the history to include; 0 for all, and all branches.
        tags: include the tags.
        config: text to append to the clone's configuration.
    """

    ref: str
    commit: str
    depth: int
    tags: bool
    config: str

    @property
    def branch(self) -> str:
        """The short name of the branch, "" if the ref is not a branch."""
        return self.ref.removeprefix("refs/heads/") if self.ref.startswith("refs/heads/") else ""


def checkout(call: ActionCall) -> ActionResult:
    """Check out a commit. Outputs: `ref` and `commit`.

    Raises:
        MlopsError: the token may not read, the ref does not exist, or the path is outside the workspace.
    """
    server = call.server
    if call.input("repository", server.full_name) != server.full_name:
        found = call.input("repository")
        raise MlopsError(f"actions/checkout: repository: expected {server.full_name}, found {found!r}")
    token = call.input("token", call.token)
    server.authenticate(token).need("read", "contents")
    workspace = call.workspace.resolve()
    folder = (workspace / call.input("path", ".")).resolve()
    if not folder.is_relative_to(workspace):
        raise MlopsError(f"actions/checkout: path is outside the workspace: {call.input('path')!r}")
    depth = call.input("fetch-depth", "1")
    if not depth.isdecimal():
        raise MlopsError(f"actions/checkout: fetch-depth: expected a whole number, found {depth!r}")
    ref, commit = _resolve_ref(call)
    config = f'[remote "origin"]\n\turl = {server.url()}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n'
    if call.flag("persist-credentials", default=True):
        config += f'[http "{SERVER_URL}/"]\n\textraheader = "{authorization(token)}"\n'
    target = _Target(ref, commit, int(depth), call.flag("fetch-tags", default=False), config)
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder == workspace and not any(folder.iterdir())
    if fresh and call.kept.is_dir():
        folder.rmdir()
        call.kept.rename(folder)
        fresh = False
    try:
        _check_out(server.repository, folder, target)
    except GitError:
        if not any(folder.iterdir()):
            raise
        for left in folder.iterdir():  # the real action also starts over if the existing files are unusable
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        _check_out(server.repository, folder, target)
    if fresh:
        _reuse_bytecode(folder)
    elif call.flag("clean", default=True):
        # Keep compiled modules: compiling takes seconds, and those of changed files are already deleted.
        git(folder, "clean", "--quiet", "-ffdx", "--exclude=__pycache__")
    call.log(f"{commit} ({ref or 'detached'})")
    return ActionResult({"ref": call.input("ref", call.event.ref), "commit": commit})


def _reuse_bytecode(folder: Path) -> None:
    """Take the bytecode of the code that this process runs. No job could write it."""
    if copy_bytecode(folder, [Path(__file__).parents[3]]):
        git(folder, "update-index", "--refresh", "-q")  # the files have new times


def _resolve_ref(call: ActionCall) -> tuple[str, str]:
    """Return the full ref ("" for a bare commit) and the commit."""
    wanted = call.input("ref")
    if not wanted:
        return call.event.ref, call.event.sha
    if re.fullmatch(r"[0-9a-f]{40}", wanted):
        candidates = [("", wanted)]
    elif wanted.startswith("refs/"):
        candidates = [(wanted, wanted)]
    else:
        candidates = [(f"refs/{kind}/{wanted}", f"refs/{kind}/{wanted}") for kind in ("heads", "tags")]
    for ref, revision in candidates:
        if (commit := call.server.repository.resolve(revision)) is not None:
            return ref, commit
    raise RequestDeniedError(404, f"A branch or tag with the name '{wanted}' could not be found")


def _check_out(repository: BareRepository, folder: Path, target: _Target) -> None:
    _write_clone(repository, folder, target)
    _remove_stale_bytecode(folder, target.commit)
    where = ["-B", target.branch, target.commit] if target.branch else ["--detach", target.commit]
    git(folder, "checkout", "--quiet", "--force", *where)


def _write_clone(repository: BareRepository, folder: Path, target: _Target) -> None:
    """Write a new `.git` over the files in a folder. It keeps the index, so that git leaves unchanged files alone."""
    clone, index = folder / ".git", None
    if clone.is_dir():
        index = (clone / "index").read_bytes() if (clone / "index").is_file() else None
        shutil.rmtree(clone)
    git(folder, "init", "--quiet", "--template=", "--initial-branch=main")
    if index is not None:
        (clone / "index").write_bytes(index)
    (clone / "objects" / "info").mkdir(exist_ok=True)
    alternates = f"{repository.path / 'objects'}\n"
    (clone / "objects" / "info" / "alternates").write_text(alternates, encoding="utf-8")
    with (clone / "config").open("a", encoding="utf-8") as config:
        config.write(target.config)
        if target.branch:
            config.write(f'[branch "{target.branch}"]\n\tremote = origin\n\tmerge = {target.ref}\n')
    refs = _refs_of(repository, target)
    (clone / "packed-refs").write_text("".join(f"{commit} {ref}\n" for ref, commit in refs.items()), encoding="utf-8")
    if target.depth:
        tips = [commit for ref, commit in refs.items() if not ref.startswith("refs/remotes/origin/")]
        boundary = _shallow_boundary(repository, [target.commit, *tips], target.depth)
        if boundary:
            (clone / "shallow").write_text("".join(f"{commit}\n" for commit in boundary), encoding="utf-8")


def _refs_of(repository: BareRepository, target: _Target) -> dict[str, str]:
    """Return the refs of the clone: name → object."""
    ref = target.ref
    own = f"refs/remotes/origin/{target.branch}" if target.branch else f"refs/remotes/{ref[5:] if ref else 'commit'}"
    refs = {own: target.commit}
    sources = ["refs/heads"] if target.depth == 0 else []
    sources += ["refs/tags"] if target.tags or target.depth == 0 else []
    if sources:
        listed = repository.run("for-each-ref", "--format=%(objectname) %(refname)", *sources)
        for line in listed.splitlines():
            commit, _, name = line.partition(" ")
            refs.setdefault(name.replace("refs/heads/", "refs/remotes/origin/", 1), commit)
    return refs


def _shallow_boundary(repository: BareRepository, tips: Sequence[str], depth: int) -> list[str]:
    """Return the commits whose parents a clone of this depth leaves out."""
    options = ["--no-walk"] if depth == 1 else []
    listed = repository.run("rev-list", "--parents", *options, *(f"{tip}^{{commit}}" for tip in tips))
    parents = {commit: others for commit, *others in (line.split() for line in listed.splitlines())}
    level, seen = set(parents) if depth == 1 else {repository.resolve(tip) or tip for tip in tips}, set()
    for _ in range(depth - 1):
        seen |= level
        level = {parent for commit in level for parent in parents[commit]} - seen
    return sorted(commit for commit in level if parents[commit])


def _remove_stale_bytecode(folder: Path, commit: str) -> None:
    """Remove the bytecode of files that the checkout changes. Python compares modification times, and two commits may
    share one.
    """
    if not (folder / ".git" / "index").is_file():
        return
    changed = git(folder, "diff-index", "--cached", "--name-only", "--no-renames", "-z", commit)
    for name in changed.split("\0"):
        if name.endswith(".py"):
            source = folder / name
            for compiled in (source.parent / "__pycache__").glob(f"{source.stem}.*.pyc"):
                compiled.unlink()
