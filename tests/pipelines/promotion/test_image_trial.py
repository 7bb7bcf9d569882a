"""Image trial: the code of an image checks bundles in a process that reaches nothing else."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import textwrap
import zipfile
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


BACKEND = """
import os, pathlib

def build_wheel(*_):
    pathlib.Path(os.environ["UV_MARK"]).write_text(os.environ.get("AWS_SECRET_ACCESS_KEY", "none"))
    raise SystemExit("built")

prepare_metadata_for_build_wheel = build_wheel
"""


def source_distribution(folder: Path) -> Path:
    """Make a source distribution whose build runs its own code."""
    settings = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
        "pyproject.toml": f'{settings}[project]\nname = "thing"\nversion = "1.0"\n',
        "backend.py": BACKEND,
    }
    path = folder / "thing-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"thing-1.0/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


def wheel(folder: Path) -> Path:
    """Make a wheel."""
    path = folder / "thing-1.0-py3-none-any.whl"
    files = {
        "thing.py": "",
        "thing-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
        "thing-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        record = "".join(f"{name},,\n" for name in (*files, "thing-1.0.dist-info/RECORD"))
        archive.writestr("thing-1.0.dist-info/RECORD", record)
    return path


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the installer looks for packages, and nowhere else."""
    folder = tmp_path / "packages"
    folder.mkdir()
    values = {"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(folder), "UV_CACHE_DIR": str(tmp_path / "cache")}
    for name, value in {**values, "UV_MARK": str(tmp_path / "mark"), "AWS_SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(name, value)
    return folder


def install(root: Path, package: Path, *more: str) -> Path:
    """Pin a package with its hash, and return the Python that has it."""
    pins = root / "serving.txt"
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    pins.write_text("\n".join([f"thing==1.0 \\\n    --hash=sha256:{digest}", *more]) + "\n")
    return image_trial._interpreter(pins, root / "venv")


def test_no_package_of_an_image_is_built(tmp_path: Path, packages: Path) -> None:
    with pytest.raises(MlopsError, match=r"cannot be installed as wheels: (.|\n)*thing") as caught:
        install(tmp_path, source_distribution(packages))
    assert not (tmp_path / "mark").exists(), "no code of the package ran"
    assert caught.value.fix == "pin releases that have wheels, and build a newer image"


def test_the_wheels_of_an_image_are_installed(tmp_path: Path, packages: Path) -> None:
    python = install(tmp_path, wheel(packages))
    assert subprocess.run([python, "-c", "import thing"], check=False).returncode == 0


@pytest.mark.parametrize(
    "line",
    [
        "--no-binary thing",
        "--index-url elsewhere",
        "-r other.txt",
        "-e .",
        "./thing",
        "thing @ file:///thing.tar.gz --hash=sha256:" + "0" * 64,
        "other==1.0",
        "other==1.0 ; --find-links=x --hash=sha256:" + "0" * 64,
    ],
)
def test_a_lock_file_has_nothing_but_pins_with_hashes(tmp_path: Path, packages: Path, line: str) -> None:
    with pytest.raises(MlopsError, match="expected pins such as") as caught:
        install(tmp_path, wheel(packages), line)
    assert repr(line[:100]) in caught.value.what
    assert not (tmp_path / "venv").exists()


def test_every_lock_file_of_the_repository_has_nothing_but_pins_with_hashes() -> None:
    found = sorted(Path(__file__).parents[3].glob("requirements/*.txt"))
    assert found
    for path in found:
        image_trial.check_pins(path.read_text())


def test_the_installer_gets_no_credentials() -> None:
    given = {"AWS_SECRET_ACCESS_KEY": "x", "GH_TOKEN": "x", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "x", "PYTHONPATH": "x"}
    needed = {"PATH": "/bin", "HOME": "/root", "UV_INDEX_URL": "https://example.com", "HTTPS_PROXY": "http://proxy"}
    assert image_trial._installer_environment({**given, **needed}) == needed


def test_code_that_fails_is_an_error_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(MlopsError, match="the image's code cannot check bundles: ValueError: broken"):
        run_code(tmp_path, "raise ValueError('broken')")
