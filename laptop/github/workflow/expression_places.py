"""Places of expressions in a workflow file, and what is available at each (GitHub's "Context availability")."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from laptop.github.expressions.syntax import STATUS_FUNCTIONS


@dataclass(frozen=True)
class ExpressionPlace:
    """Names that an expression at a place can use. None means that they are not known before the run.

    Attributes:
        contexts: available contexts.
        functions: available functions, in addition to the built-in ones.
        needs: job → its outputs.
        steps: ids of earlier steps.
        inputs: names of inputs.
        matrix: names of matrix axes.
    """

    contexts: frozenset[str]
    functions: frozenset[str] = frozenset()
    needs: Mapping[str, Collection[str]] | None = None
    steps: Collection[str] | None = None
    inputs: Collection[str] | None = None
    matrix: Collection[str] | None = None


def place_of(contexts: str, functions: Collection[str] = ()) -> ExpressionPlace:
    """Return a place with these contexts (separated by spaces) and functions."""
    return ExpressionPlace(frozenset(contexts.split()), frozenset(functions))


RUN_NAME = place_of("github inputs vars")
WORKFLOW_ENV = place_of("github secrets inputs vars")
JOB_IF = place_of("github needs vars inputs", STATUS_FUNCTIONS)
STRATEGY = place_of("github needs vars inputs")
JOB = place_of("github needs strategy matrix vars inputs")
JOB_ENV = place_of("github needs strategy matrix vars secrets inputs")
JOB_DEFAULTS = place_of("github needs strategy matrix env vars inputs")
JOB_URL = place_of("github needs strategy matrix job runner env vars steps inputs")
JOB_OUTPUTS = place_of("github needs strategy matrix job runner env vars secrets steps inputs")
STEP = replace(JOB_OUTPUTS, functions=frozenset({"hashfiles"}))
STEP_IF = replace(JOB_URL, functions=frozenset({"hashfiles", *STATUS_FUNCTIONS}))
ACTION_STEP = place_of("github strategy matrix job runner env steps inputs vars", {"hashfiles"})
ACTION_STEP_IF = replace(ACTION_STEP, functions=STEP_IF.functions)
ACTION_DEFAULT = place_of("github strategy matrix job runner", {"hashfiles"})
