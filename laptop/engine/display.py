"""How steps and results look on a terminal, and plainly where there is none."""

from __future__ import annotations

import itertools
import json
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from laptop.engine.report import Progress
from laptop.engine.steps import Change, Kind, Step
from laptop.engine.urns import Urn
from laptop.engine.values import UNKNOWN

LONGEST_VALUE = 160
"""Characters of a value that are shown."""

SAME_BEFORE = 40
"""Of them, at most so many in front of where two long values begin to differ."""

SIGNS: Mapping[Kind, tuple[str, str]] = {
    Kind.CREATE: ("+", "green"),
    Kind.UPDATE: ("~", "yellow"),
    Kind.REPLACE: ("+-", "magenta"),
    Kind.DELETE: ("-", "red"),
    Kind.DELETE_REPLACED: ("-", "red"),
    Kind.FORGET: ("-", "dim"),
    Kind.IMPORT: ("=", "green"),
    Kind.READ: (">", "cyan"),
    Kind.SAME: (" ", "dim"),
    Kind.DRIFTED: ("~", "yellow"),
    Kind.GONE: ("-", "red"),
    Kind.SKIPPED: (" ", "dim"),
}
_NOT_HERE = "not at the local target: "
QUIET = frozenset({Kind.SAME, Kind.READ})

_WORDS: Mapping[str, tuple[str, str, str]] = {
    # outcome: sign, after it was done, before
    Kind.CREATE.value: ("+", "created", "to create"),
    Kind.IMPORT.value: ("=", "imported", "to import"),
    Kind.UPDATE.value: ("~", "updated", "to update"),
    Kind.REPLACE.value: ("+-", "replaced", "to replace"),
    Kind.DELETE.value: ("-", "deleted", "to delete"),
    Kind.FORGET.value: ("-", "forgotten", "to forget"),
    "recorded": ("+", "recorded only", "to record only"),
    "partly": ("", "of these with properties recorded only", "of these with properties to record only"),
    Kind.DRIFTED.value: ("~", "drifted", "drifted"),
    Kind.GONE.value: ("-", "gone", "gone"),
    Kind.SAME.value: ("", "unchanged", "unchanged"),
    Kind.SKIPPED.value: ("", "skipped", "skipped"),
    "failed": ("", "failed", "failed"),
}


def show_value(value: Any) -> str:
    """A value on one line."""
    return _cut(_on_one_line(value))


def show_both(old: Any, new: Any) -> tuple[str, str]:
    """Two values that differ, each on one line; of long ones the part where they begin to differ."""
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


def show_change(change: Change, *, replaces: bool = False) -> str:
    """`tags.owner: "ann" => "ben"`, with a sign for what was added, removed or changed."""
    because = "  (forces replacement)" if replaces else ""
    if change.old is None:
        return f"+ {change.path}: {show_value(change.new)}{because}"
    if change.new is None:
        return f"- {change.path}: {show_value(change.old)}{because}"
    old, new = show_both(change.old, change.new)
    return f"~ {change.path}: {old} => {new}{because}"


def show_step(step: Step) -> list[str]:
    """The lines of a step: what happens to which resource, then the properties that differ."""
    sign, _ = SIGNS[step.kind]
    what = "recorded" if step.recorded and step.kind in (Kind.CREATE, Kind.REPLACE, Kind.UPDATE) else step.kind.value
    lines = [f"{sign:>2} {step.type}  {step.name}  {'failed' if step.error else what}"]
    if step.recorded and what == "recorded":
        lines.append(f"     {_NOT_HERE}{step.recorded}")
    lines += [f"     recorded, {_NOT_HERE}{path}: {reason}" for path, reason in step.without]
    lines += ["     " + show_change(change, replaces=_forces(change.path, step.replaces)) for change in step.changes]
    if step.error:
        lines.append(f"     {step.urn}")
        lines += [f"     {line}" for line in step.error.splitlines()]
    return lines


