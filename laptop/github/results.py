"""What a workflow run came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from laptop.github.commands import Annotation


@dataclass(frozen=True)
class StepResult:
    """A step. `outcome` is before `continue-on-error` is considered, `conclusion` after; `seconds` is its duration."""

    number: int
    name: str
    outcome: str
    conclusion: str
    seconds: float


@dataclass(frozen=True)
class JobResult:
    """A job, or one leg of its matrix.

    Attributes:
        id: its key in the workflow.
        name: the name that people and required checks see.
        conclusion: success, failure, cancelled or skipped.
        environment, url: of the deployment, or "".
        log: its log, masked; None when nothing ran.
        summary: what its steps wrote to $GITHUB_STEP_SUMMARY, masked.
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
class Run:
    """One attempt of a workflow run.

    Attributes:
        number, attempt: which.
        workflow, path, title: the workflow's name and file, and the run's own name.
        event, action, ref, sha, head_sha, actor: what started it.
        status: queued, in_progress or completed.
        conclusion: success, failure, cancelled, skipped, startup_failure (the file is refused), or "" before the end.
        problems: why it could not start, or why it was given up.
        folder: logs, artifacts and the event.
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
        """The job with this name.

        Raises:
            KeyError: there is none.
        """
        return {job.name: job for job in self.jobs}[name]

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        return tuple(annotation for job in self.jobs for annotation in job.annotations)

    def to_json(self) -> dict[str, Any]:
        value = asdict(replace(self, jobs=()))
        jobs = [{**asdict(job), "log": str(job.log) if job.log else None} for job in self.jobs]
        return {**value, "folder": str(self.folder), "jobs": jobs}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Run:
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
class Progress:
    """A step has ended: one line for whoever watches. `seconds` is its duration."""

    run: int
    workflow: str
    job: str
    step: str
    conclusion: str
    seconds: float

    def __str__(self) -> str:
        mark = {"success": "✓", "failure": "✗", "skipped": "-"}.get(self.conclusion, "!")
        return f"{mark} {self.workflow} #{self.run} · {self.job} · {self.step} ({self.seconds:.1f} s)"
