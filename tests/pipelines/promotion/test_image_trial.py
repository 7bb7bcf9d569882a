"""Image trial: the code of an image checks bundles in a process that reaches nothing else."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.promotion import image_trial
from pipelines.promotion.facts.pin_facts import ImageTrial
from pipelines.promotion.trial_process import PROCESS_MEMORY

pytestmark = pytest.mark.slow


def run_code(root: Path, code: str) -> dict[str, ImageTrial]:
    """Run code as the check of an image."""
    module = root / "source" / "pipelines" / "serving" / "golden_check.py"
    module.parent.mkdir(parents=True)
    for package in (module.parent, module.parent.parent):
        (package / "__init__.py").touch()
    module.write_text(textwrap.dedent(code))
    (root / "bundles").mkdir()
    return image_trial._run_check(Path(sys.executable), root / "source", root / "bundles", root / "packages")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux confines a process")
def test_the_code_of_an_image_reads_no_other_file_opens_no_socket_and_gets_no_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "credentials"
    secret.write_text("secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    code = f"""
        import json, os, resource, socket, sys

        def refused(reach):
            try:
                return repr(reach())
            except PermissionError:
                return "refused"

        tried = [
            refused(lambda: open({str(secret)!r}).read()),
            refused(lambda: open(f"/proc/{{os.getppid()}}/environ").read()),
            refused(lambda: open(sys.argv[1] + "/new", "w")),
            refused(socket.socket),
            sorted(set(os.environ) & {{"AWS_SECRET_ACCESS_KEY", "PYTHONPATH"}}),
            resource.getrlimit(resource.RLIMIT_DATA)[1],
        ]
        print(json.dumps({{"loans": {{"rows": 1, "problem": repr(tried)}}}}))
    """
    expected = repr(["refused", "refused", "refused", "refused", [], PROCESS_MEMORY])
    assert run_code(tmp_path, code) == {"loans": ImageTrial(rows=1, problem=expected)}


def test_code_that_fails_is_an_error_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(MlopsError, match="the image's code cannot check bundles: ValueError: broken"):
        run_code(tmp_path, "raise ValueError('broken')")
