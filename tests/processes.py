"""Start test processes quickly, from a fork server with the imports preloaded, and kill them at chosen moments."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

SERVER: ForkServerContext = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "pipelines.promotion.deploy",
        "pipelines.promotion.rollback",
        "pipelines.data.schema_compatibility",
        "pipelines.serving.predictor",
        "onnxruntime",
        "onnx",
        "hypothesis",
        "pytest",
        "tools.mutation.preload",
        "tests.pipelines.promotion.promotion_project",
    ]
)


def start(target: Callable[..., Any], *arguments: Any) -> ForkServerProcess:
    """Run a function in a new process with this process's environment variables; the caller joins it."""
    process = SERVER.Process(target=_run, args=(dict(os.environ), target, arguments), daemon=True)
    process.start()
    return process


def _run(environ: dict[str, str], target: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environ)
    target(*arguments)


class Moments:
    """Counter of the moments at which a process can be killed; kills it with SIGKILL at one of them.

    Args:
        fatal: number of the moment at which to kill the process, from 1; 0 for never.
    """

    def __init__(self, fatal: int = 0) -> None:
        self.fatal = fatal
        self.names: list[str] = []

    def pass_by(self, name: str) -> None:
        """Count one moment."""
        self.names.append(name)
        if len(self.names) == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `call` with a moment before and after it."""

        def watched(*arguments: Any, **named: Any) -> Any:
            self.pass_by(f"before {name}")
            result = call(*arguments, **named)
            self.pass_by(f"after {name}")
            return result

        return watched

    def writes(self, put_new: Callable[..., Any], wanted: Callable[[str], bool]) -> Callable[..., Any]:
        """Wrap `store.put_new` with a moment before and after each write of a `wanted` key."""

        def watched(bucket: str, key: str, content: bytes, **named: Any) -> Any:
            if not wanted(key):
                return put_new(bucket, key, content, **named)
            return self.around(f"the write of {key}", put_new)(bucket, key, content, **named)

        return watched
