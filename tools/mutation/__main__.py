"""Measure the mutation score of the promotion tests: `python -m tools.mutation [SOURCE…]`

Mutates the sources in `TESTS`, in a copy of the repository, with mutmut (https://mutmut.readthedocs.io). A source is a
file or folder below `pipelines`, for example `promotion/gates`. mutmut runs those tests of the source that reach the
mutated function, in the order and with the account of `tools.mutation.quick`.
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
COPIED = ("pipelines", "infra", "tests", "tools", "models", "data-contracts", "requirements", "docs")
PACKAGE = "pipelines"
GATES = "promotion/gates/"

VERDICTS = "promotion/test_verdicts.py::test_verdicts_match_the_golden_file"

TESTS: Mapping[str, tuple[str, ...]] = {
    "promotion/gates": (VERDICTS, "promotion/test_gates.py"),
    "promotion/verdict.py": (VERDICTS, "promotion/test_gates.py"),
    "promotion/facts": ("promotion/test_served.py", "promotion/test_gather.py"),
    "promotion/comments": ("promotion/test_comment.py",),
    "promotion/contract_changes.py": ("promotion/test_contract_changes.py",),
    "promotion/preview.py": ("promotion/test_preview.py",),
    "promotion/trial.py": ("promotion/test_trial.py", "promotion/test_gather.py"),
    "promotion/trial_process.py": ("promotion/test_trial.py",),
    "promotion/select.py": ("promotion/test_select.py",),
    "promotion/admission.py": ("promotion/test_deploy.py",),
    "promotion/attempt.py": ("promotion/test_deploy.py",),
    "promotion/deploy.py": ("promotion/test_deploy.py",),
    "promotion/audit.py": ("promotion/test_audit.py",),
    "promotion/disagreement.py": ("promotion/test_audit.py",),
    "promotion/correction.py": ("promotion/test_correction.py",),
    "promotion/live_bundles.py": ("promotion/test_propose.py", "promotion/test_withdrawal.py"),
    "promotion/report.py": ("promotion/test_report.py", "promotion/test_deploy.py"),
    "promotion/replicate.py": ("promotion/test_propose.py",),
    "promotion/rollback.py": ("promotion/test_rollback.py",),
    "promotion/restore.py": ("promotion/test_restore.py",),
    "promotion/history.py": ("promotion/test_history.py",),
    "promotion/propose.py": ("promotion/test_propose.py",),
    "promotion/images.py": ("promotion/test_images.py",),
    "promotion/alarm.py": ("promotion/test_alarm.py",),
    "promotion/verify.py": ("promotion/test_verify.py",),
    "promotion/traffic.py": ("promotion/test_traffic.py",),
    "github/settings.py": ("github/test_settings.py", "github/test_repository_setup.py"),
    "github/setup_plan.py": ("github/test_repository_setup.py",),
    "github/repository_setup.py": ("github/test_repository_setup.py",),
    "github/repository_facts.py": ("github/test_settings.py", "github/test_repository_setup.py"),
    "github/repository_files.py": ("github/test_repository_files.py",),
    "github/git.py": ("github/test_git.py",),
    "github/gh.py": ("github/test_pull_requests.py",),
    "github/pull_requests.py": ("github/test_pull_requests.py",),
    "github/published_commits.py": ("github/test_published_commits.py",),
    "github/job_token.py": ("github/test_job_token.py",),
}
"""Source below `pipelines` → its quick tests below `tests/pipelines`, the most effective first."""

NOT_MEASURED = frozenset(
    {
        "promotion/judge.py",
        "promotion/judge_pins.py",
        "promotion/judge_releases.py",
        "promotion/judge_withdrawals.py",
        "promotion/review.py",
        "promotion/predict.py",
        "promotion/respond.py",
        "github/workflow_run.py",
    }
)
"""Sources without quick tests: the laptop's journeys and the tests of the command line run them."""

LEAST = 0.95
"""Lowest mutation score of the gates."""

LEAST_ELSEWHERE = 0.90
"""Lowest mutation score of any other source."""

FAILED = frozenset({1, 3})
"""Exit statuses of tests that failed: the mutant is killed."""

TOO_LONG = frozenset({36, 24, -24, 152, 255, -9})
"""Exit statuses of tests that timed out: the mutant is killed too."""

