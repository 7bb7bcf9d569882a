"""What a step says to the runner: lines such as `::error::…`, and the files behind `$GITHUB_OUTPUT` and its like."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.declarations.errors import MlopsError

_COMMAND = re.compile(r"^\s*::(?P<name>[a-z-]+)(?: (?P<properties>.*?))?::(?P<message>.*)$", re.DOTALL)
_LEVELS = ("error", "warning", "notice", "debug")
_GONE = ("set-output", "save-state", "set-env", "add-path")
LARGEST_FILE = 1 << 20
"""Bytes of an output, environment or summary file; GitHub's limit."""


class Masks:
    """The values that logs must not show."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, value: str) -> None:
        """Hide `value`, each of its lines, and its forms in JSON and base64."""
        value = value.strip()
        if not value:
            return
        forms = {value, json.dumps(value)[1:-1], base64.b64encode(value.encode()).decode()}
        # A short line of a long secret (a lone brace) would blacken the whole log.
        forms |= {line.strip() for line in value.splitlines() if len(line.strip()) > 3}
        self._values |= forms
        longest_first = sorted(self._values, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(form) for form in longest_first))

    def hide(self, text: str) -> str:
        """`text` with `***` in the place of every secret."""
        return self._pattern.sub("***", text) if self._pattern else text

    def found_in(self, text: str) -> bool:
        return self._pattern is not None and self._pattern.search(text) is not None


@dataclass(frozen=True)
class Annotation:
    """A message for people; `level` is error, warning or notice."""

    level: str
    message: str
    file: str = ""
    line: str = ""
    title: str = ""


class Listener:
    """Reads a step's output line by line.

    Args:
        masks: what to hide; `::add-mask::` adds to it.
    """

    def __init__(self, masks: Masks) -> None:
        self.masks = masks
        self.annotations: list[Annotation] = []
        self.problems: list[str] = []
        self._resume = ""

    def hear(self, line: str) -> str:
        """Obey the line if it is a command, and return what the log shows for it."""
        match = _COMMAND.match(line)
        if match is None:
            return self.masks.hide(line)
        name, message = match["name"], _unescape(match["message"])
        if self._resume:
            if name == self._resume:
                self._resume = ""
            return self.masks.hide(line)
        if name == "add-mask":
            self.masks.add(message)
            return "::add-mask::***"
        if name == "stop-commands":
            self._resume = message
        elif name in _GONE:
            self.problems.append(
                f"the command ::{name}:: is switched off on GitHub; write to the file $GITHUB_… instead"
            )
        elif name in _LEVELS[:3]:
            properties = dict(_properties(match["properties"] or ""))
            shown = {key: self.masks.hide(properties.get(key, "")) for key in ("file", "line", "title")}
            self.annotations.append(Annotation(name, self.masks.hide(message), **shown))
        return self.masks.hide(line)


def _properties(text: str) -> list[tuple[str, str]]:
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return [(key.strip(), _unescape(value).replace("%3A", ":").replace("%2C", ",")) for key, _, value in pairs]


def _unescape(text: str) -> str:
    return text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")


def read_pairs(path: Path) -> dict[str, str]:
    """The names and values of `$GITHUB_OUTPUT` or `$GITHUB_ENV`.

    Raises:
        MlopsError: a line is neither `name=value` nor `name<<END`, the END is missing, or the file is too large.
    """
    lines = _read(path).split("\n")
    pairs: dict[str, str] = {}
    position = 0
    while position < len(lines):
        line = lines[position].removesuffix("\r")
        position += 1
        if not line:
            continue
        equals, heredoc = line.find("="), line.find("<<")
        if heredoc > 0 and (equals < 0 or heredoc < equals):
            name, end = line[:heredoc], line[heredoc + 2 :]
            value: list[str] = []
            while position < len(lines) and lines[position].removesuffix("\r") != end:
                value.append(lines[position])
                position += 1
            if position == len(lines) or not end:
                raise MlopsError(f"Invalid value. Matching delimiter not found {end!r} for {name!r}")
            position += 1
            pairs[name] = "\n".join(value)
        elif equals > 0:
            pairs[line[:equals]] = line[equals + 1 :]
        else:
            raise MlopsError(f"Invalid format {line[:80]!r}", fix="write name=value, or name<<END … END")
    return pairs


def read_exports(path: Path) -> dict[str, str]:
    """The variables of `$GITHUB_ENV`.

    Raises:
        MlopsError: see `read_pairs`; also for variables that belong to the runner.
    """
    pairs = read_pairs(path)
    for name in pairs:
        if name.startswith(("GITHUB_", "RUNNER_")) or name == "NODE_OPTIONS":
            raise MlopsError(f"Can't set {name} through $GITHUB_ENV: it belongs to the runner")
    return pairs


def read_paths(path: Path) -> list[str]:
    """The folders of `$GITHUB_PATH`, the last one first."""
    return [line for line in reversed(_read(path).splitlines()) if line]


def read_summary(path: Path) -> str:
    """The text of `$GITHUB_STEP_SUMMARY`."""
    return _read(path)


def _read(path: Path) -> str:
    if not path.exists():
        return ""
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise MlopsError(f"{path.name} has {size} bytes; at most {LARGEST_FILE} are allowed")
    return path.read_text(encoding="utf-8", errors="replace")
