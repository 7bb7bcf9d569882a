"""What a gate says of a candidate."""

from __future__ import annotations

from typing import Literal

from pipelines.declarations.documents import Declaration

Outcome = Literal["pass", "fail", "inconclusive"]


class Verdict(Declaration):
    """What one gate says. Anything but a pass refuses the promotion.

    Attributes:
        gate: its name.
        outcome: `inconclusive` when it could not be decided either way, for lack of a fact or of data.
        figure: what was found, in short.
        threshold: what it was held against, in short.
        why: what decided, in a sentence.
        fix: what to do about it; empty on a pass.
    """

    gate: str
    outcome: Outcome
    figure: str
    threshold: str
    why: str
    fix: str = ""


def passed(gate: str, figure: str, threshold: str, why: str) -> Verdict:
    """A pass."""
    return Verdict(gate=gate, outcome="pass", figure=figure, threshold=threshold, why=why)


def failed(gate: str, figure: str, threshold: str, why: str, fix: str) -> Verdict:
    """A refusal."""
    return Verdict(gate=gate, outcome="fail", figure=figure, threshold=threshold, why=why, fix=fix)


def inconclusive(gate: str, threshold: str, why: str, fix: str, figure: str = "unknown") -> Verdict:
    """Not decided, which refuses as well."""
    return Verdict(gate=gate, outcome="inconclusive", figure=figure, threshold=threshold, why=why, fix=fix)
