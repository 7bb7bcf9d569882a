"""How good the tests are: change the code in small ways, and see whether a test fails. `python -m tests.mutation`

By default it changes the gates, each line of which can refuse a promotion; an argument names other sources. It works in
a copy of the repository, by mutmut (https://mutmut.readthedocs.io), with the quick tests only.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("pipelines", "tests", "models", "data-contracts", "requirements", "docs")
GATES = "pipelines/promotion/gates"
TESTS = ("tests/pipelines/promotion/test_verdicts.py", "tests/pipelines/promotion/test_gates.py")
LEAST = 0.95
"""Share of the changes to the gates that the tests must notice."""

SURVIVED = 0
"""The exit status of tests that noticed nothing."""

EQUIVALENT = {
    "dtype=None": "the values are floats already",
    "predicted, )": "the values are floats already",
    "sample.truth, )": "the values are floats already",
    "strict=None": "the columns were just found to have the same names",
    "strict=False": "the columns were just found to have the same names",
    "zip(old.columns, new.columns, )": "the columns were just found to have the same names",
    "default=(-math.inf, True)": "no bound has the value that stands for no bound",
}
"""Part of a changed line → why the program does the same as before; such a change is no gap in the tests."""


@dataclass(frozen=True)
class Survivor:
    """A change that no test noticed.

    Attributes:
        name: as mutmut names it.
        was, is_: the line before and after.
    """

    name: str
    was: str
    is_: str

    @property
    def reason(self) -> str:
        """Why it changes nothing; empty when it should have been noticed."""
        return next((why for part, why in EQUIVALENT.items() if part in self.is_), "")


@dataclass(frozen=True)
class Score:
    """What became of all changes.

    Attributes:
        made: how many there were.
        survivors: those that no test noticed.
    """

    made: int
    survivors: tuple[Survivor, ...]

    @property
    def gaps(self) -> tuple[Survivor, ...]:
        """The survivors that are not known to change nothing."""
        return tuple(survivor for survivor in self.survivors if not survivor.reason)

    @property
    def share(self) -> float:
        """Of the changes, those that were noticed."""
        return 1 - len(self.survivors) / self.made


def mutate(source: str = GATES, tests: tuple[str, ...] = TESTS) -> Score:
    """Change every line of some sources, one at a time, and run the tests against each change.

    Args:
        source: a file or folder of the repository.
        tests: files of tests, quick ones: they run once a change.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            if (ROOT / name).exists():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in ROOT.glob("Pulumi*.yaml"):
            shutil.copy(path, copy)
        lines = [
            "[tool.mutmut]",
            f"source_paths = {json.dumps([source])}",
            f"also_copy = {json.dumps([name for name in COPIED if (copy / name).exists()])}",
            f"pytest_add_cli_args_test_selection = {json.dumps(tests)}",
            "[tool.pytest.ini_options]",
            'addopts = "-q -x -p no:cacheprovider"',
        ]
        (copy / "pyproject.toml").write_text("\n".join(lines) + "\n")
        done = subprocess.run(_mutmut("run"), cwd=copy, capture_output=True, text=True, check=False)
        outcomes: dict[str, int | None] = {}
        for path in copy.glob("mutants/**/*.meta"):
            outcomes |= json.loads(path.read_text())["exit_code_by_key"]
        if done.returncode or not outcomes or None in outcomes.values():
            raise RuntimeError(f"mutmut did not come to its end:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return Score(len(outcomes), tuple(_shown(copy, name) for name, code in outcomes.items() if code == SURVIVED))


def _shown(copy: Path, name: str) -> Survivor:
    shown = subprocess.run(_mutmut("show", name), cwd=copy, capture_output=True, text=True, check=True).stdout
    lines = [line for line in shown.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    was, is_ = ("; ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return Survivor(name, was, is_)


def _mutmut(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mutmut", *arguments]


def main(arguments: list[str]) -> int:
    """Print the score and every survivor; 1 when too many changes to the gates were not noticed."""
    score = mutate(*arguments)
    for survivor in score.survivors:
        print(f"{survivor.name}: {survivor.reason or 'NOT NOTICED'}\n  - {survivor.was}\n  + {survivor.is_}")
    noticed = score.made - len(score.survivors)
    print(f"{noticed} of {score.made} changes were noticed: {score.share:.1%}; {len(score.gaps)} gaps")
    return int(not arguments and score.share < LEAST)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
