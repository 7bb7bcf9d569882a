"""Record of a conformance run: which engine ran which tests, and how they ended. The README's table is made from it."""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from laptop.conformance.engines import ENGINES, EngineMissing, find
from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.plurals import counted

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "build" / "conformance.json"
"""Where a run writes its record."""

BEGIN, END = "<!-- conformance: begin -->", "<!-- conformance: end -->"
"""Lines of the README between which the table stands."""

ENGINES_PROPERTY, SUBJECT_PROPERTY = "conformance-engines", "conformance-subject"
"""Properties with which a test reports the engines that it needs, and what it is about."""

FOUND_PROPERTY = "conformance-found"
"""Property with which a test reports another engine that it found: its name and version."""

SELECTED = "CONFORMANCE_SELECTED"
"""Environment variable that is set in a run of a selection of the tests."""

REPEATED = "CONFORMANCE_REPEATED"
"""Environment variable that is set when failed tests are run again, to be added to the last record."""

Ending = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class TestEnding:
    """End of one test.

    Attributes:
        test: its node id.
        subject: what its module is about.
        engines: engines that it needs.
        ending: how it ended.
        reason: why it was skipped or failed, or "".
        found: other engines that it found: name → version.
    """

    __test__ = False

    test: str
    subject: str
    engines: tuple[str, ...]
    ending: Ending
    reason: str = ""
    found: Mapping[str, str] = field(default_factory=dict)


class RunRecorder:
    """Pytest plugin that writes `RECORD`. Workers of pytest-xdist report to the one in the main process.

    Args:
        config: configuration of the run.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._started = time.monotonic()
        self._endings: dict[str, TestEnding] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        properties: dict[str, Any] = dict(report.user_properties)
        earlier = self._endings.get(report.nodeid)
        if earlier is not None and earlier.ending == "failed":
            return
        self._endings[report.nodeid] = TestEnding(
            report.nodeid,
            str(properties.get(SUBJECT_PROPERTY, "")),
            tuple(properties.get(ENGINES_PROPERTY, ())),
            report.outcome,
            _reason_of(report),
            dict([properties[FOUND_PROPERTY]] if FOUND_PROPERTY in properties else []),
        )

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(self._config, "workerinput") or session.config.option.collectonly:
            return
        import os

        endings = list(self._endings.values())
        if REPEATED in os.environ:
            record = add_repeated(read_record(), endings)
        else:
            record = describe(endings, time.monotonic() - self._started, selected=SELECTED in os.environ)
        write_atomically(RECORD, json.dumps(record, indent=1) + "\n")


def _reason_of(report: pytest.TestReport) -> str:
    if report.passed:
        return ""
    if isinstance(report.longrepr, tuple):  # a skip: file, line, reason
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else report.longrepr).partition("\n")[0]


def describe(endings: Sequence[TestEnding], seconds: float, *, selected: bool = False) -> dict[str, Any]:
    """Return the record of a run.

    Args:
        endings: how each test ended.
        seconds: duration of the run.
        selected: True if only a part of the tests was asked for.
    """
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(seconds),
        "selected": selected,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "engines": {name: _of_engine(name, endings) for name in ENGINES} | _others(endings),
        "tests": [vars(ending) for ending in endings],
    }


def add_repeated(record: Mapping[str, Any], endings: Sequence[TestEnding]) -> dict[str, Any]:
    """Return the record of a run with the new endings of tests that failed in it and were run again.

    Args:
        record: the record of the run.
        endings: how the tests of their files ended.
    """
    again = {ending.test: ending for ending in endings}
    earlier = [TestEnding(**test) for test in record["tests"]]
    merged = [again.get(ending.test, ending) for ending in earlier]
    repeated = sorted({*record.get("repeated", ()), *failed_tests(record)})
    facts = describe(merged, record["seconds"], selected=record["selected"])
    return {**facts, "date": record["date"], "repeated": repeated}


def failed_tests(record: Mapping[str, Any]) -> list[str]:
    """Return the ids of the tests that failed."""
    return [test["test"] for test in record["tests"] if test["ending"] == "failed"]


def _others(endings: Sequence[TestEnding]) -> dict[str, Any]:
    """Return the facts about engines that tests found, such as the one that builds images."""
    versions = {name: version for ending in endings for name, version in ending.found.items()}
    return {
        name: {"version": version, "source": "PATH"} | _counts([e for e in endings if name in e.found])
        for name, version in versions.items()
    }


def _of_engine(name: str, endings: Iterable[TestEnding]) -> dict[str, Any]:
    try:
        found = find(name)
        facts = {"version": found.version, "source": "built" if found.built else "PATH"}
    except EngineMissing as error:
        facts = {"version": "", "source": "", "missing": error.what}
    return facts | _counts([ending for ending in endings if name in ending.engines])


def _counts(endings: Sequence[TestEnding]) -> dict[str, Any]:
    counts = Counter(ending.ending for ending in endings)
    ran = list(dict.fromkeys(ending.subject for ending in endings if ending.ending != "skipped"))
    return {"ran": ran, **{key: counts[key] for key in ("passed", "failed", "skipped")}}


def read_record(path: Path = RECORD) -> dict[str, Any]:
    """Return the record of the last run.

    Raises:
        MlopsError: there is none, or it is not readable.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise MlopsError(f"{path} does not exist", fix="make conformance") from None
    except ValueError as error:
        raise MlopsError(f"{path} is not JSON: {error}", fix="make conformance") from None
    return record


def table(record: dict[str, Any]) -> str:
    """Return the README's table of a record, in Markdown.

    Raises:
        MlopsError: the run was of a selection of the tests, or a test failed.
    """
    if record["selected"]:
        raise MlopsError(
            "the last conformance run is incomplete: expected all tests, found a selection",
            fix="make conformance, without K",
        )
    if failed := failed_tests(record):
        raise MlopsError(
            f"the last conformance run failed: expected no failed test, found {len(failed)}: {', '.join(failed[:3])}",
            fix="correct what failed, then make conformance; or python -m laptop.conformance run --failed",
        )
    lines = ["| engine | version | date | what it ran |", "|---|---|---|---|"]
    for name, facts in record["engines"].items():
        subjects = ", ".join(subject.partition(":")[0] for subject in facts["ran"])
        ran = f"{counted(facts['passed'], 'test')}: {subjects}" if facts["ran"] else "nothing yet"
        lines.append(f"| {name} | {facts['version'] or '-'} | {record['date']} | {ran} |")
    tests = record["tests"]
    passed = sum(test["ending"] == "passed" for test in tests)
    minutes = counted(round(record["seconds"] / 60), "minute")
    lines += ["", f"{passed} of {len(tests)} tests passed, in {minutes}."]
    if repeated := record.get("repeated"):
        names = ", ".join(f"`{test.rpartition('::')[2]}`" for test in repeated)
        lines.append(f"These failed in the first run and passed in the second, some after a correction: {names}.")
    return "\n".join(lines)


def with_table(readme: str, text: str) -> str:
    """Return the text of the README with the table between its markers replaced.

    Raises:
        MlopsError: the markers are missing.
    """
    before, found, rest = readme.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise MlopsError(f"README.md: expected the lines {BEGIN} and {END}, found none", fix="restore them.")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"
