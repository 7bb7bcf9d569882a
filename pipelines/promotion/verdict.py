"""Verdicts of gates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from pipelines.declarations.documents import Declaration

Outcome = Literal["pass", "fail", "inconclusive"]

LOG_MARKS: dict[Outcome, str] = {"pass": "pass", "fail": "FAIL", "inconclusive": "????"}


class Verdict(Declaration):
    """The verdict of one gate. Anything but a pass refuses the promotion.

    Attributes:
        gate: the gate's name.
        outcome: `inconclusive` if a fact is unknown or there is too little data to decide.
        figure: what was found, in a few words.
        threshold: what was expected, in a few words.
        why: the reason, in a sentence.
        fix: what to do; empty for a pass.
        measured: whether this is a refusal by a measurement, which may come out differently when it is repeated.
    """

    gate: str
    outcome: Outcome
    figure: str
    threshold: str
    why: str
    fix: str = ""
    measured: bool = False


def passed(gate: str, figure: str, threshold: str, why: str) -> Verdict:
    """Return a pass."""
    return Verdict(gate=gate, outcome="pass", figure=figure, threshold=threshold, why=why)


def failed(gate: str, figure: str, threshold: str, why: str, fix: str, *, measured: bool = False) -> Verdict:
    """Return a refusal."""
    return Verdict(gate=gate, outcome="fail", figure=figure, threshold=threshold, why=why, fix=fix, measured=measured)


def inconclusive(gate: str, threshold: str, why: str, fix: str, figure: str = "unknown") -> Verdict:
    """Return a verdict that neither passes nor fails; it refuses the promotion too."""
    return Verdict(gate=gate, outcome="inconclusive", figure=figure, threshold=threshold, why=why, fix=fix)


def log_verdicts(verdicts: Iterable[Verdict], log: Callable[[str], None]) -> None:
    """Write one line for each verdict to a log."""
    for verdict in verdicts:
        log(f"{LOG_MARKS[verdict.outcome]}  {verdict.gate:<15} {verdict.figure:<28} {verdict.why}")
