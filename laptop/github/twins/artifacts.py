"""actions/upload-artifact and actions/download-artifact: folders of the run."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from laptop.github.access import RefusedError
from laptop.github.actions import Answer, Call
from pipelines.declarations.errors import MlopsError

UPLOAD_INPUTS = frozenset(
    ("name", "path", "if-no-files-found", "retention-days", "compression-level", "overwrite", "include-hidden-files")
)
DOWNLOAD_INPUTS = frozenset(("name", "path", "pattern", "merge-multiple", "run-id", "github-token", "repository"))
_NAME = re.compile(r'[^"\\/:<>|*?\r\n]{1,255}')


def upload(call: Call) -> Answer:
    """Keep files of the workspace; outputs `artifact-id` (the name) and `artifact-url`.

    Raises:
        MlopsError: the name is taken, or nothing is found and `if-no-files-found` is `error`.
    """
    name = call.input("name", "artifact")
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise MlopsError(f"actions/upload-artifact: {name!r} is not a name")
    root, files = _select(call.workspace, call.input("path"), hidden=call.flag("include-hidden-files", default=False))
    if not files:
        verdict = call.input("if-no-files-found", "warn")
        if verdict == "error":
            raise MlopsError(f"actions/upload-artifact: no files were found with the path {call.input('path')!r}")
        call.log(
            f"::{'warning' if verdict == 'warn' else 'debug'}::no files were found with the path {call.input('path')}"
        )
        return Answer()
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
    return Answer({"artifact-id": name, "artifact-url": target.as_uri()})


def _select(workspace: Path, patterns: str, *, hidden: bool) -> tuple[Path, list[Path]]:
    """The files that the patterns name, and the folder that their names in the artifact start from."""
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
        raise MlopsError("actions/upload-artifact: path names nothing")
    root = Path(os.path.commonpath(bases))
    kept = [file for file in sorted(chosen) if hidden or not _is_hidden(file.relative_to(root))]
    return root, kept


def _expand(pattern: Path) -> list[Path]:
    anchor = Path(pattern.anchor)
    found = anchor.glob(str(pattern.relative_to(anchor)))
    return [file for path in found for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def download(call: Call) -> Answer:
    """Bring artifacts into the workspace; outputs `download-path`.

    One `name` goes right into `path`; otherwise each goes into a folder of its name, unless `merge-multiple`.

    Raises:
        MlopsError: there is none of this name.
    """
    source = _source(call)
    target = call.workspace / call.input("path", ".")
    name = call.input("name")
    if name:
        if not (source / name).is_dir() or not _NAME.fullmatch(name):
            raise MlopsError(
                f"actions/download-artifact: there is no artifact {name!r}", fix=f"there are: {_names(source)}"
            )
        chosen: Sequence[str] = [name]
    else:
        chosen = [found for found in _names(source) if fnmatch.fnmatchcase(found, call.input("pattern", "*"))]
    merged = bool(name) or call.flag("merge-multiple", default=False)
    for found in chosen:
        shutil.copytree(source / found, target if merged else target / found, dirs_exist_ok=True)
    call.log(f"{len(chosen)} artifacts in {target}")
    return Answer({"download-path": str(target)})


def _source(call: Call) -> Path:
    run = call.input("run-id")
    if not run or run == str(call.run):
        return call.artifacts
    if not call.input("github-token"):
        raise MlopsError("actions/download-artifact: the artifacts of another run need github-token")
    call.forge.authenticate(call.input("github-token")).need("read", "actions")
    folder = call.forge.run_folder(int(run)) / "artifacts" if run.isdecimal() else Path()
    if not folder.is_dir():
        raise RefusedError(404, f"Unable to find any artifacts for the run {run}")
    return folder


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
