"""Import of the generated Pulumi SDKs without evaluating their annotations.

The SDKs annotate thousands of properties, and evaluating the annotations takes most of their import time. A program
uses few of them, and the Pulumi SDK reads those with `typing.get_type_hints`, which accepts postponed annotations
(PEP 563). Compiling the SDKs with postponed annotations halves their import time.
"""

from __future__ import annotations
import __future__

import importlib.util
import marshal
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

PACKAGES = ("pulumi_aws", "pulumi_kubernetes")


def postpone_annotations() -> None:
    """Import the SDKs in this process with postponed annotations from now on. Idempotent."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds the modules of the SDKs and gives them a `_Loader`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] not in PACKAGES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Loads a module with postponed annotations, compiled once and cached next to the ordinary bytecode."""

    def get_code(self, fullname: str) -> CodeType | None:
        source = Path(self.path)
        cached = Path(importlib.util.cache_from_source(self.path, optimization="postponed"))
        stat = source.stat()
        head = importlib.util.MAGIC_NUMBER + f" {stat.st_mtime_ns} {stat.st_size}\n".encode()
        try:
            content = cached.read_bytes()
        except OSError:
            content = b""
        if content.startswith(head):
            code: CodeType = marshal.loads(content[len(head) :])  # noqa: S302 - written below, in the environment's folder
            return code
        if sys.dont_write_bytecode or not os.access(source.parent, os.W_OK):
            return super().get_code(fullname)  # compiling in every process would cost more than it saves
        flags = __future__.annotations.compiler_flag
        code = compile(source.read_bytes(), self.path, "exec", flags, dont_inherit=True)
        self.set_data(str(cached), head + marshal.dumps(code))
        return code
