"""Report of one run of a model's monitor."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.declarations.digests import Digest
from pipelines.declarations.documents import Declaration
from pipelines.declarations.timestamps import Timestamp
from pipelines.monitoring.column_comparison import ColumnComparison
from pipelines.monitoring.monitor_findings import Figure, MonitorFinding, MonitorVerdict

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class AccuracyWindow(Declaration):
    """A metric on the labelled rows of one window of requests, as far as labels have arrived.

    Attributes:
        start, end: times of the requests; the end is exclusive.
        metric: metric of the model's task.
        rows: predicted rows of the window.
        labelled: rows of them that have a label.
        value, low, high: the metric and its 95 % interval; None if undefined.
    """

    start: Timestamp
    end: Timestamp
    metric: str
    rows: Count
    labelled: Count
    value: Figure | None = None
    low: Figure | None = None
    high: Figure | None = None


class CalibrationBin(Declaration):
    """Labelled rows with a similar predicted probability.

    Attributes:
        predicted: mean predicted probability.
        observed: share of rows of the class.
        rows: number of rows.
    """

    predicted: Share
    observed: Share
    rows: Count


class GroupFigure(Declaration):
    """A metric of one group of a protected attribute.

    Attributes:
        attribute, group: the attribute, and its value as text.
        metric: metric of the model's task.
        rows: number of rows.
        value, low, high: the metric and its 95 % interval; None if undefined.
    """

    attribute: str
    group: str
    metric: str
    rows: Count
    value: Figure | None = None
    low: Figure | None = None
    high: Figure | None = None


class LabelCounts(Declaration):
    """What became of the labels that a run read.

    Attributes:
        read: rows of the dataset of labels that were read.
        joined: labels that belong to a predicted row.
        unknown: labels whose id belongs to no request that the bundle answered in the time that labels may take.
        repeated: labels that say the same as another one.
        replaced: labels that a later one contradicts.
        contradicting: labels that contradict each other at the same time, or without a time; none of them counts.
        invalid: labels without an id or a value, with a value that the model cannot predict, or of the future.
        ambiguous: requests that share their id with another one, or that have several rows but labels have no row
            number. None of them gets a label.
    """

    read: Count = 0
    joined: Count = 0
    unknown: Count = 0
    repeated: Count = 0
    replaced: Count = 0
    contradicting: Count = 0
    invalid: Count = 0
    ambiguous: Count = 0


class ModelMonitorReport(Declaration):
    """Report of one run of a model's monitor.

    Attributes:
        model, environment: what was monitored.
        bundle: the bundle that is live; None if none is.
        trial: the bundle on trial that was compared with it; None if none was.
        time: when the run started.
        window_start, window_end: times between which requests were judged; the end is exclusive.
        requests: requests of the window that the bundle answered, failed ones included.
        rows: rows that it predicted in them, as far as they are logged.
        sample: share of the requests that the log holds.
        lost: records of the log that were lost.
        verdict: the worst verdict of the findings.
        findings: result of each check.
        features, outputs: comparison of each feature and output with the bundle's baseline.
        accuracy: metrics by window, the oldest first, restated with the labels that have arrived.
        labels: what became of the labels; None without a source of labels.
        calibration: predicted and observed shares; empty without labels or for regression.
        groups: metrics of protected groups.
        skipped: feature → why its distribution was not compared.
    """

    format: Literal["mlops/model-monitor/v1"] = "mlops/model-monitor/v1"
    model: str
    environment: str
    bundle: Digest | None
    trial: Digest | None = None
    time: Timestamp
    window_start: Timestamp
    window_end: Timestamp
    requests: Count
    rows: Count = 0
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    lost: Count = 0
    verdict: MonitorVerdict
    findings: tuple[MonitorFinding, ...]
    features: tuple[ColumnComparison, ...] = ()
    outputs: tuple[ColumnComparison, ...] = ()
    accuracy: tuple[AccuracyWindow, ...] = ()
    labels: LabelCounts | None = None
    calibration: tuple[CalibrationBin, ...] = ()
    groups: tuple[GroupFigure, ...] = ()
    skipped: dict[str, str] = Field(default_factory=dict)
