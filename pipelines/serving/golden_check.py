"""Check bundles with the inference code of an image: `python -m pipelines.serving.golden_check FOLDER`.

The folder has one folder for each bundle, with `bundle.json` and the files that it lists. Prints a JSON object: name of
the folder → `{"rows": …, "problem": …}`. Callers verify the evidence of the bundles first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pipelines.declarations.bundle import MANIFEST, Bundle, GoldenPredictions
from pipelines.declarations.documents import parse
from pipelines.declarations.errors import MlopsError
from pipelines.serving.golden import row_count
from pipelines.serving.predictor import Predictor


def check_bundle(folder: Path) -> dict[str, object]:
    """Load a bundle and compare its answers with its golden predictions.

    Returns:
        `rows`, the number of golden rows, and `problem`, why it does not work; empty if it does.
    """
    rows = 0
    try:
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        manifest = parse(files.pop(MANIFEST), Bundle, Path(MANIFEST))
        golden = parse(files["golden.json"], GoldenPredictions, Path("golden.json"))
        rows = row_count(golden)
        Predictor(manifest, files).check_golden(golden)
    except MlopsError as error:
        return {"rows": rows, "problem": error.what}
    except Exception as error:  # onnxruntime's exceptions have no common base class
        return {"rows": rows, "problem": f"{type(error).__name__}: {error}"}
    return {"rows": rows, "problem": ""}


def main(arguments: list[str]) -> int:
    """Check every bundle of a folder, and print the results."""
    (folder,) = arguments
    print(json.dumps({path.name: check_bundle(path) for path in sorted(Path(folder).iterdir())}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
