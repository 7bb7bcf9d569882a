"""Mutation score of the promotion tests: the share of mutants of `pipelines` that the tests kill.

`python -m tools.mutation` lists every survivor. Only the quick tests of a file run against its mutants, with an AWS
account in memory. Property tests and tests that kill processes are left out, so the score is a lower bound. In
`make test`, `tests/pipelines/promotion/test_refused.py` also deletes every gate and every check of a gate.
"""

from __future__ import annotations

from tools.bench.figures import Figure
from tools.mutation.__main__ import GATES, PACKAGE, Score, mutate, together


def measure() -> list[Figure]:
    """Measure the mutation score of the gates, of each other file, and of all."""
    scores = mutate()
    gates = [score for score in scores if score.file.startswith(GATES)]
    others = [score for score in scores if score not in gates]
    return [
        _figure("killed mutants of the gates", together(GATES, gates)),
        *(_figure(f"of `{score.file}`", score) for score in others),
        _figure(f"of all of `{PACKAGE}`", together("", scores)),
    ]


def _figure(name: str, score: Score) -> Figure:
    same = len(score.survivors) - len(score.gaps)
    of_others = f"; {same} survivors are equivalent" if score.survivors else ""
    return Figure(
        name,
        f"{score.killed:,} of {score.made:,}{of_others}",
        "",
        f"{score.share:.1%}",
        f"≥ {score.least:.0%}",
        score.share >= score.least,
    )


if __name__ == "__main__":
    for figure in measure():
        print(figure)
