"""Load a model's training function from the model's folder."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec
from typing import TYPE_CHECKING

from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.errors import MlopsError
from pipelines.training.api import TrainedModel, TrainingData

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from _typeshed import ReadableBuffer

TrainingFunction = Callable[[TrainingData], TrainedModel]


class _Loader(SourceFileLoader):
    """Loads modules without writing bytecode into the model's folder."""

    def set_data(self, path: str, data: ReadableBuffer, *, _mode: int = 0o666) -> None:
        """Discard the bytecode."""


class _Finder(MetaPathFinder):
    """Finds the modules of one package, to be loaded by `_Loader`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(self._prefix):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


@contextmanager
def training_function(entrypoint: str, model: str, folder: Path) -> Iterator[TrainingFunction]:
    """Load the function that `training.entrypoint` names; unload it when the block ends.

    The folder is loaded as a package. Its modules import each other by `from . import …`, and it does not shadow other
    modules.

    Args:
        entrypoint: `<module>:<function>`.
        model: name of the model, for errors.
        folder: folder of the model.

    Raises:
        MlopsError: the module or function does not exist.
    """
    module_name, _, function_name = entrypoint.partition(":")
    path = folder / f"{module_name}.py"
    if not path.is_file():
        raise MlopsError(
            f"the entry point {entrypoint} of {model} is missing: {path} does not exist",
            fix="set training.entrypoint to module:function, with a module in the model's folder",
        )
    package = f"mlops_model_{digest_of_bytes(str(folder.resolve()).encode())[7:19]}"
    spec = ModuleSpec(package, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[package] = module_from_spec(spec)
    finder = _Finder(f"{package}.")
    sys.meta_path.insert(0, finder)
    try:
        importlib.invalidate_caches()
        module = importlib.import_module(f"{package}.{module_name}")
        function = getattr(module, function_name, None)
        if not callable(function):
            raise MlopsError(
                f"{path} has no function {function_name!r}, which training.entrypoint of {model} names",
                fix=f"define `def {function_name}(data: TrainingData) -> TrainedModel` there",
            )
        yield function
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
            del sys.modules[name]
