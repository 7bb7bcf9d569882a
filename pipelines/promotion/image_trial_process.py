"""Process that confines itself and then runs the inference code of an image:
`python -m pipelines.promotion.image_trial_process PYTHON SOURCE BUNDLES READABLE…`.

The code of an image may be older than its limits, and models come from training code. So this code, which is as new as
the gates, sets limits that a program keeps when it becomes another one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pipelines.promotion.trial_process import restrict
from pipelines.training.isolation import code_folders

CHECK = "pipelines.serving.golden_check"
"""Module of the image that checks bundles."""


def main(arguments: list[str]) -> None:
    """Confine this process to code and bundles, and become the check of the image.

    Args:
        arguments: the interpreter with the packages of the image, the folder of its source, the folder of the bundles,
            and further folders that hold packages.
    """
    python, source, bundles, *readable = arguments
    os.chdir(source)
    restrict([*map(Path, (source, bundles, *readable)), *code_folders([])])
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    os.execve(python, [python, "-m", CHECK, bundles], kept)  # noqa: S606  no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
