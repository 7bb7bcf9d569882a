"""Facts of a promotion: their types, and how they are gathered."""

from pipelines.promotion.facts.types import (
    Facts,
    FileContent,
    Origin,
    Policy,
    Predecessor,
    SignedStatement,
    TrialResult,
)

__all__ = ["Facts", "FileContent", "Origin", "Policy", "Predecessor", "SignedStatement", "TrialResult"]
