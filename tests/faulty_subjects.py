"""Subjects of the fuzzer with known faults."""

from __future__ import annotations

import os
import random
import threading

from pipelines.declarations.errors import MlopsError
from tools.fuzz.subjects import Subject


class Faulty(Subject):
    """Fails in another way for each input: its number in the order of use, modulo the number of ways."""

    used = 0

    def make(self, rng: random.Random) -> float:
        return rng.random()

    def use(self, given: float) -> None:
        Faulty.used += 1
        if Faulty.used == 1:
            raise MlopsError("a refusal")
        if Faulty.used == 2:
            raise TypeError("a fault of the program")
        if Faulty.used == 3:
            raise MlopsError("Traceback (most recent call last): …")
        if Faulty.used == 5:
            os.abort()


class Hanging(Subject):
    """Answers the first input only."""

    used = 0

    def make(self, rng: random.Random) -> None:
        return None

    def use(self, given: None) -> None:
        Hanging.used += 1
        if Hanging.used > 1:
            threading.Event().wait()
