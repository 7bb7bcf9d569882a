"""Results of workflow runs, jobs and steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from laptop.github.runner.workflow_commands import Annotation


@dataclass(frozen=True)
class StepResult:
    """Result of a step.

    Attributes:
        outcome: the result before `continue-on-error`.
        conclusion: the result after `continue-on-error`.
        seconds: duration.
        first_line: number of its first line in the job's log, from 0; None if it did not run.
    """

    number: int
    name: str
    outcome: str
    conclusion: str
    seconds: float
    first_line: int | None = None


@dataclass(frozen=True)
class JobResult:
    """Result of a job, or of one leg of its matrix.

    Attributes:
        id: its key in the workflow file.
        name: its name in checks, with the matrix values.
        conclusion: success, failure, cancelled or skipped.
        environment, url: environment and URL of the deployment, or "".
        log: its log, masked; None if the job did not run.
        summary: text that its steps wrote to $GITHUB_STEP_SUMMARY, masked.
    """

    id: str
    name: str
    conclusion: str
    seconds: float = 0.0
    steps: tuple[StepResult, ...] = ()
    outputs: Mapping[str, str] = field(default_factory=dict)
    environment: str = ""
    url: str = ""
    annotations: tuple[Annotation, ...] = ()
    log: Path | None = None
    summary: str = ""


@dataclass(frozen=True)
class WorkflowRun:
    """Result of one attempt of a workflow run.

    Attributes:
        number, attempt: identify the attempt.
        workflow, path, title: name and file of the workflow, and the run's own name.
        event, action, ref, sha, head_sha, actor: the event that started it.
        status: queued, in_progress or completed.
        conclusion: success, failure, cancelled, skipped, startup_failure (the file is invalid), or "" before the end.
        problems: why it did not start, or why it was abandoned.
        folder: holds logs, artifacts and the event.
    """

    number: int
    attempt: int
    workflow: str
    path: str
    title: str
    event: str
    action: str
    ref: str
    sha: str
    head_sha: str
    actor: str
    status: str
    conclusion: str
    folder: Path
    seconds: float = 0.0
    jobs: tuple[JobResult, ...] = ()
    problems: tuple[str, ...] = ()

    def job(self, name: str) -> JobResult:
        """Return the job with a name.

        Raises:
            KeyError: there is no such job.
        """
        return {job.name: job for job in self.jobs}[name]

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """Annotations of all jobs."""
        return tuple(annotation for job in self.jobs for annotation in job.annotations)

    def to_json(self) -> dict[str, Any]:
        value = asdict(replace(self, jobs=()))
        jobs = [{**asdict(job), "log": str(job.log) if job.log else None} for job in self.jobs]
        return {**value, "folder": str(self.folder), "jobs": jobs}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> WorkflowRun:
        jobs = tuple(
            JobResult(
                **{
                    **job,
                    "steps": tuple(StepResult(**step) for step in job["steps"]),
                    "annotations": tuple(Annotation(**annotation) for annotation in job["annotations"]),
                    "log": Path(job["log"]) if job["log"] else None,
                }
            )
            for job in value["jobs"]
        )
        return cls(**{**value, "folder": Path(value["folder"]), "jobs": jobs, "problems": tuple(value["problems"])})


@dataclass(frozen=True)
class StepProgress:
    """A step that has ended. As text, it is one line for a terminal."""

    run: int
    workflow: str
    job: str
    step: str
    conclusion: str
    seconds: float

    def __str__(self) -> str:
        mark = {"success": "✓", "failure": "✗", "skipped": "-"}.get(self.conclusion, "!")
        return f"{mark} {self.workflow} #{self.run} · {self.job} · {self.step} ({self.seconds:.1f} s)"
