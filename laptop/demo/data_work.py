"""Show the work on data: `mlops demo --data`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click

from laptop.demo.journey import Demo
from laptop.demo.material import keep_first_environment, write_heavier
from laptop.laptop_target import LaptopTarget
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

_COLUMN = "sex"
"""Column whose listed values change in the demo. The first batch has a row with the new one."""

_OLD_VALUES, _NEW_VALUES = "validValues: [1, 2]", "validValues: [1, 2, 3]"

_LINES, _WIDTH = 24, 160
"""Most lines that the demo prints of a command, and most characters of a line."""


class DataDemo(Demo):
    """Quarantine, a contract that changes, drift and lineage, by the commands that data teams type.

    Only the first environment is used. The arguments are those of `Demo`.
    """

    def adjust(self) -> None:
        """Leave out all environments but the first."""
        self.project = keep_first_environment(self.project)

    def play(self) -> None:
        """Run every step.

        Raises:
            MlopsError: a step failed, or a command did not show what it must show.
        """
        self.batches = self.sample.write_batches(self.project, self.scratch / "batches")
        self._release_the_first()
        self._look_at_quarantine()
        self._change_the_contract()
        self._replay()
        self._drift()
        self._trace()

    def _release_the_first(self) -> None:
        from laptop.github.hosting import AUTHOR

        with self.journey.step(f"Data arrives: train {self.sample.model}, and release it to {self.first}"):
            self._ingest("first")
            self._await(self._dispatch_training())
            self._await_checks(self._open_release(self.first))
            self._merge(self.first)
            self.repository = self.hub.clone(self.scratch / "work", AUTHOR)
            self.type("monitor", "run", self.sample.dataset, *self._env)

    def _look_at_quarantine(self) -> None:
        dataset = self.sample.dataset
        with self.journey.step("Some rows break the contract: show them in quarantine, with reasons"):
            self.type("data", "list", dataset, *self._env)
            self.type("data", "show", dataset, self.batches["first"].name, *self._env, shows=_COLUMN)

    def _change_the_contract(self) -> None:
        from laptop.publishing import local_digests, publish_locally
        from pipelines.promotion.images import pin_images

        project = Project(self.repository)
        file = project.contract_file(self.sample.dataset)
        with self.journey.step(f"A third code of the column {_COLUMN} is right: show whom a wider contract breaks"):
            _replace(file, _OLD_VALUES, _NEW_VALUES)
            # The version does not say yet that the change breaks the model, so the command fails.
            self.type("contract", "diff", "--live", status=1, shows=self.sample.model)
            _replace(file, "\nversion: 1.0.0\n", "\nversion: 2.0.0\n")
            self.type("contract", "diff", shows="2.0.0")
        with self.journey.step(f"Build the images with the new contract, and provision {self.first} with them"):
            pin_images(project, self.first, local_digests(project))
            publish_locally(LaptopTarget(project))
            self.type("up", *self._env, most=1)

    def _replay(self) -> None:
        dataset, file = self.sample.dataset, self.batches["first"].name
        with self.journey.step("Check the rows in quarantine again: those that keep the new contract are appended"):
            before = self._rows()
            self.type("data", "release", dataset, file, *self._env)
            self.type("data", "show", dataset, file, *self._env)
            if (appended := self._rows() - before) != 1:
                raise MlopsError(f"rows of {file} that were appended: expected 1, found {appended}")

    def _drift(self) -> None:
        from pipelines.monitoring.monitor_reports import find_report, read_report

        dataset = self.sample.dataset
        heavier = write_heavier(self.batches["first"], self.scratch / "batches" / "heavier.csv")
        with self.journey.step("A delivery of heavier patients: the monitor raises an alarm, and draws its report"):
            self.type("land", dataset, str(heavier), *self._env)
            self.type("ingest", dataset, *self._env)
            self.type("monitor", "run", dataset, *self._env, shows="bmi")
            descriptor = self.target.descriptor(self.first)
            report = read_report(descriptor, dataset, find_report(descriptor, dataset, "", "data"))
            if report.verdict != "alarm":
                raise MlopsError(f"the monitor of {dataset}: expected an alarm, found {report.verdict}")
            self.type("monitor", "report", dataset, "--output", str(self.scratch / "drift.html"), *self._env)

    def _trace(self) -> None:
        model = self.sample.model
        with self.journey.step("Trace a prediction back to the landing files, and on to the releases"):
            answer = self.type("predict", model, *self._env)
            bundle = re.search("sha256:[0-9a-f]{64}", answer)
            if bundle is None:
                raise MlopsError(f"the answer of {model}: expected the bundle that predicted, found none")
            file = self.batches["first"].name
            self.type("lineage", "bundle", model, bundle[0], shows=file)
            drawn = str(self.scratch / "lineage.svg")
            self.type("lineage", "bundle", model, bundle[0], "--format", "svg", "--output", drawn)

    @property
    def _env(self) -> tuple[str, str]:
        return "--env", self.first

    def _rows(self) -> int:
        from pipelines.data.catalog import open_table

        snapshot = open_table(self.target.descriptor(self.first), self.sample.dataset).current_snapshot()
        assert snapshot is not None and snapshot.summary is not None
        return int(snapshot.summary["total-records"] or 0)

    def type(self, *arguments: str, status: int = 0, shows: str = "", most: int = _LINES) -> str:
        """Run a command, print it with its first lines and the last one, and return what it printed.

        Args:
            arguments: what follows `mlops`.
            status: the exit status that it must have.
            shows: a text that it must print.
            most: number of lines to print.

        Raises:
            MlopsError: it ended with another status, or did not print the text.
        """
        shown = " ".join(each if re.fullmatch(r"[\w./:-]+", each) else json.dumps(each) for each in arguments)
        click.secho(f"   $ mlops {shown}", bold=True)
        command = [sys.executable, "-m", "pipelines.cli", *arguments]
        done = subprocess.run(
            command, cwd=self.repository, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        *first, last = done.stdout.splitlines() or [""]
        lines = [*first[: most - 1], *(["…"] if len(first) >= most else []), last]
        for line in lines:
            click.echo(f"   {line[:_WIDTH]}{'…' if len(line) > _WIDTH else ''}")
        if done.returncode != status or shows not in done.stdout:
            raise MlopsError(
                f"mlops {shown}: expected the exit status {status} and {shows or 'any output'!r}, found "
                f"{done.returncode} and\n{done.stdout}"
            )
        return done.stdout


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    if old not in text:
        raise MlopsError(f"{file}: expected {old.strip()!r}, found nothing like it")
    file.write_text(text.replace(old, new), encoding="utf-8")
