"""A run that a person cancels while it works on a stack, and the next deployment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from laptop.engine.lock import holder_file
from laptop.tests.cluster.running_cluster import wait_for
from laptop.tests.github.sample_repository import hub_with
from pipelines.declarations.errors import MlopsError
from pipelines.github.gh import Gh
from pipelines.targets.stack_lock import job_has_ended

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]

DEPLOY = """
import sys, time
from pathlib import Path
from laptop.engine.lock import stack_lock
with stack_lock(Path(sys.argv[1]), wait=20, notice=print):
    print("deploying", flush=True)
    time.sleep(600 if sys.argv[2] == "hang" else 0)
"""

WORKFLOW = """
on: {{workflow_dispatch: {{inputs: {{how: {{default: hang}}}}}}}}
concurrency: {{group: deploy-dev, cancel-in-progress: false, queue: max}}
jobs:
  deploy:
    runs-on: ubuntu-latest
    steps:
      - run: {python} {script} {lock} "$HOW"
        env: {{HOW: '${{{{ inputs.how }}}}', PYTHONPATH: {root}}}
"""


def has_ended(gh: Gh, run: int) -> bool:
    """Ask the laptop's GitHub about the first attempt of a run, as the product does."""
    path = f"actions/runs/{run}/attempts/1"
    return job_has_ended(gh.get(path), gh.get(f"{path}/jobs?per_page=100")["jobs"], "")


def test_the_deployment_after_a_cancelled_run_takes_its_lock_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, lock = tmp_path / "deploy.py", tmp_path / "state" / "dev.lock"
    script.write_text(DEPLOY)
    workflow = WORKFLOW.format(python=sys.executable, script=script, lock=lock, root=ROOT)
    hub = hub_with(tmp_path, {"deploy.yml": workflow})
    hub.dispatch("maria", "deploy.yml", inputs={"how": "hang"})
    hub.dispatch("maria", "deploy.yml", inputs={"how": "finish"})
    for name, value in hub.environ("maria").items():
        monkeypatch.setenv(name, value)
    gh = Gh(hub.clone(tmp_path / "clone", "maria"), hub.server.full_name)
    with hub.serving():
        wait_for(lambda: holder_file(lock).exists(), 60)
        assert not has_ended(gh, 1)
        gh.run("run", "cancel", "1")
        wait_for(lambda: has_ended(gh, 2), 60)
    assert (hub.run(1).conclusion, hub.run(2).conclusion) == ("cancelled", "success")
    log = hub.run(2).job("deploy").log
    assert log is not None
    assert "took over the lock of dev from process " in log.read_text()
    assert has_ended(gh, 1)
    with pytest.raises(MlopsError, match="Cannot cancel a workflow run that is completed"):
        gh.run("run", "cancel", "1")
    with pytest.raises(MlopsError, match="Not Found"):
        gh.get("actions/runs/1/attempts/2")
