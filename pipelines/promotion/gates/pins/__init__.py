"""Gates of image pins: pure functions from facts to a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipelines.promotion.facts.pin_facts import PinFacts
from pipelines.promotion.gates.pins.architecture import architecture
from pipelines.promotion.gates.pins.freeze import freeze
from pipelines.promotion.gates.pins.golden import golden
from pipelines.promotion.gates.pins.order import order
from pipelines.promotion.gates.pins.scope import scope
from pipelines.promotion.gates.pins.size import size
from pipelines.promotion.gates.pins.source import source
from pipelines.promotion.gates.pins.vulnerabilities import vulnerabilities
from pipelines.promotion.verdict import Verdict

PIN_GATES: Mapping[str, Callable[[PinFacts], Verdict]] = {
    gate.__name__: gate for gate in (scope, source, vulnerabilities, size, architecture, golden, order, freeze)
}
"""Every gate of an image, in the order in which comments show them."""


def judge_pin(facts: PinFacts) -> tuple[Verdict, ...]:
    """Return the verdict of every gate of an image."""
    return tuple(gate(facts) for gate in PIN_GATES.values())


def admits_pin(verdicts: tuple[Verdict, ...]) -> bool:
    """Return whether the image may be pinned: every gate gave a verdict, and every verdict is a pass."""
    return {verdict.gate for verdict in verdicts} == set(PIN_GATES) and all(v.outcome == "pass" for v in verdicts)
