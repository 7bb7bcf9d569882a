"""Workflow commands: lines such as `::error::…`, and the files `$GITHUB_OUTPUT`, `$GITHUB_ENV`, …"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape

from pipelines.declarations.errors import MlopsError

_COMMAND = re.compile(r"\s*::(?P<name>[^ :]+)(?: (?P<properties>.*?))?::(?P<message>.*)", re.DOTALL)
_FORMER_COMMAND = re.compile(r".*?##\[(?P<name>[^] ]+)(?: (?P<properties>[^]]*))?\](?P<message>.*)", re.DOTALL)
"""Anywhere in a line (actions/runner, `ActionCommand.cs`)."""

_LEVELS = ("error", "warning", "notice", "debug")
_DISABLED = ("set-env", "add-path")
_DEPRECATED = ("set-output", "save-state")
_KNOWN = {*_LEVELS, *_DISABLED, *_DEPRECATED, "add-mask", "stop-commands"}
LARGEST_SUMMARY = 1 << 20
"""Bytes of a step's summary; GitHub's limit."""

_SHORTEST_PART = 8
"""Characters of a part of a base64 text. Shorter parts would hide what is no secret."""


class Masks:
    """Values to hide in logs."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, value: str) -> None:
        """Hide a value, each of its lines, and the forms that it takes in other texts; see `_forms_of`."""
        value = value.strip()
        if not value:
            return
        # A short line of a long secret, such as a brace, would hide most of the log.
        lines = {line.strip() for line in value.splitlines() if len(line.strip()) > 3}
        for text in {value, *lines}:
            self._values |= {form for form in _forms_of(text) if form}
        longest_first = sorted(self._values, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(form) for form in longest_first))

    def hide(self, text: str) -> str:
        """Return text with `***` in place of hidden values. Values that overlap or touch are hidden as one."""
        if self._pattern is None or self._pattern.search(text) is None:
            return text
        hidden, position = "", 0
        for start, end in self._ranges(text):
            hidden, position = f"{hidden}{text[position:start]}***", end
        return hidden + text[position:]

    def _ranges(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the ranges to hide, in order and apart from each other."""
        found = []
        for value in self._values:
            at = text.find(value)
            while at >= 0:
                found.append((at, at + len(value)))
                at = text.find(value, at + 1)
        found.sort()
        start, end = found[0]
        for next_start, next_end in found[1:]:
            if next_start > end:
                yield start, end
                start, end = next_start, next_end
            end = max(end, next_end)
        yield start, end

    def found_in(self, text: str) -> bool:
        """Return whether text contains a hidden value."""
        return self._pattern is not None and self._pattern.search(text) is not None


def _forms_of(value: str) -> Iterator[str]:
    """Yield a value as it looks in other texts: those that GitHub's runner hides, but for PowerShell's."""
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield quote(value, safe="")
    yield escape(value, {'"': "&quot;", "'": "&apos;"})
    yield value.replace("'", "''")  # in an expression
    yield value.replace('"', '\\"')  # in an argument
    if len(value) > _SHORTEST_PART and value[0] == value[-1] == '"':
        yield value[1:-1]
    content = value.encode()
    yield base64.b64encode(content).decode()
    # Inside another base64 text, as in `user:secret`: its bytes may begin at any place of a group of three.
    for shift in range(3):
        part = content[shift : shift + (len(content) - shift) // 3 * 3]
        encoded = base64.b64encode(part).decode()
        if len(encoded) >= _SHORTEST_PART:
            yield encoded


@dataclass(frozen=True)
class Annotation:
    """A message shown with a run; `level` is error, warning or notice."""

    level: str
    message: str
    file: str = ""
    line: str = ""
    title: str = ""


class Listener:
    """Reads the output of a step line by line.

    Args:
        masks: values to hide; `::add-mask::` adds to them.

    Attributes:
        annotations: what it was asked to show with the run.
        problems: why the step fails, whatever its exit code.
        outputs: outputs that the step sets by the old command `set-output`.
    """

    def __init__(self, masks: Masks) -> None:
        self.masks = masks
        self.annotations: list[Annotation] = []
        self.problems: list[str] = []
        self.outputs: dict[str, str] = {}
        self._resume = ""

    def hear(self, line: str) -> str:
        """Handle the line if it is a command, and return the line for the log."""
        command = _command_in(line, {self._resume} if self._resume else _KNOWN)
        if command is None:
            return self.masks.hide(line)
        name, properties, message = command
        if self._resume:
            self._resume = ""
            return self.masks.hide(line)
        if name == "add-mask":
            self.masks.add(message)
            return "::add-mask::***"
        if name == "stop-commands":
            self._resume = message.lower()
        elif name in _DISABLED:
            self.problems.append(f"GitHub has disabled the command ::{name}::; write to the file $GITHUB_… instead")
        elif name in _DEPRECATED:
            self._set_value(name, properties.get("name", ""), message)
        elif name in _LEVELS[:3]:
            shown = {key: self.masks.hide(properties.get(key, "")) for key in ("file", "line", "title")}
            self.annotations.append(Annotation(name, self.masks.hide(message), **shown))
        return self.masks.hide(line)

    def _set_value(self, command: str, name: str, value: str) -> None:
        if not name:
            self.problems.append(f"Required field 'name' is missing in ##[{command}] command.")
            return
        file = "$GITHUB_OUTPUT" if command == "set-output" else "$GITHUB_STATE"
        warning = f"The `{command}` command is deprecated and will be disabled soon. Write to the file {file} instead."
        if warning not in [each.message for each in self.annotations]:
            self.annotations.append(Annotation("warning", warning))
        if command == "set-output":
            self.outputs[name] = value


def _command_in(line: str, known: Collection[str]) -> tuple[str, dict[str, str], str] | None:
    """Return name, properties and message of the command in a line; None without a known one."""
    for pattern, separator, escapes in (
        (_COMMAND, ",", {"%0D": "\r", "%0A": "\n"}),
        (_FORMER_COMMAND, ";", {"%3B": ";", "%0D": "\r", "%0A": "\n", "%5D": "]"}),
    ):
        match = pattern.fullmatch(line)
        if match is None or match["name"].lower() not in known:
            continue
        pairs = (part.partition("=") for part in (match["properties"] or "").split(separator) if "=" in part)
        in_properties = {**escapes, "%3A": ":", "%2C": ","} if separator == "," else escapes
        properties = {key.strip(): _unescape(value, in_properties) for key, _, value in pairs}
        return match["name"].lower(), properties, _unescape(match["message"], escapes)
    return None


def _unescape(text: str, escapes: Mapping[str, str]) -> str:
    for escaped, character in escapes.items():
        text = text.replace(escaped, character)
    return text.replace("%25", "%")


def read_pairs(path: Path) -> dict[str, str]:
    """Return the names and values in `$GITHUB_OUTPUT` or `$GITHUB_ENV`.

    Raises:
        MlopsError: a line is neither `name=value` nor `name<<END`, or an END is missing.
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
    """Return the variables in `$GITHUB_ENV`.

    Raises:
        MlopsError: see `read_pairs`; also for variables that belong to the runner.
    """
    pairs = read_pairs(path)
    for name in pairs:
        if name.startswith(("GITHUB_", "RUNNER_")) or name == "NODE_OPTIONS":
            raise MlopsError(f"Can't set {name} through $GITHUB_ENV: it belongs to the runner")
    return pairs


def read_paths(path: Path) -> list[str]:
    """Return the folders in `$GITHUB_PATH`, last one first."""
    return [line for line in reversed(_read(path).splitlines()) if line]


def read_summary(path: Path) -> str:
    """Return the text of `$GITHUB_STEP_SUMMARY`.

    Raises:
        MlopsError: the file is too large. On GitHub, the step goes on without its summary.
    """
    size = path.stat().st_size if path.exists() else 0
    if size > LARGEST_SUMMARY:
        raise MlopsError(
            f"$GITHUB_STEP_SUMMARY upload aborted, supports content up to a size of {LARGEST_SUMMARY >> 10}k, "
            f"got {size >> 10}k"
        )
    return _read(path)


def _read(path: Path) -> str:
    if not path.exists():
        return ""
    return path.read_text(encoding="utf-8-sig", errors="replace")
