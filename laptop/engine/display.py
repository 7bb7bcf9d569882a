"""Output of a run: coloured on a terminal, plain text elsewhere."""

from __future__ import annotations

import itertools
import json
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from infra.policies.resource_graph import UNKNOWN
from laptop.engine.progress import RunProgress
from laptop.engine.resource_steps import PropertyChange, ResourceStep, StepKind
from laptop.engine.urns import Urn

LONGEST_VALUE = 160
"""Maximum number of characters shown of a value."""

SAME_BEFORE = 40
"""Maximum number of characters shown before the first difference of two long values."""

SIGNS: Mapping[StepKind, tuple[str, str]] = {
    StepKind.CREATE: ("+", "green"),
    StepKind.UPDATE: ("~", "yellow"),
    StepKind.REPLACE: ("+-", "magenta"),
    StepKind.DELETE: ("-", "red"),
    StepKind.DELETE_REPLACED: ("-", "red"),
    StepKind.FORGET: ("-", "dim"),
    StepKind.READ: (">", "cyan"),
    StepKind.IMPORT: ("=", "green"),
    StepKind.SAME: (" ", "dim"),
    StepKind.DRIFTED: ("~", "yellow"),
    StepKind.GONE: ("-", "red"),
    StepKind.SKIPPED: (" ", "dim"),
}
_NO_EFFECT = "no effect on the laptop: "
QUIET = frozenset({StepKind.SAME, StepKind.READ})
SUMMED_UP = frozenset({StepKind.CREATE, StepKind.IMPORT})
"""Steps that an overview only counts. Every other one may surprise its reader."""

_WORDS: Mapping[str, tuple[str, str, str]] = {
    # outcome: sign, text after an `up`, text in a preview
    StepKind.CREATE.value: ("+", "created", "to create"),
    StepKind.UPDATE.value: ("~", "updated", "to update"),
    StepKind.REPLACE.value: ("+-", "replaced", "to replace"),
    StepKind.DELETE.value: ("-", "deleted", "to delete"),
    StepKind.FORGET.value: ("-", "forgotten", "to forget"),
    StepKind.IMPORT.value: ("=", "imported", "to import"),
    "recorded": ("+", "recorded only", "to record only"),
    "partly": ("", "with properties recorded only", "with properties to record only"),
    StepKind.DRIFTED.value: ("~", "drifted", "drifted"),
    StepKind.GONE.value: ("-", "gone", "gone"),
    StepKind.SAME.value: ("", "unchanged", "unchanged"),
    StepKind.SKIPPED.value: ("", "skipped", "skipped"),
    "failed": ("", "failed", "failed"),
}


def show_value(value: Any) -> str:
    """Format a value on one line."""
    return _cut(_on_one_line(value))


def show_both(old: Any, new: Any) -> tuple[str, str]:
    """Format two different values, each on one line. Long ones are cut to where they begin to differ."""
    texts = _on_one_line(old), _on_one_line(new)
    if max(map(len, texts)) > LONGEST_VALUE:
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False))
        begins = sum(1 for _ in same) - SAME_BEFORE
        if begins > 0:
            texts = "…" + texts[0][begins:], "…" + texts[1][begins:]
    return _cut(texts[0]), _cut(texts[1])


def _on_one_line(value: Any) -> str:
    return repr(UNKNOWN) if value is UNKNOWN else json.dumps(value, default=repr, ensure_ascii=False)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def show_change(change: PropertyChange, *, replaces: bool = False) -> str:
    """Format a change: `~ tags.owner: "ann" => "ben"`, with `+` for an addition and `-` for a removal."""
    because = "  (forces replacement)" if replaces else ""
    if change.old is None:
        return f"+ {change.path}: {show_value(change.new)}{because}"
    if change.new is None:
        return f"- {change.path}: {show_value(change.old)}{because}"
    old, new = show_both(change.old, change.new)
    return f"~ {change.path}: {old} => {new}{because}"


def show_step(step: ResourceStep) -> list[str]:
    """Format a step: one line for the resource, then one per changed property."""
    sign, _ = SIGNS[step.kind]
    is_recorded = step.recorded and step.kind in (StepKind.CREATE, StepKind.REPLACE, StepKind.UPDATE)
    what = "recorded only" if is_recorded else step.kind.value
    lines = [f"{sign:>2} {step.type}  {step.name}  {'failed' if step.error else what}"]
    if is_recorded:
        lines.append(f"     {_NO_EFFECT}{step.recorded}")
    lines += [f"     recorded only, {_NO_EFFECT}{path}: {reason}" for path, reason in step.without]
    lines += ["     " + show_change(change, replaces=_forces(change.path, step.replaces)) for change in step.changes]
    if step.error:
        lines.append(f"     {step.urn}")
        lines += [f"     {line}" for line in step.error.splitlines()]
    return lines


def _forces(path: str, replaces: Iterable[str]) -> bool:
    return any(path == other or path.startswith((f"{other}.", f"{other}[")) for other in replaces)


