"""How long the demo takes.

`make demo` in a fresh clone with an empty environment, set-up included, and again. "The main job" is the part of it
from the start to an answer from prod; after that the demo goes on with a second release, a refusal and a rollback.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tools.bench.figures import Figure

ROOT = Path(__file__).parents[2]


def measure() -> list[Figure]:
    """The figures of a first and of a second demo in one fresh clone."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        began = time.monotonic()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        first = time.monotonic() - began + demo(clone, Path(folder))[0]
        again, answer, merged, restored = demo(clone, Path(folder))
    return [
        Figure(
            "from a fresh clone to the end of `make demo`",
            f"{first:.0f} s",
            "",
            f"{first:.0f} s",
            "≤ 90 s",
            first <= 90,
        ),
        Figure("`make demo` again", f"{again:.0f} s", "", f"{again:.0f} s", "≤ 45 s", again <= 45),
        Figure(
            "the main job in it, to an answer from prod",
            f"{answer:.0f} s",
            "",
            f"{answer:.0f} s",
            "≤ 45 s",
            answer <= 45,
        ),
        Figure(
            "from merge to verified, rollout steps included",
            f"{merged:.1f} s",
            "the slowest of the demo's",
            f"{merged:.1f} s",
            "≤ 10 s",
            merged <= 10,
        ),
        Figure(
            "from the rollback's first step to traffic restored",
            f"{restored:.2f} s",
            "",
            f"{restored:.2f} s",
            "≤ 1 s",
            restored <= 1,
        ),
    ]


def demo(clone: Path, home: Path) -> tuple[float, float, float, float]:
    """Seconds of the demo: all, to an answer from prod, the slowest merge to verified, traffic in the rollback."""
    python = Path(shutil.which("python3") or "/usr/bin/python3").parent
    environ = {"HOME": str(home), "PATH": f"/usr/local/bin:/usr/bin:/bin:{python}"}
    began = time.monotonic()
    done = subprocess.run(["make", "demo"], cwd=clone, env=environ, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    answer = float(found(r"prod answers ([\d.]+) s after the beginning", done.stdout)[-1])
    merged = max(map(float, found(r"recorded ([\d.]+) s after the merge", done.stdout)))
    restored = float(found(r"([\d.]+) s  traffic is restored", done.stdout)[-1])
    return seconds, answer, merged, restored


def found(pattern: str, text: str) -> list[str]:
    """What a pattern finds; at least one."""
    matches = re.findall(pattern, text)
    if not matches:
        raise RuntimeError(f"the demo does not print {pattern!r}:\n{text[-3000:]}")
    return matches


if __name__ == "__main__":
    for figure in measure():
        print(figure)
