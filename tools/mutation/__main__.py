"""How good the tests are: change the code in small ways, and see whether a test fails. `python -m tools.mutation`

It changes all of `pipelines/promotion`, in a copy of the repository, by mutmut (https://mutmut.readthedocs.io);
arguments name some of its files. Each file is changed hundreds of times, so it has quick tests of its own, in `TESTS`,
of which mutmut runs those that reach the changed function, in the order and on the account of `tools.mutation.quick`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("pipelines", "infra", "tests", "models", "data-contracts", "requirements", "docs")
PACKAGE = "pipelines/promotion"
GATES = "gates/"

VERDICTS = "verdicts.py::test_every_verdict_of_a_gate_reads_as_it_should"

TESTS: Mapping[str, tuple[str, ...]] = {
    "gates": (VERDICTS, "gates"),
    "verdict.py": (VERDICTS, "gates"),
    "facts.py": (VERDICTS, "gates"),
    "gather.py": ("gather",),
    "trial.py": ("trial", "gather"),
    "served.py": ("served",),
    "plan.py": ("plan",),
    "promote.py": ("promote",),
    "report.py": ("report", "promote"),
    "replicate.py": ("release",),
    "rollback.py": ("rollback",),
    "restore.py": ("restore",),
    "history.py": ("history",),
    "release.py": ("release",),
    "images.py": ("images",),
    "image_manifest.py": ("image_manifest",),
    "image_repository.py": ("replicate_image",),
    "replicate_image.py": ("replicate_image",),
    "comment.py": ("comment",),
    "review.py": ("comment", "review"),
    "alarm.py": ("alarm",),
    "settings.py": ("settings",),
    "endpoint.py": ("endpoint",),
    "traffic.py": ("traffic",),
    "committing.py": ("repository",),
    "repository.py": ("repository",),
    "forge.py": ("forge",),
}
"""Every source of the package → its quick tests, with those first that notice most: files, or one test of a file."""

LEAST = 0.95
"""Share of the changes to the gates that the tests must notice."""

LEAST_ELSEWHERE = 0.90
"""And of those to each other file."""

FAILED = frozenset({1, 3})
"""Exit statuses of tests that noticed a change."""

TOO_LONG = frozenset({36, 24, -24, 152, 255, -9})
"""Exit statuses of tests that ran much longer than without the change, which notices it as well."""

EQUIVALENT: Mapping[str, Mapping[str, str]] = {
    "gates/champion.py": {
        "dtype=None": "the values are floats already",
        "predicted, )": "the values are floats already",
        "sample.truth, )": "the values are floats already",
        'float("NAN")': "Python reads it in any case",
    },
    "trial.py": {
        'if path.is_file() else "XXXX"': "there is no version in it either",
    },
    "report.py": {
        '"verdicts": [verdict.model_dump(mode=': "a verdict holds nothing but texts",
    },
    "settings.py": {
        "settings = judge_rules([rule": "nothing was found before",
    },
    "endpoint.py": {
        'parsed = ""': "neither is a JSON object",
    },
    "history.py": {
        "ThreadPoolExecutor(None)": "how many are fetched at once changes nothing that is read",
        "ensure_ascii=None": "None is false as well",
        'rstrip("XX; XX")': "what to do never ends in an X",
    },
    "restore.py": {
        'git(project.root, "push", "origin"': "what git prints is not shown",
        "raise AssertionError(": "it is never raised",
        "Release, None).bundle": "the error that would name it is not told",
    },
    "promote.py": {
        "head.event.live, None)": "what is recorded already is not recorded again",
        'release.replaces or "XXXX"': "what it replaces is quarantined, so it has a name",
        "refuse_stale(head, release.environment, release.model, None": "where something was live, something is",
    },
    "committing.py": {
        "check=None": "None is false as well",
        "check=False,; ) → )": "it is the default",
        'Path(folder) / "': "any name will do",
        '"fetch", "--no-tags"': "what git prints is not shown",
        '"checkout", "HEAD"': "what git prints is not shown",
        '"rm", "--cached"': "what git prints is not shown",
        "XX--quietXX": "a file that is not there is no error",
    },
    "repository.py": {
        "check=None": "None is false as well",
        "capture_output=True, )": "it is the default",
        '"--verify", f"': "with --verify there are no other options",
        '"--verify", "--END-OF-OPTIONS"': "with --verify there are no other options",
        '"ls-tree", "--full-tree"': "what counts is whether anything is listed",
    },
    "gather.py": {
        'get.unknown.pop("bundle", ': "of a bundle that was fetched nobody asks why it was not",
        'get.unknown.pop("evidence", None)': "None is false as well",
        'get.unknown.pop("current", None)': "None is false as well",
        'get.unknown.get("live", None)': "None is false as well",
        'get.unknown.get("live", )': "None is false as well",
        "if (fetched) and False": "of a whole bundle both ways say the same",
        "freezes=get.try_to(": "a configuration that cannot be read was refused before",
        "gates.model_dump(mode=": "the gates hold nothing that JSON writes otherwise",
    },
    "forge.py": {
        "check=None": "None is false as well",
        "text=True, )": "it is the default",
        'git(self.root, "push", "--force"': "what git prints is not shown",
        "self._path = None": "it is set before it is used",
    },
    "comment.py": {
        '"XX\\n\\tXX"': "an X is printable",
    },
    "review.py": {
        '"XXXX".join(lines[at': "it is one line at most",
        "return parse(repository.file_at(commit, name), Contract, None)": "the error that would name it is not told",
    },
    "gates/freshness.py": {
        '(digest.startswith("sha256:")) or True': "what is no digest is `nothing`, which is shorter",
    },
    "gates/compatibility.py": {
        "strict=None": "the columns were just found to have the same names",
        "strict=False": "the columns were just found to have the same names",
        "zip(old.columns, new.columns, )": "the columns were just found to have the same names",
        "default=(-math.inf, True)": "no bound has the value that stands for no bound",
    },
}
"""File → part of a changed line, or `was → is` → why the program does the same as before; it is no gap in the tests."""


@dataclass(frozen=True)
class Survivor:
    """A change that no test noticed.

    Attributes:
        file: that was changed, in the package.
        name: as mutmut names it.
        was, is_: the lines before and after.
    """

    file: str
    name: str
    was: str
    is_: str

    @property
    def reason(self) -> str:
        """Why it changes nothing; empty when it should have been noticed."""
        for part, why in EQUIVALENT.get(self.file, {}).items():
            if part in (f"{self.was} → {self.is_}" if "→" in part else self.is_):
                return why
        return ""


@dataclass(frozen=True)
class Score:
    """What became of all changes of a file, or of several.

    Attributes:
        file: in the package.
        made: how many changes there were.
        too_long: of those, noticed by tests that ran much longer than before.
        survivors: those that no test noticed.
    """

    file: str
    made: int
    too_long: int
    survivors: tuple[Survivor, ...]

    @property
    def noticed(self) -> int:
        """Changes that made a test fail."""
        return self.made - len(self.survivors)

    @property
    def gaps(self) -> tuple[Survivor, ...]:
        """The survivors that are not known to change nothing."""
        return tuple(survivor for survivor in self.survivors if not survivor.reason)

    @property
    def share(self) -> float:
        """Of the changes, those that were noticed."""
        return self.noticed / self.made if self.made else 1.0

    @property
    def least(self) -> float:
        """The share that must be noticed."""
        return LEAST if self.file.startswith(GATES) else LEAST_ELSEWHERE


def together(name: str, scores: Sequence[Score]) -> Score:
    """The score of several files as one."""
    survivors = tuple(survivor for score in scores for survivor in score.survivors)
    return Score(name, sum(score.made for score in scores), sum(score.too_long for score in scores), survivors)


def mutate(sources: Sequence[str] = ()) -> list[Score]:
    """Change every line of some sources, one at a time, and run their tests against each change; the score by file.

    Args:
        sources: names in `TESTS`; all of them unless given.
    """
    present = {path.name for path in (ROOT / PACKAGE).glob("[a-z]*")}
    if set(TESTS) != present:
        raise LookupError(f"TESTS must name every source of {PACKAGE}, and no other: {sorted(set(TESTS) ^ present)}")
    scores = []
    for number, source in enumerate(sources or TESTS, 1):
        began = time.monotonic()
        told = f"[{number}/{len(sources or TESTS)}] {source}"
        print(f"{told} …", flush=True)
        found = _mutate(source, told)
        score = together(source, found)
        print(f"{told}: {score.noticed} of {score.made} noticed in {time.monotonic() - began:.0f} s", flush=True)
        scores += found
    return scores


def _mutate(source: str, told: str) -> list[Score]:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        _copy(copy, source)
        _run(copy, told)
        # The machine may have been busy with something else: what ran too long is tried once more.
        again = [name for found in _outcomes(copy).values() for name, code in found.items() if code in TOO_LONG]
        if again:
            _run(copy, f"{told}, {len(again)} again", *again)
        return [
            Score(
                file,
                len(found),
                sum(code in TOO_LONG for code in found.values()),
                tuple(_shown(copy, file, name) for name, code in found.items() if code not in FAILED | TOO_LONG),
            )
            for file, found in sorted(_outcomes(copy).items())
        ]


def _run(copy: Path, told: str, *names: str) -> None:
    """Try all changes, or those with these names."""
    with (copy / "log").open("w") as log:
        run = subprocess.Popen(
            _mutmut("run", "--max-children", "1", *names),
            cwd=copy,
            env=_environ(),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        while True:
            try:
                status = run.wait(timeout=30)
                break
            except subprocess.TimeoutExpired:
                codes = _codes(copy)
                print(f"{told}: {sum(code is not None for code in codes)} of {len(codes)} tried", flush=True)
    codes = _codes(copy)
    if status or not codes or None in codes:
        raise RuntimeError(f"mutmut did not come to its end:\n{(copy / 'log').read_text()[-3000:]}")


def _codes(copy: Path) -> list[int | None]:
    return [code for found in _outcomes(copy).values() for code in found.values()]


def _copy(copy: Path, source: str) -> None:
    """The repository, set up so that mutmut changes one source and runs its tests."""
    for name in COPIED:
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    stacks = [path.name for path in ROOT.glob("Pulumi*.yaml")]
    for name in stacks:
        shutil.copy(ROOT / name, copy)
    tests = [f"tests/{PACKAGE}/test_{name}{'' if '::' in name else '.py'}" for name in TESTS[source]]
    lines = [
        "[tool.mutmut]",
        f"source_paths = {json.dumps([f'{PACKAGE}/{source}'])}",
        f"also_copy = {json.dumps([name for name in (*COPIED, *stacks) if (copy / name).exists()])}",
        f"pytest_add_cli_args_test_selection = {json.dumps(tests)}",
        "timeout_multiplier = 3.0",
        "timeout_constant = 5.0",
        "[tool.pytest.ini_options]",
        'addopts = "-q -x -p no:cacheprovider -p no:xdist -p no:unraisableexception -p tools.mutation.quick"',
        f"quickest_first = {json.dumps([name.partition('::')[0] for name in tests])}",
    ]
    (copy / "pyproject.toml").write_text("\n".join(lines) + "\n")


def _outcomes(copy: Path) -> dict[str, dict[str, int | None]]:
    """File → name of a change → exit status of the tests; None where they did not run yet."""
    found: dict[str, dict[str, int | None]] = {}
    root = copy / "mutants" / PACKAGE
    for path in root.glob("**/*.py.meta"):
        try:
            codes = json.loads(path.read_text())["exit_code_by_key"]
        except ValueError:  # it is being written
            continue
        if codes:
            found[path.relative_to(root).as_posix().removesuffix(".meta")] = codes
    return found


def _shown(copy: Path, file: str, name: str) -> Survivor:
    done = subprocess.run(
        _mutmut("show", name), cwd=copy, env=_environ(), capture_output=True, text=True, check=True
    ).stdout
    lines = [line for line in done.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    was, is_ = ("; ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return Survivor(file, name, was, is_)


def _mutmut(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mutmut", *arguments]


def _environ() -> dict[str, str]:
    """Nothing that lets Python find the sources that are not changed."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def main(arguments: list[str]) -> int:
    """Print every survivor and the score; 1 when too many changes were not noticed."""
    scores = mutate(arguments)
    for survivor in together("", scores).survivors:
        print(f"{survivor.name}: {survivor.reason or 'NOT NOTICED'}\n  - {survivor.was}\n  + {survivor.is_}")
    gates = [score for score in scores if score.file.startswith(GATES)]
    sums = [together(f"{GATES} together", gates)] if gates else []
    print(f"{'file':28} {'changes':>8} {'noticed':>8} {'share':>7} {'too long':>9} {'equivalent':>11} {'gaps':>5}")
    for score in (*scores, *sums, together(f"{PACKAGE} together", scores)):
        same = len(score.survivors) - len(score.gaps)
        print(
            f"{score.file:28} {score.made:8} {score.noticed:8} {score.share:7.1%} {score.too_long:9} "
            f"{same:11} {len(score.gaps):5}"
        )
    others = [score for score in scores if score not in gates]
    return int(any(score.share < score.least for score in (*sums, *others)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