def show_summary(counts: Mapping[str, int], seconds: float, *, planned: bool) -> str:
    """Format the summary: `Resources: + 12 created, ~ 1 updated, 100 unchanged; Duration 3.0s`."""
    parts = [
        f"{sign} {counts[key]} {before if planned else after}".strip()
        for key, (sign, after, before) in _WORDS.items()
        if counts.get(key)
    ]
    return f"Resources: {', '.join(parts) or 'none'}; Duration {seconds:.1f}s"


def show_outputs(outputs: Mapping[str, Any]) -> list[str]:
    """Format the outputs of a stack, one per line."""
    width = max(map(len, outputs), default=0)
    return [f"    {name:<{width}}  {show_value(value)}" for name, value in sorted(outputs.items())]


class Display:
    """Prints the events of a run: coloured on a terminal, else one plain line per step.

    Args:
        stream: standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._lock = threading.Lock()
        self._reasons: set[str] = set()

    def began(self, step: ResourceStep) -> None:
        """Print the start of a step, on a terminal only."""
        if self._console.is_terminal:
            sign, _ = SIGNS[step.kind]
            self._print(f"{sign:>2} {step.type}  {step.name}  …", "dim")

    def ended(self, step: ResourceStep) -> None:
        if step.kind in QUIET and not step.error:
            return
        lines = [line for line in map(self._shortened, show_step(step)) if line is not None]
        style = "bold red" if step.error else SIGNS[step.kind][1]
        self._print("\n".join(lines), style)

    def noticed(self, text: str) -> None:
        self._print(text, "cyan")

    def _shortened(self, line: str) -> str | None:
        """Shorten a reason that was printed before; None if nothing of the line is left to say.

        The line above has said `recorded only`.
        """
        what, known, reason = line.partition(_NO_EFFECT)
        if not known:
            return line
        with self._lock:
            again = reason in self._reasons
            self._reasons.add(reason)
        if not again:
            return line
        return f"{what}{known}{reason.partition(': ')[0]}: as above" if what.strip() else None

    def summary(self, counts: Mapping[str, int], seconds: float, *, planned: bool = False) -> None:
        """Print the last line."""
        self._print(show_summary(counts, seconds, planned=planned), "bold")

    def outputs(self, outputs: Mapping[str, Any]) -> None:
        if outputs:
            self._print("\n".join(["Outputs:", *show_outputs(outputs)]), "")

    def _print(self, text: str, style: str) -> None:
        with self._lock:
            self._console.print(Text(text, style=style))


class Overview(Display):
    """Prints created resources as one line per type of component; prints every other step as `Display` does."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._counts: Counter[str] = Counter()
        self._names: dict[str, set[str]] = {}

    def began(self, step: ResourceStep) -> None:
        """Print the first resource of a component that is created, on a terminal only."""
        if step.kind not in SUMMED_UP:
            super().began(step)
        elif _is_of_cloud(step) and self._console.is_terminal:
            component = _component(step)
            with self._lock:
                is_first = component not in self._counts
                self._counts[component] += 0
            if is_first:
                self._print(f" + {component}  …", "dim")

    def ended(self, step: ResourceStep) -> None:
        if step.kind not in SUMMED_UP or step.error:
            super().ended(step)
            return
        urn, component = Urn.parse(step.urn), _component(step)
        with self._lock:
            if _is_of_cloud(step):
                self._counts[component] += 1
            elif len(urn.types) == 1:
                self._names.setdefault(component, set()).add(urn.name)

    def summary(self, counts: Mapping[str, int], seconds: float, *, planned: bool = False) -> None:
        width = max(map(len, self._counts), default=0)
        for component, number in self._counts.most_common():
            names = sorted(self._names.get(component, set()) - {component})
            whose = f" for {', '.join(names)}" if names else ""
            self._print(f" + {component:<{width}}  {number} created{whose}", SIGNS[StepKind.CREATE][1])
        super().summary(counts, seconds, planned=planned)


def _is_of_cloud(step: ResourceStep) -> bool:
    """Return True for a step of an AWS or Kubernetes resource, and False for a component, a provider or the stack."""
    return step.type.startswith(("aws:", "kubernetes:"))


def _component(step: ResourceStep) -> str:
    """Return the type of the component to which a resource belongs, in words: `data monitor`."""
    name = Urn.parse(step.urn).types[0].rpartition(":")[2]
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


class Silence:
    """Discards the events of a run."""

    def began(self, step: ResourceStep) -> None:
        """Do nothing."""

    def ended(self, step: ResourceStep) -> None:
        """Do nothing."""

    def noticed(self, text: str) -> None:
        """Do nothing."""


class Held(Silence):
    """Holds messages back. If the plan is applied, they are dropped, because the run repeats them."""

    def __init__(self) -> None:
        self._notices: list[str] = []

    def noticed(self, text: str) -> None:
        """Hold a message back."""
        self._notices.append(text)

    def release(self, progress: RunProgress) -> None:
        """Pass on the messages."""
        for text in self._notices:
            progress.noticed(text)
