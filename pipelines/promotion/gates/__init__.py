"""Gates: pure functions from facts to a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipelines.promotion.facts import Facts
from pipelines.promotion.gates.champion import champion
from pipelines.promotion.gates.compatibility import compatibility
from pipelines.promotion.gates.contract import contract
from pipelines.promotion.gates.digest import digest
from pipelines.promotion.gates.fairness import fairness
from pipelines.promotion.gates.freeze import freeze
from pipelines.promotion.gates.freshness import freshness
from pipelines.promotion.gates.image import image
from pipelines.promotion.gates.leakage import leakage
from pipelines.promotion.gates.order import order
from pipelines.promotion.gates.provenance import provenance
from pipelines.promotion.gates.quarantine import quarantine
from pipelines.promotion.gates.runtime import runtime
from pipelines.promotion.gates.scope import scope
from pipelines.promotion.gates.signature import signature
from pipelines.promotion.gates.soak import soak
from pipelines.promotion.gates.thresholds import thresholds
from pipelines.promotion.verdict import Verdict

GATES: Mapping[str, Callable[[Facts], Verdict]] = {
    gate.__name__: gate
    for gate in (
        scope,
        digest,
        signature,
        provenance,
        thresholds,
        champion,
        fairness,
        leakage,
        runtime,
        image,
        compatibility,
        order,
        soak,
        freshness,
        freeze,
        quarantine,
        contract,
    )
}
"""Every gate, in the order in which comments show them."""


def judge(facts: Facts) -> tuple[Verdict, ...]:
    """Return the verdict of every gate."""
    return tuple(gate(facts) for gate in GATES.values())


def admits(verdicts: tuple[Verdict, ...]) -> bool:
    """Return whether the promotion may go ahead: every gate gave a verdict, and every verdict is a pass."""
    return {verdict.gate for verdict in verdicts} == set(GATES) and all(v.outcome == "pass" for v in verdicts)
