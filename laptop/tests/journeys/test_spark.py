"""A dataset whose contract says `engine: spark`: its monitor and its training read it by the provisioned server."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from laptop import stack_operations
from laptop.demo.material import DATASET, MODEL, batches, write_heavier
from laptop.github.hosting import REPOSITORY
from laptop.laptop_target import LaptopTarget
from laptop.publishing import local_digests, publish_locally
from laptop.tests.journeys.laptop_of_journeys import own_home, start_laptop
from laptop.tests.journeys.test_journeys import git, one_environment
from laptop.tests.journeys.test_monitors import deliver, run
from pipelines.data.catalog import read_version
from pipelines.declarations.contract import ENGINE
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.monitoring.data_monitor import examine
from pipelines.monitoring.monitor_reports import find_report, read_report
from pipelines.promotion.images import pin_images
from pipelines.registry import bundles
from pipelines.training.training_run import make_bundle
from pipelines.training.training_set import in_memory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

pytest.importorskip("pysail", reason="requirements/spark.txt is not installed")


@pytest.mark.parametrize("workers", [0, 2], ids=["one-pod", "two-workers"])
def test_jobs_on_spark_report_and_train_what_one_process_does(workers: int, tmp_path: Path) -> None:
    with own_home(tmp_path) as (home, patch):
        project = one_environment(tmp_path / "source")
        file = project.contract_file(DATASET)
        declared = yaml.safe_load(file.read_text())
        declared.setdefault("customProperties", []).append({"property": ENGINE, "value": "spark"})
        file.write_text(yaml.safe_dump(declared, sort_keys=False))
        spark = f'    spark: {{workers: {workers}, cpu: "1", memory: 2Gi}}\n    images:'
        stack = project.stack_file("dev")
        stack.write_text(stack.read_text().replace("    images:", spark, 1))
        pin_images(project, "dev", local_digests(project))
        patch.chdir(project.root)
        running = start_laptop(home, project.root, patch)
        for name, value in running.environ().items():
            patch.setenv(name, value)
        here = LaptopTarget(project)
        stack_operations.bootstrap(project.root, home, REPOSITORY)
        publish_locally(here)
        here.apply("up", "dev")
        first = batches(project, tmp_path / "batches")["first"]
        for file in (first, write_heavier(first, tmp_path / "heavier.csv")):
            deliver(file)
        assert "bmi" in run("monitor", "run", DATASET).output
        descriptor: EnvironmentDescriptor = here.descriptor("dev")
        there = read_report(descriptor, DATASET, find_report(descriptor, DATASET))
        # A command on this machine starts its own server.
        checked = run("contract", "test", DATASET).output
        assert "every rule holds" in checked
        assert checked == run("contract", "test", DATASET, "--engine", "process").output
        git(project.root, "add", "--all")
        git(project.root, "-c", "user.name=ada", "-c", "user.email=ada@example.com", "commit", "--message=Train")
        digest = run("train", MODEL).output.splitlines()[-1]
        found = bundles.read_manifest(descriptor, MODEL, digest)
        model, contract = project.model(MODEL), project.contract(DATASET)
        rows, version = read_version(descriptor, DATASET)
        ordered = in_memory(rows, model, contract)
        made, _ = make_bundle(project, model, contract, ordered, version, found.image, lambda line: None)
        assert (made.dataset, made.files) == (found.dataset, found.files)
        # The same contract, read in this process: the server of the cluster is not asked.
        declared["customProperties"][-1]["value"] = "process"
        project.contract_file(DATASET).write_text(yaml.safe_dump(declared, sort_keys=False))
        assert there == examine(descriptor, project.contract(DATASET), there.created)
        (log,) = home.glob("cluster/pods-*/models-dev-spark_spark-*/sail-0.log")
        assert log.read_text().count("creating session") >= 2
        started = list(home.glob("cluster/pods-*/models-dev-spark_spark-worker-*"))
        assert len(started) >= workers if workers else not started
