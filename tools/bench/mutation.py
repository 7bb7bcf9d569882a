"""The tests of promotions, measured: how many small changes of `pipelines/promotion` make one of them fail.

On its own, with every change that no test noticed: `python -m tools.mutation`. Each change runs the quick tests of its
file alone (`TESTS` in that module), over an AWS account in memory; tests that kill processes or try hundreds of inputs
are not among them, so the score is rather too low than too high. Each gate, and each of its checks, is also deleted
as a whole, by `tests/pipelines/promotion/test_refused.py`, in `make test`.
"""

from __future__ import annotations

from tools.bench.figures import Figure
from tools.mutation import GATES, PACKAGE, Score, mutate, together


def measure() -> list[Figure]:
    """The mutation score of the gates, of each other file, and of all."""
    scores = mutate()
    gates = [score for score in scores if score.file.startswith(GATES)]
    others = [score for score in scores if score not in gates]
    return [
        _figure("changes of the gates' code that their tests notice", together(GATES, gates)),
        *(_figure(f"of `{score.file}`", score) for score in others),
        _figure(f"of all of `{PACKAGE}`", together("", scores)),
    ]


def _figure(name: str, score: Score) -> Figure:
    same = len(score.survivors) - len(score.gaps)
    of_others = f"; of the others, {same} change nothing that could be seen" if score.survivors else ""
    return Figure(
        name,
        f"{score.noticed:,} of {score.made:,}{of_others}",
        "",
        f"{score.share:.1%}",
        f"≥ {score.least:.0%}",
        score.share >= score.least,
    )


if __name__ == "__main__":
    for figure in measure():
        print(figure)
