"""Change the gates in small ways, one at a time, and see that a test fails for each: `python -m tests.mutation`.

A mutant turns a comparison, a condition or a number into another, drops a condition, or lets a refusal pass. It is
killed when `tests/pipelines/promotion/test_gates.py` fails with it. What survives is listed, for a person to look at.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
GATES = ROOT / "pipelines" / "promotion" / "gates"
TESTS = "tests/pipelines/promotion/test_gates.py"
AT_ONCE = 2
LIMIT_SECONDS = 60

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}


@dataclass(frozen=True)
class Mutant:
    """A changed module.

    Attributes:
        module: its name.
        line: where.
        what: was changed.
        source: all of it, changed.
    """

    module: str
    line: int
    what: str
    source: str


def mutants(path: Path) -> Iterator[Mutant]:
    """Every mutant of a module."""
    tree = ast.parse(path.read_text())
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for number, node in enumerate(ast.walk(tree)):
        for index in range(len(changes(node))):
            changed = copy.deepcopy(tree)
            twin = next(n for k, n in enumerate(ast.walk(changed)) if k == number)
            what = changes(twin)[index]()
            yield Mutant(module, getattr(node, "lineno", 0), what, ast.unparse(ast.fix_missing_locations(changed)))


def changes(node: ast.AST) -> list:
    """What can be changed in a node: functions that change it, and say how."""
    found = []
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            other = COMPARISONS[type(operator)]

            def compare(place: int = place, other: type[ast.cmpop] = other) -> str:
                node.ops[place] = other()
                return f"comparison becomes {other.__name__}"

            found.append(compare)
    if isinstance(node, ast.BoolOp):

        def connect() -> str:
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            return f"condition becomes {type(node.op).__name__}"

        found.append(connect)
    if isinstance(node, ast.If):
        for value in (True, False):

            def decide(value: bool = value) -> str:
                node.test = ast.Constant(value)
                return f"if becomes {value}"

            found.append(decide)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("failed", "inconclusive"):

        def let_pass() -> str:
            node.func = ast.Name("passed", ast.Load())
            del node.args[4:]
            node.keywords = []
            while len(node.args) < 4:
                node.args.append(ast.Constant("x"))
            return "a refusal passes"

        found.append(let_pass)
    return found


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a changed source."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name == self.mutant.module else None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.mutant.source, self.mutant.module, "exec"), module.__dict__)  # noqa: S102 - our own source


def begin(mutant: Mutant) -> int:
    """Run the tests with a mutant in a process of its own; its id."""
    child = os.fork()
    if child:
        return child
    sys.meta_path.insert(0, _Changed(mutant))
    import pytest

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = pytest.main(["-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", "-o", "addopts=", TESTS])
    os._exit(int(status))


def run(every: Sequence[Mutant]) -> list[Mutant]:
    """The mutants that no test noticed."""
    import numpy  # noqa: F401 - loaded once, for all
    import pytest  # noqa: F401

    import pipelines.promotion.facts
    import pipelines.training.metrics  # noqa: F401

    waiting, going, survived = list(every), {}, []
    while waiting or going:
        while waiting and len(going) < AT_ONCE:
            mutant = waiting.pop(0)
            going[begin(mutant)] = mutant
        child, status = os.wait()
        mutant = going.pop(child)
        if os.waitstatus_to_exitcode(status) == 0:
            survived.append(mutant)
            print(f"survived: {mutant.module}:{mutant.line}: {mutant.what}", flush=True)
    return survived


def main() -> None:
    """Run all mutants of the gates, and print the score."""
    os.chdir(ROOT)
    began = time.monotonic()
    every = [mutant for path in sorted(GATES.glob("*.py")) if path.stem != "__init__" for mutant in mutants(path)]
    survived = run(every)
    killed = len(every) - len(survived)
    print(f"{killed} of {len(every)} mutants killed ({killed / len(every):.1%}) in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