EQUIVALENT: Mapping[str, Mapping[str, str]] = {
    "promotion/gates/champion.py": {
        "dtype=None": "the values are already floats",
        "predicted, )": "the values are already floats",
        "sample.truth, )": "the values are already floats",
        'float("NAN")': "Python accepts it too",
    },
    "promotion/trial.py": {
        'if path.is_file() else "XXXX"': "that text pins no version either",
    },
    "promotion/report.py": {
        '"verdicts": [verdict.model_dump(mode=': "a verdict holds only text",
    },
    "promotion/history.py": {
        "ThreadPoolExecutor(None)": "the number of threads does not change the result",
        "ensure_ascii=None": "None is false",
        'rstrip("XX; XX")': "a fix never ends in X",
    },
    "promotion/restore.py": {
        "raise AssertionError(": "this line is never reached",
        "Release, None).bundle": "the caller discards the error with the path",
    },
    "promotion/admission.py": {
        "head.event.live, None)": "a recorded release is not recorded again",
        'release.replaces or "XXXX"': "it replaces a quarantined bundle, so it has a name",
        "refuse_stale(head, release.environment, release.model, None": "once a bundle is live, one always is",
    },
    "promotion/facts/gather.py": {
        "gates.model_dump(mode=": "JSON writes all values of the gates as they are",
    },
    "promotion/comments/gate_comment.py": {},
    "promotion/contract_changes.py": {
        "return parse(git.read_file(commit, name), Contract, None)": "the caller discards the error with the path",
    },
    "promotion/gates/compatibility.py": {
        "strict=None": "the columns have the same names here",
        "strict=False": "the columns have the same names here",
        "zip(old.columns, new.columns, )": "the columns have the same names here",
        "default=(-math.inf, True)": "no real bound equals the placeholder",
    },
    "github/settings.py": {},
    "github/setup_plan.py": {},
    "github/repository_setup.py": {},
    "github/repository_facts.py": {},
    "github/repository_files.py": {},
    "github/published_commits.py": {},
    "github/job_token.py": {},
    "github/git.py": {
        "check=None": "None is false",
        "check=False,; ) → )": "it is the default",
        "capture_output=True, )": "it is the default",
        'Path(folder) / "': "any name works",
        '"fetch", "--no-tags"': "the output is not shown",
        '"checkout", "HEAD"': "the output is not shown",
        '"rm", "--cached"': "the output is not shown",
        '"push", *options': "the output is not shown",
        "XX--quietXX": "a missing file is not an error",
        '"--verify", f"': "with --verify there are no other options",
        '"--verify", "--END-OF-OPTIONS"': "with --verify there are no other options",
        '"ls-tree", "--full-tree"': "only an empty listing matters",
    },
    "github/gh.py": {
        "check=None": "None is false",
        "text=True, )": "it is the default",
    },
}
"""File → part of a mutated line, or `before → after` → why the mutant is equivalent to the original."""


@dataclass(frozen=True)
class Survivor:
    """A mutant that no test killed.

    Attributes:
        file: the mutated file, below `pipelines`.
        name: mutmut's name of the mutant.
        was: the original lines.
        is_: the mutated lines.
    """

    file: str
    name: str
    was: str
    is_: str

    @property
    def reason(self) -> str:
        """Reason why the mutant is equivalent; empty if a test should kill it."""
        for part, why in EQUIVALENT.get(self.file, {}).items():
            if part in (f"{self.was} → {self.is_}" if "→" in part else self.is_):
                return why
        return ""


@dataclass(frozen=True)
class Score:
    """Mutation score of one or more files.

    Attributes:
        file: the file, below `pipelines`.
        made: number of mutants.
        too_long: number of mutants killed by a timeout.
        survivors: mutants that no test killed.
    """

    file: str
    made: int
    too_long: int
    survivors: tuple[Survivor, ...]

    @property
    def killed(self) -> int:
        """Number of killed mutants."""
        return self.made - len(self.survivors)

    @property
    def gaps(self) -> tuple[Survivor, ...]:
        """Survivors that are not known to be equivalent."""
        return tuple(survivor for survivor in self.survivors if not survivor.reason)

    @property
    def share(self) -> float:
        """Fraction of killed mutants."""
        return self.killed / self.made if self.made else 1.0

    @property
    def least(self) -> float:
        """Lowest share that is accepted."""
        return LEAST if self.file.startswith(GATES) else LEAST_ELSEWHERE


