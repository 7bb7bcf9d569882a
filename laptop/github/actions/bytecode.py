"""Reuse the bytecode of identical files in other folders, so that a new workspace need not compile all modules."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

_HEADER_SIZE = 16
"""Bytes before the code in a .pyc file: magic number, flags, time and size of the source (PEP 552)."""


def copy_bytecode(folder: Path, others: Iterable[Path]) -> int:
    """Copy bytecode to a folder from others, for source files with the same content.

    Bytecode is valid for a source file with the time and size in its header, so the file gets that time.

    Args:
        folder: the folder, without bytecode.
        others: folders with the same layout. Their files may change at any time.

    Returns:
        The number of files copied.
    """
    sources = [other for other in others if other.is_dir() and other != folder]
    copied = 0
    for path in folder.rglob("*.py"):
        for other in sources:
            if _copy_one(path, other / path.relative_to(folder)):
                copied += 1
                break
    return copied


def _copy_one(path: Path, other: Path) -> bool:
    compiled = Path(importlib.util.cache_from_source(str(other)))
    try:
        code = compiled.read_bytes()
        flags, modified = (int.from_bytes(code[at : at + 4], "little") for at in (4, 8))
        current = len(code) > _HEADER_SIZE and flags == 0 and int(other.stat().st_mtime) & 0xFFFFFFFF == modified
        if not current or other.read_bytes() != path.read_bytes():
            return False
    except OSError:
        return False
    target = Path(importlib.util.cache_from_source(str(path)))
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(code)
    shutil.copymode(path, target)
    os.utime(path, (modified, modified))
    return True
