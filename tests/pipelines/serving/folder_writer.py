"""Writer of an inference log in a process, which puts objects into a folder.

`python -m tests.pipelines.serving.folder_writer <folder> <kind>`: with the kind `failing-log`, each attempt fails. With
`stuck-once`, the first attempt of all processes never ends.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from pipelines.serving.log_writer import run_writer


def main(folder: Path, kind: str) -> int:
    """Write until the server ends; return the exit status."""

    def write(key: str, content: bytes) -> None:
        if kind == "failing-log":
            raise OSError("no bucket today")
        if kind == "stuck-once" and not (folder / "stuck").exists():
            (folder / "stuck").touch()
            threading.Event().wait()
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return run_writer(write)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
