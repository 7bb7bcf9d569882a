"""Debian's chromium, to look at pages as people do."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")

NARROW = 360
"""Width of a small phone, in CSS pixels. A window of chromium is wider, so pages are shown in a frame."""

_POLICY = "default-src 'none';"

_PROBE = """<script>
const drawings = document.querySelectorAll("svg").length;
parent.postMessage(document.documentElement.scrollWidth + "/" + innerWidth + "/" + drawings, "*");
</script>"""

_FRAME = """<p id=found></p><iframe src="page.html" style="width: {width}px; height: 800px; border: 0"></iframe><script>
addEventListener("message", (event) => {{ document.getElementById("found").textContent = event.data; }});
</script>"""


@dataclass(frozen=True)
class ShownPage:
    """What a browser made of a page.

    Attributes:
        needed: width that the page needs without being scrolled sideways.
        width: width that it was given.
        drawings: number of drawings (SVG).
        complaints: messages on the console: errors, and what the page's policy blocked.
    """

    needed: int
    width: int
    drawings: int
    complaints: tuple[str, ...]


def show_page(text: str, folder: Path, width: int = NARROW) -> ShownPage:
    """Show a page in a frame of a width. Only this copy of the page may run a script, which measures it.

    Args:
        text: the page, with a policy that allows nothing by default.
        folder: an empty folder.
        width: width of the frame, in CSS pixels.
    """
    assert _POLICY in text, "the page has no policy"
    text = text.replace(_POLICY, f"{_POLICY} script-src 'unsafe-inline';", 1)
    head, end, tail = text.partition("</body>")
    (folder / "page.html").write_text(head + _PROBE + end + tail)
    frame = folder / "frame.html"
    frame.write_text(_FRAME.format(width=width))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    budget = "--virtual-time-budget=5000"
    done = subprocess.run([*command, budget, frame.as_uri()], capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r'<p id="found">(\d+)/(\d+)/(\d+)</p>', done.stdout)
    assert found is not None, done.stdout[-500:]
    complaints = tuple(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return ShownPage(int(found[1]), int(found[2]), int(found[3]), complaints)
