"""Delays of AWS that the laptop imitates in realistic mode. `delays.yaml` lists them.

A laptop has delays only if it was started with some. They are in a file of its home, where its processes find them.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError

FILE = "delays.json"
"""File in a laptop's home with its delays, if it is realistic."""

VARIABLE = "MLOPS_LAPTOP_DELAYS"
"""Variable with delays in seconds, `load-balancer=30,dns=5`. Options on the command line come before it."""

_CATALOGUE = Path(__file__).with_name("delays.yaml")


@dataclass(frozen=True)
class DelayedEffect:
    """One delay.

    Attributes:
        name: name for options and settings.
        seconds: default, before the time scale.
        models: what happens late.
        documented: what AWS says about its length.
        source: URL of the documentation.
    """

    name: str
    seconds: float
    models: str
    documented: str
    source: str


@functools.cache
def catalogue() -> tuple[DelayedEffect, ...]:
    """Return every delay, in the order of `delays.yaml`."""
    return tuple(DelayedEffect(**entry) for entry in yaml.safe_load(_CATALOGUE.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Delays:
    """Delays of one laptop.

    Attributes:
        seconds: name → seconds on the clock of this machine, after the time scale. A missing name has no delay.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Return whether the laptop is realistic."""
        return bool(self.seconds)

    def __getitem__(self, name: str) -> float:
        """Return a delay in seconds.

        Raises:
            KeyError: no delay has this name.
        """
        if name not in _names():
            raise KeyError(name)
        return self.seconds.get(name, 0.0)

    def write(self, home: Path) -> None:
        """Write the delays to a laptop's home."""
        write_atomically(home / FILE, json.dumps(dict(self.seconds), indent=1) + "\n")

    @classmethod
    def read(cls, home: Path) -> Delays:
        """Return the delays of a laptop's home; none if it is not realistic."""
        try:
            return cls(json.loads((home / FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return NONE


NONE = Delays()
"""No delays: the ordinary laptop."""


def realistic(settings: Iterable[str] = (), *, time_scale: float = 1.0, factor: float = 1.0) -> Delays:
    """Return all delays.

    Args:
        settings: `name=seconds` each, before the time scale. The last one of a name counts.
        time_scale: how many times as fast time runs.
        factor: multiplies every delay.

    Raises:
        MlopsError: a setting is not `name=seconds`, or names no delay.
    """
    chosen = {delay.name: delay.seconds for delay in catalogue()}
    for setting in settings:
        name, seconds = _parse(setting)
        chosen[name] = seconds
    return Delays({name: seconds * factor / time_scale for name, seconds in chosen.items()})


def from_environment(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the settings in the variable `MLOPS_LAPTOP_DELAYS`."""
    text = (os.environ if environ is None else environ).get(VARIABLE, "")
    return [setting.strip() for setting in text.split(",") if setting.strip()]


def _parse(setting: str) -> tuple[str, float]:
    name, separator, text = setting.partition("=")
    if name not in _names():
        raise MlopsError(f"delay {name!r}: expected one of {', '.join(_names())}", fix="correct the name.")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not separator or not 0 <= seconds < math.inf:
        raise MlopsError(f"delay {name}: expected seconds, found {text!r}", fix=f"give a number: --delay {name}=30.")
    return name, seconds


def _names() -> tuple[str, ...]:
    return tuple(delay.name for delay in catalogue())
