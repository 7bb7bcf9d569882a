"""Change valid documents and bytes at random, so that most results are nearly valid."""

from __future__ import annotations

import copy
import random
from typing import Any

import yaml

Path = tuple[Any, ...]

NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 7, 100, 120, 255, 2**31 - 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64),
    *(10**30, 10**400, 0.0, -0.0, 0.1, 0.5, 1.5, -1.5, 1e-7, 1e-320, 1e38, 3.5e38, 1e308, 1e309, -1e309),
)

TEXTS: tuple[str, ...] = (
    *("", " ", "a", "A", "null", "~", "true", "no", "1", "010", "1e5", "0x1f", "nan", "-", "x" * 5000, "a" * 64),
    *(
        "é",
        "日本",
        "😀",
        "\u202e",
        "\ufeff",
        "\u2028",
        "\x85",
        "\x07",
        "\0",
        "a\nb",
        "a\tb",
        "a'b",
        'a"b',
        "a;b",
        "a/b",
    ),
    *(
        "../..",
        "/etc/passwd",
        "a b",
        "a,b",
        "a:b",
        "a: b",
        "#",
        "%s",
        "{}",
        "${{ github }}",
        "$(id)",
        "`id`",
        "<script>",
    ),
    *("2026-01-31", "2026-02-30", "0000-01-01", "9999-12-31", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00+99:00"),
    *("[a-z]+", "(", "(?=a)", "(a+)+$", "\\", "[", "*", "a{1000}", "(?P<n>.)", "\\d{3}"),
    *(
        "string",
        "integer",
        "number",
        "boolean",
        "date",
        "timestamp",
        "object",
        "array",
        "int",
        "long",
        "double",
        "float",
    ),
    *("sha256:" + "0" * 64, "sha256:" + "g" * 64, "0" * 40, "dev", "staging", "prod", "regression", "classification"),
)

PIECES: tuple[bytes, ...] = (
    *(
        b"\t",
        b"\n",
        b"\r",
        b" ",
        b": ",
        b"- ",
        b"&a ",
        b"*a",
        b"!!str ",
        b"!!python/object:os.system ",
        b"<<: *a",
        b"\0",
    ),
    *(
        b"\xff",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xc3",
        b"\xed\xa0\x80",
        b"%YAML 1.1\n",
        b"---\n",
        b"...\n",
        b"? ",
        b"|\n",
        b">",
    ),
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b"'",
        b",",
        b"#",
        b"@",
        b"`",
        b"%",
        b"\\",
        b"\\u0000",
        b"null",
        b"NaN",
        b"Infinity",
        b"1e999",
    ),
    *(
        b"\xe2\x80\xa8",
        b"\xc2\x85",
        b"[" * 300,
        b"{a: " * 300,
        b'{"a":' * 300,
        b"- " * 300,
        b"9" * 5000,
        b"<<<<<<< HEAD\n",
    ),
)


class Mutator:
    """Source of random changes.

    Args:
        rng: generator that makes every choice.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def value(self, depth: int = 0) -> Any:
        """Return any value of JSON."""
        kind = self.rng.randrange(8 if depth < 3 else 6)
        if kind < 2:
            return self.rng.choice(NUMBERS)
        if kind < 4:
            return self.rng.choice(TEXTS)
        if kind == 4:
            return self.rng.choice((None, True, False, float("inf"), float("nan")))
        if kind == 5:
            return self.rng.randint(-1000, 1000)
        if kind == 6:
            return [self.value(depth + 1) for _ in range(self.rng.randrange(4))]
        return {self.rng.choice(TEXTS[:20]): self.value(depth + 1) for _ in range(self.rng.randrange(4))}

    def tree(self, document: Any, most: int = 3) -> Any:
        """Return a copy of a document with one to `most` changes, mostly one."""
        changed = {"": copy.deepcopy(document)}
        self._change(changed)
        for _ in range(most - 1):
            if self.rng.randrange(3) == 0:
                self._change(changed)
        return changed[""]

    def _change(self, holder: dict[str, Any]) -> None:
        places = list(_places(holder))
        container, key = self.rng.choice(places)
        old = container[key]
        if not isinstance(old, dict | list) and self.rng.randrange(2):
            container[key] = self._alike(old)
            return
        kind = self.rng.randrange(9)
        if kind == 0:
            del container[key]
            if container is holder:
                holder[""] = None
        elif kind in (1, 2):
            container[key] = self.value()
        elif kind == 3:  # the value of another place, which has a plausible type
            other, at = self.rng.choice(places)
            container[key] = copy.deepcopy(other[at])
        elif kind == 4 and isinstance(container, dict) and container is not holder:
            name = str(key)
            at = self.rng.randrange(len(name) + 1)
            container[self.rng.choice((name[:at] + name[at + 1 :], name.upper(), self.rng.choice(TEXTS)))] = (
                container.pop(key)
            )
        elif kind == 5 and isinstance(container, list):
            container.insert(self.rng.randrange(len(container) + 1), copy.deepcopy(old))
        elif kind == 6:
            container[key] = self.rng.choice(([old], {"a": old}, str(old), [old, old]))
        elif kind == 7 and isinstance(old, dict):
            other, at = self.rng.choice(places)
            old[self.rng.choice((str(at), self.rng.choice(TEXTS)))] = copy.deepcopy(other[at])
        elif isinstance(old, int | float) and not isinstance(old, bool):
            container[key] = self._alike(old)
        else:
            container[key] = self.value()

    def _alike(self, old: Any) -> Any:
        """Return another value of the type of a scalar."""
        if isinstance(old, bool):
            return not old
        if isinstance(old, int | float):
            return self.rng.choice((old + 1, old - 1, -old, old * 10, _converted(old), self.rng.choice(NUMBERS)))
        return self.rng.choice(TEXTS)

    def content(self, content: bytes, most: int = 3) -> bytes:
        """Return bytes with one to `most` changes."""
        for _ in range(self.rng.randint(1, most)):
            start = self.rng.randrange(len(content) + 1)
            end = min(len(content), start + self.rng.randrange(1, 12))
            kind = self.rng.randrange(6)
            if kind < 2:
                content = content[:start] + self.rng.choice(PIECES) + content[start:]
            elif kind == 2:
                content = content[:start] + content[end:]
            elif kind == 3:
                content = content[:start] + self.rng.randbytes(end - start) + content[end:]
            elif kind == 4:
                content = content[:start] + content[start:end] * self.rng.choice((2, 50)) + content[end:]
            else:
                content = content[:start]
        return content

    def yaml(self, document: Any) -> bytes:
        """Return the text of a document, mostly changed; sometimes the text itself is changed, too."""
        kind = self.rng.randrange(10)
        tree = document if kind == 0 else self.tree(document)
        text = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False, width=120).encode("utf-8", "surrogatepass")
        return self.content(text) if kind in (1, 2) else text


def _converted(number: int | float) -> int | float:
    """Return an integer as a float, and a float as an integer, where possible."""
    try:
        return float(number) if isinstance(number, int) else int(number)
    except (OverflowError, ValueError):
        return number


def _places(value: Any) -> Any:
    """Yield (container, key) of every value below a container."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(pairs):
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)
