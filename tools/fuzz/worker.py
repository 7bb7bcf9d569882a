"""Fuzz one kind of input in this process: `python -m tools.fuzz.worker KIND SEED FIRST END`.

Each input follows from the kind, the seed and its number. A line of JSON on standard output announces each input before
it is used, so that the parent knows which one ended or held up this process.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tools.fuzz.subjects import Subject, find_subject, scratch_folder


def make_input(subject: Subject, kind: str, seed: int, number: int) -> Any:
    """Make the input with a number."""
    return subject.make(random.Random(f"{kind} {seed} {number}"))


def main(kind: str, seed: int, first: int, end: int) -> None:
    """Use the inputs from `first` to before `end`."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the product prints goes elsewhere

    def say(**values: Any) -> None:
        channel.write(json.dumps(values) + "\n")
        channel.flush()

    with scratch_folder() as folder:
        subject = find_subject(kind)(Path(folder))
        for number in range(first, end):
            given = make_input(subject, kind, seed, number)
            say(at=number)
            began = time.process_time()
            try:
                outcome = "accepted" if subject.judge(given) else "refused"
            except Exception:
                say(number=number, fault=traceback.format_exc())
                continue
            say(number=number, outcome=outcome, seconds=time.process_time() - began)
    say(end=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