def together(name: str, scores: Sequence[Score]) -> Score:
    """Return the score of several files as one."""
    survivors = tuple(survivor for score in scores for survivor in score.survivors)
    return Score(name, sum(score.made for score in scores), sum(score.too_long for score in scores), survivors)


def mutate(sources: Sequence[str] = ()) -> list[Score]:
    """Mutate sources, run their tests against each mutant, and return the score of each file.

    Args:
        sources: names in `TESTS`; all of them by default.

    Raises:
        LookupError: `TESTS` and `NOT_MEASURED` lack a source, or name one that does not exist.
    """
    present = {
        f"{name}/{path.name}" for name in ("promotion", "github") for path in (ROOT / PACKAGE / name).glob("[a-z]*")
    }
    wrong = (set(TESTS) | NOT_MEASURED) ^ present if not sources else set(sources) - set(TESTS)
    if wrong:
        raise LookupError(f"TESTS and NOT_MEASURED must name every source and no other; wrong: {sorted(wrong)}")
    scores = []
    for number, source in enumerate(sources or TESTS, 1):
        began = time.monotonic()
        label = f"[{number}/{len(sources or TESTS)}] {source}"
        print(f"{label} …", flush=True)
        found = _mutate(source, label)
        score = together(source, found)
        print(f"{label}: {score.killed} of {score.made} killed in {time.monotonic() - began:.0f} s", flush=True)
        scores += found
    return scores


def _mutate(source: str, label: str) -> list[Score]:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        _copy(copy, source)
        _run(copy, label)
        # Retry timeouts once: the machine may have been busy.
        again = [name for found in _outcomes(copy).values() for name, code in found.items() if code in TOO_LONG]
        if again:
            _run(copy, f"{label}, {len(again)} again", *again)
        return [
            Score(
                file,
                len(found),
                sum(code in TOO_LONG for code in found.values()),
                tuple(_shown(copy, file, name) for name, code in found.items() if code not in FAILED | TOO_LONG),
            )
            for file, found in sorted(_outcomes(copy).items())
        ]


def _run(copy: Path, label: str, *names: str) -> None:
    """Run mutmut for all mutants, or for those with these names."""
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
                print(f"{label}: {sum(code is not None for code in codes)} of {len(codes)} tried", flush=True)
    codes = _codes(copy)
    if status or not codes or None in codes:
        raise RuntimeError(f"mutmut did not finish:\n{(copy / 'log').read_text()[-3000:]}")


def _codes(copy: Path) -> list[int | None]:
    return [code for found in _outcomes(copy).values() for code in found.values()]


def _copy(copy: Path, source: str) -> None:
    """Copy the repository, with a configuration that makes mutmut mutate one source and run its tests."""
    for name in COPIED:
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    stacks = [path.name for path in ROOT.glob("Pulumi*.yaml")]
    for name in stacks:
        shutil.copy(ROOT / name, copy)
    tests = [f"tests/{PACKAGE}/{name}" for name in TESTS[source]]
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
    """Return file → mutant → exit status of the tests; None if they did not run yet."""
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
    """Return the environment without PYTHONPATH, which would find the original sources."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def main(arguments: list[str]) -> int:
    """Print every survivor and the scores; return 1 if a score is too low."""
    scores = mutate(arguments)
    for survivor in together("", scores).survivors:
        print(f"{survivor.name}: {survivor.reason or 'SURVIVED'}\n  - {survivor.was}\n  + {survivor.is_}")
    gates = [score for score in scores if score.file.startswith(GATES)]
    sums = [together(f"{GATES} together", gates)] if gates else []
    print(f"{'file':40} {'mutants':>8} {'killed':>8} {'score':>7} {'timeouts':>9} {'equivalent':>11} {'gaps':>5}")
    for score in (*scores, *sums, together(f"{PACKAGE} together", scores)):
        same = len(score.survivors) - len(score.gaps)
        print(
            f"{score.file:40} {score.made:8} {score.killed:8} {score.share:7.1%} {score.too_long:9} "
            f"{same:11} {len(score.gaps):5}"
        )
    others = [score for score in scores if score not in gates]
    return int(any(score.share < score.least for score in (*sums, *others)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
