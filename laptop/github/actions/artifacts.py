"""actions/upload-artifact and actions/download-artifact: an artifact is a folder of the run."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from laptop.github.actions.remote import ActionCall, ActionResult
from laptop.github.forge.actors import RequestDeniedError
from pipelines.declarations.errors import MlopsError

UPLOAD_INPUTS = frozenset(
    ("name", "path", "if-no-files-found", "retention-days", "compression-level", "overwrite", "include-hidden-files")
)
DOWNLOAD_INPUTS = frozenset(("name", "path", "pattern", "merge-multiple", "run-id", "github-token", "repository"))
_NAME = re.compile(r'[^"\\/:<>|*?\r\n]{1,255}')


def upload(call: ActionCall) -> ActionResult:
    """Copy files of the workspace to an artifact. Outputs: `artifact-id` (the name) and `artifact-url`.

    Raises:
        MlopsError: the name is invalid or taken, or no file is found and `if-no-files-found` is `error`.
    """
    name = call.input("name", "artifact")
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise MlopsError(f"actions/upload-artifact: {name!r} is not a valid name")
    root, files = _select(call.workspace, call.input("path"), hidden=call.flag("include-hidden-files", default=False))
    if not files:
        verdict = call.input("if-no-files-found", "warn")
        if verdict == "error":
            raise MlopsError(f"actions/upload-artifact: no files were found with the path {call.input('path')!r}")
        call.log(
            f"::{'warning' if verdict == 'warn' else 'debug'}::no files were found with the path {call.input('path')}"
        )
        return ActionResult()
    target = call.artifacts / name
    if target.exists():
        if not call.flag("overwrite", default=False):
            raise MlopsError(f"actions/upload-artifact: an artifact with the name {name!r} already exists on this run")
        shutil.rmtree(target)
    for file in files:
        to = target / file.relative_to(root)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, to)
    call.log(f"{len(files)} files in the artifact {name}")
    return ActionResult({"artifact-id": name, "artifact-url": target.as_uri()})


def _select(workspace: Path, patterns: str, *, hidden: bool) -> tuple[Path, list[Path]]:
    """Return the files that match, and the folder that their paths in the artifact are relative to."""
    bases: list[Path] = []
    chosen: set[Path] = set()
    for line in filter(None, (line.strip() for line in patterns.splitlines())):
        pattern = Path(workspace, line.removeprefix("!")).as_posix()
        found = _expand(Path(pattern))
        if line.startswith("!"):
            chosen.difference_update(found)
            continue
        chosen.update(found)
        fixed = Path(re.split(r"[*?\[]", pattern)[0] + "x").parent if re.search(r"[*?\[]", pattern) else Path(pattern)
        bases.append(fixed if fixed.is_dir() else fixed.parent)
    if not bases:
        raise MlopsError("actions/upload-artifact: path is empty")
    root = Path(os.path.commonpath(bases))
    kept = [file for file in sorted(chosen) if hidden or not _is_hidden(file.relative_to(root))]
    return root, kept


def _expand(pattern: Path) -> list[Path]:
    anchor = Path(pattern.anchor)
    found = anchor.glob(str(pattern.relative_to(anchor)))
    return [file for path in found for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def download(call: ActionCall) -> ActionResult:
    """Copy artifacts to the workspace. Output: `download-path`.

    A single artifact by `name` goes into `path` itself. Otherwise each goes into a folder with its name, unless
    `merge-multiple` is true.

    Raises:
        MlopsError: there is no artifact with this name.
    """
    source = _source(call)
    target = call.workspace / call.input("path", ".")
    name = call.input("name")
    if name:
        if not (source / name).is_dir() or not _NAME.fullmatch(name):
            raise MlopsError(
                f"actions/download-artifact: there is no artifact {name!r}", fix=f"use one of {_names(source)}"
            )
        chosen: Sequence[str] = [name]
    else:
        chosen = [found for found in _names(source) if fnmatch.fnmatchcase(found, call.input("pattern", "*"))]
    merged = bool(name) or call.flag("merge-multiple", default=False)
    for found in chosen:
        shutil.copytree(source / found, target if merged else target / found, dirs_exist_ok=True)
    call.log(f"{len(chosen)} artifacts in {target}")
    return ActionResult({"download-path": str(target)})


def _source(call: ActionCall) -> Path:
    run = call.input("run-id")
    if not run or run == str(call.run):
        return call.artifacts
    if not call.input("github-token"):
        raise MlopsError("actions/download-artifact: the artifacts of another run need github-token")
    call.server.authenticate(call.input("github-token")).need("read", "actions")
    folder = call.server.run_folder(int(run)) / "artifacts" if run.isdecimal() else Path()
    if not folder.is_dir():
        raise RequestDeniedError(404, f"Unable to find any artifacts for the run {run}")
    return folder


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
