"""Fuzz what people and networks hand in: `python -m tools.fuzz 12000` (`make fuzz`).

Every input is accepted, or refused by an error for people. A traceback, a crash of the process, a hang and a slow
answer are faults: the report has each with the command that makes the input again. Exit status 1 if there are any.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.fuzz.subjects import ROOT, find_subject, known_kinds, scratch_folder

HANG_SECONDS = 120.0
"""Wall time after which an input counts as a hang, also on a busy machine."""

SLOW_SECONDS = 10.0
"""CPU time after which an input counts as slow: every input is small."""


@dataclass
class Report:
    """What happened to the inputs of one kind.

    Attributes:
        kind: the kind.
        seconds: wall time.
        slowest: CPU seconds of the slowest input.
        outcomes: outcome → number of inputs.
        faults: number of an input → what is wrong.
    """

    kind: str
    seconds: float = 0.0
    slowest: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: dict[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = [self.outcomes[name] for name in ("accepted", "refused")]
        return (
            f"{self.kind:<14}{sum(counts) + len(self.faults):>8}{counts[0]:>10}{counts[1]:>9}{len(self.faults):>8}"
            f"{self.seconds:>9.1f}{self.slowest:>10.2f}"
        )


def fuzz(kind: str, count: int, seed: int, hang_seconds: float = HANG_SECONDS) -> Report:
    """Use `count` inputs of a kind. A process that crashes or hangs is replaced, and goes on with the next input."""
    report, began, first = Report(kind), time.monotonic(), 0
    while first < count:
        with _Worker(kind, seed, first, count, hang_seconds) as worker:
            first = _follow(worker, report)
    report.seconds = time.monotonic() - began
    return report


def _follow(worker: _Worker, report: Report) -> int:
    """Add the outcomes of a worker to a report until it ends; return the number of the next input."""
    at = worker.first
    for line in worker.lines():
        if "at" in line:
            at = line["at"]
        elif "fault" in line:
            report.faults[at] = line["fault"]
        elif "outcome" in line:
            report.outcomes[line["outcome"]] += 1
            report.slowest = max(report.slowest, line["seconds"])
            if line["seconds"] > SLOW_SECONDS:
                report.faults[at] = f"slow: {line['seconds']:.1f} s of CPU time"
        elif "end" in line:
            return worker.end
    report.faults[at] = worker.why_it_ended()
    return at + 1


class _Worker:
    """A process of `tools.fuzz.worker`."""

    def __init__(self, kind: str, seed: int, first: int, end: int, hang_seconds: float) -> None:
        self.first, self.end, self._hang_seconds = first, end, hang_seconds
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed when the process ends
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.fuzz.worker", kind, str(seed), str(first), str(end)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1", "ORT_DISABLE_TELEMETRY": "1"},
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._hung = False

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield what the process says, until it ends or hangs."""
        assert self._process.stdout is not None
        handle, rest = self._process.stdout.fileno(), b""
        while True:
            ready, _, _ = select.select([handle], [], [], self._hang_seconds)
            if not ready:
                self._hung = True
                return
            chunk = os.read(handle, 1 << 16)
            if not chunk:
                return
            *whole, rest = (rest + chunk).split(b"\n")
            yield from map(json.loads, whole)

    def why_it_ended(self) -> str:
        """Return why the process said nothing more."""
        if self._hung:
            return f"hang: no answer within {self._hang_seconds:g} s"
        status = self._process.wait()
        self._errors.seek(0)
        return f"crash: status {status}\n{self._errors.read()[-4000:].decode(errors='replace')}"


def show(kind: str, seed: int, number: int) -> None:
    """Print an input, and use it in this process."""
    from tools.fuzz.worker import make_input

    with scratch_folder() as folder:
        subject = find_subject(kind)(Path(folder))
        given = make_input(subject, kind, seed, number)
        print(given.decode(errors="backslashreplace") if isinstance(given, bytes) else given, flush=True)
        print("accepted" if subject.judge(given) else "refused")


def main() -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description="Fuzz declarations, data and requests.")
    parser.add_argument("count", type=int, nargs="?", default=1200, help="number of inputs of all kinds together")
    parser.add_argument("--seed", type=int, default=0, help="other seeds make other inputs")
    parser.add_argument("--kind", choices=known_kinds(), action="append", help="only this kind; can be repeated")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--show", type=int, metavar="NUMBER", help="print and use one input of a --kind")
    given = parser.parse_args()
    kinds = tuple(given.kind or known_kinds())
    if given.show is not None:
        show(kinds[0], given.seed, given.show)
        return 0
    share, more = divmod(given.count, len(kinds))
    print(
        f"{'kind':<14}{'inputs':>8}{'accepted':>10}{'refused':>9}{'faults':>8}{'seconds':>9}{'slowest':>10}", flush=True
    )
    reports = []
    with ThreadPoolExecutor(given.jobs) as pool:
        counts = [share + (index < more) for index in range(len(kinds))]
        for report in pool.map(fuzz, kinds, counts, [given.seed] * len(kinds)):
            print(report, flush=True)
            reports.append(report)
    faults = [(report.kind, number, text) for report in reports for number, text in report.faults.items()]
    for kind, number, text in faults:
        again = f"python -m tools.fuzz --kind {kind} --seed {given.seed} --show {number}"
        print(f"\n{kind} {number} ({again}):\n{text}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
