"""Run a Pulumi program in this process with the engine's own monitor."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import runpy
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pulumi import RunError
from pulumi.runtime import config as sdk_config
from pulumi.runtime import settings as sdk_settings
from pulumi.runtime.stack import run_in_stack

from laptop.engine.monitor import Log, Monitor
from laptop.engine.project_file import ProjectFile, StackConfiguration
from laptop.engine.sdk_imports import postpone_annotations
from pipelines.declarations.errors import MlopsError

ORGANIZATION = "organization"
"""Pulumi's name for the organization of a self-managed backend."""

_ENGINE = Path(__file__).resolve().parent.parent

# Here and not in `run_program`, because commands import the SDKs in the background before they run a program.
postpone_annotations()

# A program changes process-wide state: the working directory, sys.path and sys.modules.
_one_at_a_time = threading.RLock()


class ProgramError(MlopsError):
    """The program failed.

    The text is that of a `pulumi.RunError`; of another exception, it names the lines in the program's own files and
    leaves out the engine's.
    """


def run_program(
    project: ProjectFile,
    stack: str,
    configuration: StackConfiguration,
    monitor: Monitor,
    *,
    preview: bool,
    parallel: int,
    say: Callable[[str], None],
    stop: Callable[[], None],
) -> None:
    """Run `project.main` as `pulumi up` does: its folder is the working directory and first on `sys.path`.

    Args:
        preview: value of `pulumi.runtime.is_dry_run()`.
        parallel: maximum number of registrations at once.
        say: shows one line of `pulumi.log`.
        stop: called on an interrupt; running steps are then awaited.

    Raises:
        ProgramError: the program raised an exception, or logged an error.
    """
    log = Log(say)

    def run() -> None:
        sdk_settings.configure(
            sdk_settings.Settings(
                project=project.name,
                stack=stack,
                monitor=monitor,
                engine=log,
                parallel=parallel,
                dry_run=preview,
                organization=ORGANIZATION,
                root_directory=str(project.root),
            )
        )
        sdk_settings.ROOT.set(None)
        sdk_config.set_all_config(configuration.values, [])
        _run_to_the_end(lambda: _execute(project.main), parallel, stop)

    failure = ""
    with _one_at_a_time, _as_own_process(project):
        try:
            # The SDK keeps its globals in context variables; a separate context leaves nothing behind.
            contextvars.copy_context().run(run)
        except KeyboardInterrupt:
            raise
        except RunError as error:
            failure = str(error)  # Pulumi shows the text and nothing else
        except BaseException as error:
            failure = _explain(error, project)
        if failure:
            gc.collect()  # here, where warnings about unawaited coroutines are suppressed
            raise ProgramError(failure)
    if log.errors:
        raise ProgramError(f"the program logged {log.errors} error(s): see above")


def _execute(main: Path) -> None:
    runpy.run_path(str(main), run_name="__main__")


def _run_to_the_end(program: Callable[[], None], parallel: int, stop: Callable[[], None]) -> None:
    # On the first SIGINT, the runner cancels the program. An exception in the middle of the SDK's code could leave an
    # output that never has a value, for which the SDK would wait without end.
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        loop.set_default_executor(ThreadPoolExecutor(parallel, thread_name_prefix="registration"))
        # Exceptions of unawaited outputs are not lost: the SDK raises the first one itself.
        loop.set_exception_handler(lambda *_: None)
        try:
            runner.run(run_in_stack(program))
        except KeyboardInterrupt:
            stop()
            raise
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())


@contextlib.contextmanager
def _as_own_process(project: ProjectFile) -> Iterator[None]:
    """Give the program the environment of a separate process, and restore this one afterwards."""
    folder = project.main.parent
    before = set(sys.modules)
    path, cwd = list(sys.path), Path.cwd()
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    try:
        with warnings.catch_warnings():
            # When a program fails, the SDK leaves coroutines unawaited. Warnings about them do not help the author.
            warnings.filterwarnings("ignore", "coroutine 'Output", RuntimeWarning)
            yield
    finally:
        os.chdir(cwd)
        sys.path[:] = path
        # The next program may have other modules of the same names, or another configuration.
        for name in set(sys.modules) - before:
            if _belongs_to(sys.modules[name], folder):
                del sys.modules[name]


def _belongs_to(module: Any, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    # Resolving links is slow, so the hundreds of SDK modules are skipped first.
    return file is not None and "site-packages" not in file and _is_of_program(Path(file), folder)


def _is_of_program(file: Path, folder: Path) -> bool:
    file = file.resolve()
    return (
        file.is_relative_to(folder.resolve()) and not file.is_relative_to(_ENGINE) and "site-packages" not in file.parts
    )


def _explain(error: BaseException, project: ProjectFile) -> str:
    """Format an exception with the lines of the program that led to it, innermost last."""
    seen: set[int] = set()
    current: BaseException | None = error
    frames: list[traceback.FrameSummary] = []
    while current is not None and not frames and id(current) not in seen:
        seen.add(id(current))
        frames = [
            frame
            for frame in traceback.extract_tb(current.__traceback__)
            if not frame.filename.startswith("<") and _is_of_program(Path(frame.filename), project.root)
        ]
        current = current.__cause__ or current.__context__
    what = "".join(traceback.format_exception_only(type(error), error)).strip()
    lines = [f"the program failed: {what}"]
    for frame in frames:
        file = Path(frame.filename).resolve()
        lines.append(f'  File "{file.relative_to(project.root.resolve())}", line {frame.lineno}, in {frame.name}')
        if frame.line:
            lines.append(f"    {frame.line}")
    return "\n".join(lines)
