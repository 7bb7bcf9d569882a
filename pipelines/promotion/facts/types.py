"""Facts that the gates judge, as plain values.

A fact that could not be read is None, and `Facts.unknown` has the reason. A gate that needs it is inconclusive.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipelines.declarations.bundle import RequestSchema
from pipelines.declarations.digests import Digest
from pipelines.declarations.documents import Declaration
from pipelines.declarations.environment import FreezeWindow
from pipelines.declarations.evaluation import Evaluation
from pipelines.declarations.model import Gates
from pipelines.declarations.names import Name
from pipelines.declarations.release import Release
from pipelines.declarations.timestamps import Timestamp

Count = Annotated[int, Field(ge=0)]


class FileContent(Declaration):
    """A file of the bundle.

    Attributes:
        name: its name.
        expected: its digest in the manifest; None if the manifest does not list it.
        found: the digest of its content in the registry; None if the registry does not have it.
    """

    name: str
    expected: Digest | None
    found: Digest | None


class SignedStatement(Declaration):
    """The signature of a statement about the bundle.

    Attributes:
        kind: `provenance` or `evaluation`.
        expected: the environment that must have signed it.
        signer: the environment whose key verifies it; None if none does.
        problem: why no key verifies it.
    """

    kind: str
    expected: Name
    signer: Name | None
    problem: str = ""


class Origin(Declaration):
    """Builder and source of the bundle, from its provenance.

    Attributes:
        builder: id of the builder.
        expected_builder: id of the training job.
        commits: the commits that the bundle was built from.
        commit_on_main: the first of them that main contains; None if it contains none.
        source: digest of the model's folder that the bundle was built from.
        committed_source: digest of that folder in `commit_on_main`.
    """

    builder: str
    expected_builder: str
    commits: tuple[str, ...]
    commit_on_main: str | None
    source: Digest
    committed_source: Digest | None


class Policy(Declaration):
    """The gates in `model.yaml`.

    Attributes:
        gates: as they are in the commit that the bundle was built from.
        digest: their digest.
        evaluated: digest of the gates that the signed evaluation names.
    """

    gates: Gates
    digest: Digest
    evaluated: Digest


class TrialResult(Declaration):
    """Result of loading the candidate as the server does.

    Attributes:
        version: the inference runtime that loaded it.
        serving_version: the inference runtime of the serving image.
        problem: why it did not load, or which golden prediction it missed; empty if it works.
        golden_rows: number of golden predictions compared.
        p99_ms: 99th percentile of the latency of one-row requests, in milliseconds.
        requests: number of timed requests.
        interrupted: whether the trial ended before its result, by its time limit or a signal.
    """

    version: str
    serving_version: str
    problem: str
    golden_rows: Count
    p99_ms: Annotated[float, Field(ge=0)]
    requests: Count
    interrupted: bool = False


class Predecessor(Declaration):
    """The candidate's record in the previous environment.

    Attributes:
        environment: the previous environment.
        verified_at: time of its last verification there; None if it was never verified.
        live: whether that environment serves it now.
        requests: number of requests that it answered since then.
        errors: number of those requests that ended in a server error.
    """

    environment: Name
    verified_at: Timestamp | None
    live: bool
    requests: Count
    errors: Count


class Facts(Declaration):
    """All facts of a promotion.

    Attributes:
        now: when the facts were gathered.
        release: the release file as the pull request proposes it.
        changed_files: every file that the pull request changes.
        files: files of the bundle; empty if the registry has no such bundle.
        signatures: signatures of the statements that must be signed.
        origin: builder and source of the candidate.
        policy: gates of the candidate's model.
        evaluation: evaluation of the candidate.
        runtime: result of loading the candidate.
        request_schema: request schema of the candidate.
        serving_image: digest of the serving image that the environment pins; None if it pins none.
        champion: evaluation of the live bundle; None if none is live.
        live: the live bundle; None if none is live.
        live_schema: request schema of the live bundle.
        predecessor: record in the previous environment; None in the first environment.
        promotes_from: the previous environment; None for the first.
        freezes: windows during which nothing is promoted; None if they could not be read.
        quarantined: digest → reason; None if the list could not be read.
        contract_breaks: breaking changes from the live bundle's contract to the candidate's; None if not compared.
        unknown: name of a fact → why it could not be read.
    """

    now: Timestamp
    release: Release
    changed_files: tuple[str, ...]
    files: tuple[FileContent, ...]
    signatures: tuple[SignedStatement, ...]
    origin: Origin | None
    policy: Policy | None
    evaluation: Evaluation | None
    runtime: TrialResult | None
    request_schema: RequestSchema | None
    serving_image: Digest | None
    champion: Evaluation | None
    live: Digest | None
    live_schema: RequestSchema | None
    predecessor: Predecessor | None
    promotes_from: Name | None
    freezes: tuple[FreezeWindow, ...] | None
    quarantined: dict[Digest, str] | None
    contract_breaks: tuple[str, ...] | None
    unknown: dict[str, str] = Field(default_factory=dict)

    @property
    def candidate(self) -> str:
        """The bundle that the release names; empty if it names none."""
        return self.release.bundle or ""

    def missing(self, fact: str) -> str:
        """Return a sentence that says why a fact is unknown."""
        return f"{fact} is unknown: {self.unknown.get(fact, 'no reason was recorded')}"
