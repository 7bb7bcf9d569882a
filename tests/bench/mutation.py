"""The tests of the gates, measured: how many small changes of the gates' code they notice.

On its own, with every change that they do not: `python -m tests.mutation`.
"""

from __future__ import annotations

from tests.bench.figures import Figure
from tests.mutation import LEAST, mutate


def measure() -> list[Figure]:
    """The mutation score of the gates."""
    score = mutate()
    noticed = score.made - len(score.survivors)
    same = len(score.survivors) - len(score.gaps)
    return [
        Figure(
            "changes of the gates' code that their tests notice",
            f"{noticed:,} of {score.made:,}; of the others, {same} change nothing that could be seen",
            "",
            f"{score.share:.1%}",
            f"≥ {LEAST:.0%}",
            score.share >= LEAST,
        )
    ]


if __name__ == "__main__":
    for figure in measure():
        print(figure)
