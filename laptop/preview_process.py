"""Preview a stack of the laptop and print the result as JSON: `python -m laptop.preview_process ROOT HOME STACK`."""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path

from laptop.engine.deployment import DeploymentError
from laptop.engine.display import Display
from laptop.engine.resource_steps import ResourceStep, StepKind
from laptop.stack_operations import deploy
from pipelines.declarations.errors import MlopsError
from pipelines.targets import Preview

_NOT_COUNTED = frozenset({StepKind.READ, StepKind.DELETE_REPLACED, StepKind.SKIPPED})


def preview(root: Path, home: Path, stack: str) -> Preview:
    """Return what `up` would change in a stack.

    Args:
        root: the folder with `Pulumi.yaml`.
        home: the laptop's files.
        stack: the environment.
    """
    stream = io.StringIO()
    display = Display(stream)
    problem = ""
    steps: Iterable[ResourceStep] = ()
    try:
        with redirect_stdout(stream):
            steps = deploy(root, home, stack, "preview", display).steps
    except MlopsError as error:
        print(error, file=stream)
        problem = " ".join(error.what.split())
        if isinstance(error, DeploymentError):
            steps = error.result.steps
    return Preview(stream.getvalue(), count_changes(steps), problem)


def count_changes(steps: Iterable[ResourceStep]) -> dict[str, int]:
    """Count resources by Pulumi operation, as the Pulumi CLI does."""
    return dict(Counter(step.kind.value for step in steps if step.kind not in _NOT_COUNTED and not step.error))


if __name__ == "__main__":
    json.dump(asdict(preview(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])), sys.stdout)
