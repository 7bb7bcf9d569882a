"""Show a model in operation on this machine: `mlops demo --operate`. Days pass in seconds."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from unittest import mock

import click

from laptop.demo.journey import Demo, RequestedRun, lines_of
from laptop.demo.material import CENSUS, keep_first_environment
from laptop.demo.survey_people import People, Person, await_quiet_log, from_abroad, write_years
from laptop.passing_days import pass_days
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import render_release
from pipelines.declarations.release import Release

if TYPE_CHECKING:
    from laptop.github.runner.results import WorkflowRun
    from pipelines.monitoring.data_report import DataMonitorReport
    from pipelines.monitoring.model_report import ModelMonitorReport

MODEL, DATASET, (LABELS,) = CENSUS.model, CENSUS.dataset, CENSUS.others

PEOPLE_A_DAY = 500

_SHOWN = re.compile(r"^\W*(alarm|watch) |^\W*(roll-back|retrain|ask): |sent the alarm")
"""Lines of a monitor that the demo prints; those that are unknown or ok are many."""


class OperationDemo(Demo):
    """A model in operation: drift, a harmful release and its rollback, bias, and a retraining.

    Only the first environment is used. The arguments are those of `Demo`.
    """

    def adjust(self) -> None:
        """Leave out all environments but the first, deliver alarms to the laptop's GitHub, and loosen two bounds."""
        from laptop.github.hosting import REPOSITORY

        self.project = keep_first_environment(self.project)
        (environment,) = self.project.environments
        file = self.project.stack_file(environment)
        text = file.read_text(encoding="utf-8")
        delivered = f"\\g<0>    monitoring: {{github: {{repository: {REPOSITORY}}}}}\n"
        file.write_text(re.sub(r"(?m)^  mlops:environment:\n", delivered, text), encoding="utf-8")
        declared = self.project.model_file(MODEL)
        # This machine also runs the whole account, so its latency says nothing.
        text = re.sub(r"(p99_ms: )[\d.]+", r"\g<1>1000.0", declared.read_text(encoding="utf-8"))
        # With its own bound, the champion gate refuses the regression that monitors shall find.
        text = re.sub(r"(maximum_regression: )[\d.]+", r"\g<1>0.5", text)
        declared.write_text(text, encoding="utf-8")

    def play(self) -> None:
        """Run every step.

        Raises:
            MlopsError: a step failed, or a monitor did not find what it must find.
        """
        samples = self.project.contracts_folder / "samples"
        self.batches = write_years(samples, self.scratch / "batches")
        self.people = People(samples / CENSUS.files[-1], self.project, MODEL)
        self._authorize_alarms()
        self._release("2015", f"The census of 2015 arrives: train {MODEL}, and release it")
        self._first_days()
        self._release("miscoded", "Miscoded years arrive, and a loose bound of the champion gate lets the release pass")
        self._regress()
        self._years()
        self._bias()

    def _authorize_alarms(self) -> None:
        from laptop.github.forge.actors import person
        from laptop.github.hosting import AUTHOR
        from pipelines.targets.alarm_token import set_alarm_token

        token = self.hub.server.issue_token(person(AUTHOR))
        with mock.patch.dict(os.environ, self.hub.environ(AUTHOR)):
            set_alarm_token(self.project, self.first, token)

    def _release(self, batch: str, title: str) -> None:
        with self.journey.step(title):
            self._ingest(batch)
            self._monitor_data()
            self._await(self._dispatch_training())
            self._await_checks(self._open_release(self.first))
            self._merge(self.first)
            self._follow_release()
            # The deployment checked the endpoint by requests. They are in the log, and not of the day to come.
            await_quiet_log(self.target.descriptor(self.first), MODEL)
            self._pass_day()

    def _follow_release(self) -> None:
        """Write the bundle that is live into the release file of the working tree, as `git pull` would."""
        from pipelines.registry.ledger import Ledger

        head = Ledger(self.target.descriptor(self.first), MODEL).head()
        assert head is not None
        release = Release(model=MODEL, environment=self.first, bundle=head.event.live, replaces=None)
        self.project.release_file(MODEL, self.first).write_text(render_release(release), encoding="utf-8")

    def _first_days(self) -> None:
        with self.journey.step("A day of requests: the monitor sees no harm, and knows no labels yet"):
            self._day("a")
            _expect(self._monitor(), "accuracy", "unknown", not_alarm=True)
        with self.journey.step("The next day labels arrive late: the accuracy of the day before is as on the holdout"):
            self._pass_day()
            self._label("a")
            self._day("b")
            _expect(self._monitor(), "accuracy", "ok", not_alarm=True)

    def _regress(self) -> None:
        with self.journey.step("A day with the new release: without labels, nothing looks wrong"):
            self._day("c")
            self._monitor()
        with self.journey.step("Its labels arrive: the model is wrong about many; one alarm is not enough to act"):
            self._pass_day()
            self._label("c")
            self._day("d")
            _expect(self._monitor(), "accuracy", "alarm")
        with self.journey.step("The second alarm rolls it back: EventBridge, GitHub, traffic first, then git"):
            self._pass_day()
            self._label("d")
            self._day("e")
            before = self.hub.newest()
            _expect(self._monitor(), "accuracy", "alarm")
            self._show_response(self._await(RequestedRun("respond", before)))
            self._await(RequestedRun("deploy", before))
            self._follow_release()

    def _years(self) -> None:
        from pipelines.data.catalog import open_table
        from pipelines.data.table_changes import TableChange
        from pipelines.data.versions import find_version, list_versions
        from pipelines.targets.workloads import change_table

        with self.journey.step("The table returns to its version before the miscoded years"):
            versions = list_versions(open_table(self.target.descriptor(self.first), DATASET))
            good = find_version(versions, self.batches["2015"].name, DATASET)
            change = TableChange(action="rollback", snapshots=(good.snapshot,), reason="miscoded outcomes")
            change_table(self.target, self.first, DATASET, change, self._echo)
        with self.journey.step("The right years arrive one by one: drift is watched, and is no alarm"):
            for year in ("2016", "2017"):
                self._ingest(year)
                report = self._monitor_data()
                if report.verdict == "alarm":
                    raise MlopsError(f"the data monitor found an alarm in {year}: expected none")

    def _bias(self) -> None:
        with self.journey.step("A client's new form says of all women that they came from abroad"):
            self._pass_day()
            self._day("f", change=from_abroad)
            _expect(self._monitor(), "fairness", "alarm")
        with self.journey.step("Next day the drift is confirmed: a retraining is proposed by pull request"):
            self._pass_day()
            self._day("g", change=from_abroad)
            before = self.hub.newest()
            _expect(self._monitor(), "input-drift", "alarm")
            self._show_response(self._await(RequestedRun("respond", before)))
            self._await(RequestedRun("train", before))
            request = self._open_release(self.first)
            self._await_checks(request)
            click.secho(f"   pull request {request.number}: {request.title}", fg="yellow")
        with self.journey.step("Labels arrive and confirm the bias: GitHub gets an issue for people to decide"):
            self._pass_day()
            self._label("f")
            self._day("h", change=from_abroad)
            before = self.hub.newest()
            _expect(self._monitor(), "fairness", "alarm")
            self._show_response(self._await(RequestedRun("respond", before)))
            for issue in self.hub.server.issues():
                click.secho(f"   issue {issue['number']}: {issue['title']}", fg="yellow")

    # --- one day ---

    def _day(self, name: str, change: Callable[[Person], Person] | None = None) -> None:
        sent = self.people.ask(self.target.descriptor(self.first), name, PEOPLE_A_DAY, change=change)
        click.echo(f"   {sent} people ask for a prediction")

    def _pass_day(self) -> None:
        moved = pass_days(self.target.descriptor(self.first), 1)
        click.echo(f"   a day passes: {moved} records become older")

    def _label(self, name: str) -> None:
        from pipelines.data.landing import upload
        from pipelines.targets.workloads import run_ingest

        file = self.people.write_labels(name, self.scratch / "batches" / f"labels-{name}.csv")
        upload(self.target.descriptor(self.first), LABELS, file)
        run_ingest(self.target, self.first, LABELS, lambda line: None)
        click.echo(f"   {PEOPLE_A_DAY} labels arrive")

    def _monitor(self) -> ModelMonitorReport:
        from pipelines.monitoring.monitor_reports import find_report, read_model_report
        from pipelines.targets.workloads import run_model_monitor_job

        run_model_monitor_job(self.target, self.first, MODEL, self._echo_findings)
        descriptor = self.target.descriptor(self.first)
        report = read_model_report(descriptor, MODEL, find_report(descriptor, MODEL, "", "models"))
        click.echo(f"   monitor: {report.verdict}")
        return report

    def _monitor_data(self) -> DataMonitorReport:
        from pipelines.monitoring.monitor_reports import find_report, read_report
        from pipelines.targets.workloads import run_monitor

        run_monitor(self.target, self.first, DATASET, self._echo_findings)
        descriptor = self.target.descriptor(self.first)
        report = read_report(descriptor, DATASET, find_report(descriptor, DATASET, "", "data"))
        click.echo(f"   monitor: {report.verdict}")
        return report

    def _echo(self, line: str) -> None:
        click.echo(f"   {line}")

    def _echo_findings(self, line: str) -> None:
        if _SHOWN.search(line):
            click.echo(f"   {line}")

    def _show_response(self, run: WorkflowRun) -> None:
        for line in lines_of(run, " s  "):
            click.echo(f"   {line.strip()}")


def _expect(report: ModelMonitorReport, check: str, verdict: str, *, not_alarm: bool = False) -> None:
    """Check that a monitor found what it must find.

    Raises:
        MlopsError: it did not.
    """
    from pipelines.monitoring.monitor_findings import count_verdict

    found = {finding.verdict for finding in report.findings if finding.check == check}
    if verdict not in found:
        raise MlopsError(
            f"{check} of {report.model}: expected {verdict}, found {', '.join(sorted(found)) or 'nothing'}"
        )
    if not_alarm and (alarms := count_verdict(report.findings, "alarm")):
        raise MlopsError(f"the monitor of {report.model}: expected no alarm, found {alarms}")
