"""actions/checkout: the repository at a commit, in the job's folder."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from laptop.github.access import RefusedError
from laptop.github.actions import Answer, Call
from laptop.github.events import SERVER
from laptop.github.forge import Forge
from laptop.github.git import GitError, git
from laptop.github.transport import authorization
from pipelines.declarations.errors import MlopsError

INPUTS = frozenset(
    ("repository", "ref", "token", "path", "fetch-depth", "fetch-tags", "persist-credentials", "clean", "show-progress")
)


def checkout(call: Call) -> Answer:
    """Fetch and check out; outputs `ref` and `commit`.

    Raises:
        MlopsError: the token may not read, the ref does not exist, or the folder is outside the workspace.
    """
    forge = call.forge
    if call.input("repository", forge.repository) != forge.repository:
        raise MlopsError(f"actions/checkout: only {forge.repository} is here, found {call.input('repository')!r}")
    token = call.input("token", call.token)
    forge.authenticate(token).need("read", "contents")
    folder = (call.workspace / call.input("path", ".")).resolve()
    if not folder.is_relative_to(call.workspace.resolve()):
        raise MlopsError(f"actions/checkout: path is outside the workspace: {call.input('path')!r}")
    depth = call.input("fetch-depth", "1")
    if not depth.isdecimal():
        raise MlopsError(f"actions/checkout: fetch-depth is a whole number, found {depth!r}")
    ref, commit = _wanted(call)
    folder.mkdir(parents=True, exist_ok=True)
    if folder == call.workspace.resolve() and not any(folder.iterdir()) and call.kept.is_dir():
        folder.rmdir()
        call.kept.rename(folder)
    tags = call.flag("fetch-tags", default=False)
    try:
        _fetch(forge, folder, ref, commit, int(depth), tags=tags)
    except GitError:
        if not any(folder.iterdir()):
            raise
        for left in folder.iterdir():  # as the action itself does, when what it finds is of no use
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        _fetch(forge, folder, ref, commit, int(depth), tags=tags)
    if call.flag("clean", default=True):
        # What was compiled is not cleaned away: it is worth seconds, and that of a file that changed is gone already.
        git(folder, "clean", "--quiet", "-ffdx", "--exclude=__pycache__")
    if call.flag("persist-credentials", default=True):
        git(folder, "config", f"http.{SERVER}/.extraheader", authorization(token))
    call.log(f"{commit} ({ref or 'detached'})")
    return Answer({"ref": call.input("ref", call.event.ref), "commit": commit})


def _wanted(call: Call) -> tuple[str, str]:
    """The full ref ("" for a bare commit) and the commit."""
    asked = call.input("ref")
    if not asked:
        return call.event.ref, call.event.sha
    if re.fullmatch(r"[0-9a-f]{40}", asked):
        candidates = [("", asked)]
    elif asked.startswith("refs/"):
        candidates = [(asked, asked)]
    else:
        candidates = [(f"refs/{kind}/{asked}", f"refs/{kind}/{asked}") for kind in ("heads", "tags")]
    for ref, revision in candidates:
        if (commit := call.forge.commit_of(revision)) is not None:
            return ref, commit
    raise RefusedError(404, f"A branch or tag with the name '{asked}' could not be found")


def _fetch(forge: Forge, folder: Path, ref: str, commit: str, depth: int, *, tags: bool) -> None:
    _begin(forge, folder)
    branch = ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else ""
    local = f"refs/remotes/origin/{branch}" if branch else f"refs/remotes/{ref.removeprefix('refs/') or 'commit'}"
    specs = [f"+{commit}:{local}"]
    if depth == 0:
        specs = ["+refs/heads/*:refs/remotes/origin/*", *([] if branch else specs)]
    options = ["--no-tags", *([f"--depth={depth}"] if depth else [])]
    if tags or depth == 0:
        specs.append("+refs/tags/*:refs/tags/*")
    git(folder, "fetch", "--quiet", "--no-auto-gc", *options, str(forge.git), *specs)
    _forget_compiled(folder, commit)
    target = ["-B", branch, commit] if branch else ["--detach", commit]
    git(folder, "checkout", "--quiet", "--force", *target)
    if branch:
        git(folder, "config", f"branch.{branch}.remote", "origin")
        git(folder, "config", f"branch.{branch}.merge", ref)


def _begin(forge: Forge, folder: Path) -> None:
    """An empty repository over whatever files are there; of an older one, only the list of its files is kept.

    With that list, git need not write the files that stay as they are. Objects are the forge's own: nothing is copied.
    """
    old, index = folder / ".git", None
    if old.is_dir():
        index = (old / "index").read_bytes() if (old / "index").is_file() else None
        shutil.rmtree(old)
    git(folder, "init", "--quiet", "--template=", "--initial-branch=main")
    if index is not None:
        (old / "index").write_bytes(index)
    (old / "objects" / "info").mkdir(exist_ok=True)
    (old / "objects" / "info" / "alternates").write_text(f"{forge.git / 'objects'}\n", encoding="utf-8")
    with (old / "config").open("a", encoding="utf-8") as config:
        config.write(f'[remote "origin"]\n\turl = {forge.url()}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n')


def _forget_compiled(folder: Path, commit: str) -> None:
    """Remove what Python compiled of files that are about to change: it trusts times, and two commits may share one."""
    if not (folder / ".git" / "index").is_file():
        return
    changed = git(folder, "diff-index", "--cached", "--name-only", "--no-renames", "-z", commit)
    for name in changed.split("\0"):
        if name.endswith(".py"):
            source = folder / name
            for compiled in (source.parent / "__pycache__").glob(f"{source.stem}.*.pyc"):
                compiled.unlink()