def _forces(path: str, replaces: Iterable[str]) -> bool:
    return any(path == other or path.startswith((f"{other}.", f"{other}[")) for other in replaces)


def show_summary(counts: Mapping[str, int], seconds: float, *, planned: bool) -> str:
    """`Resources: + 12 created, ~ 1 updated, 100 unchanged; Duration 3s`."""
    parts = [
        f"{sign} {counts[key]} {before if planned else after}".strip()
        for key, (sign, after, before) in _WORDS.items()
        if counts.get(key)
    ]
    return f"Resources: {', '.join(parts) or 'none'}; Duration {seconds:.1f}s"


def show_outputs(outputs: Mapping[str, Any]) -> list[str]:
    """The outputs of a stack, one a line."""
    width = max(map(len, outputs), default=0)
    return [f"    {name:<{width}}  {show_value(value)}" for name, value in sorted(outputs.items())]


class Display:
    """Prints a run while it goes on: in colour on a terminal, else one plain line a step.

    Args:
        stream: where to; standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._lock = threading.Lock()
        self._reasons: set[str] = set()

    def began(self, step: Step) -> None:
        """Only a terminal shows what is under way; a log has enough with what ended."""
        if self._console.is_terminal:
            sign, _ = SIGNS[step.kind]
            self._print(f"{sign:>2} {step.type}  {step.name}  …", "dim")

    def ended(self, step: Step) -> None:
        if step.kind in QUIET and not step.error:
            return
        lines = [self._said(line) for line in show_step(step)]
        style = "bold red" if step.error else SIGNS[step.kind][1]
        self._print("\n".join(lines), style)

    def noticed(self, text: str) -> None:
        self._print(text, "cyan")

    def _said(self, line: str) -> str:
        """The line, with the reason why something is not at the target given in full only once."""
        what, known, reason = line.partition(_NOT_HERE)
        if not known:
            return line
        with self._lock:
            again = reason in self._reasons
            self._reasons.add(reason)
        return f"{what}{known}{reason.partition(': ')[0]}: as above" if again and ": " in reason else line

    def summary(self, counts: Mapping[str, int], seconds: float, *, planned: bool = False) -> None:
        """The last line."""
        self._print(show_summary(counts, seconds, planned=planned), "bold")

    def outputs(self, outputs: Mapping[str, Any]) -> None:
        if outputs:
            self._print("\n".join(["Outputs:", *show_outputs(outputs)]), "")

    def _print(self, text: str, style: str) -> None:
        with self._lock:
            self._console.print(Text(text, style=style))


class Overview(Display):
    """Prints how many resources each component of the program came to, faults, and the last line."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._counts: Counter[str] = Counter()

    def began(self, step: Step) -> None:
        """Nothing."""

    def ended(self, step: Step) -> None:
        if step.error:
            super().ended(step)
        types = Urn.parse(step.urn).types
        if len(types) > 1 and types[-1].startswith(("aws:", "kubernetes:")):
            with self._lock:
                self._counts[types[0].rpartition(":")[2].lower()] += 1

    def summary(self, counts: Mapping[str, int], seconds: float, *, planned: bool = False) -> None:
        self._print("   " + ", ".join(f"{name} {count}" for name, count in self._counts.most_common()), "")
        super().summary(counts, seconds, planned=planned)


class Silence:
    """Shows nothing."""

    def began(self, step: Step) -> None:
        """Nothing."""

    def ended(self, step: Step) -> None:
        """Nothing."""

    def noticed(self, text: str) -> None:
        """Nothing."""


class Held(Silence):
    """Keeps what is said until it is known whether it is to be shown: a plan that is applied says it all again."""

    def __init__(self) -> None:
        self._notices: list[str] = []

    def noticed(self, text: str) -> None:
        """Kept."""
        self._notices.append(text)

    def release(self, progress: Progress) -> None:
        """Says what was kept."""
        for text in self._notices:
            progress.noticed(text)
