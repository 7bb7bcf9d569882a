"""What the gates decide on: everything that is known of a promotion, as plain values.

A fact that could not be gathered is None, with the reason in `unknown`; a gate that needs it is then inconclusive.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from pipelines.declarations.bundle import RequestSchema
from pipelines.declarations.digests import Digest
from pipelines.declarations.documents import Declaration
from pipelines.declarations.environment import FreezeWindow
from pipelines.declarations.evaluation import Evaluation
from pipelines.declarations.model import Gates
from pipelines.declarations.names import Name
from pipelines.declarations.release import Release

Count = Annotated[int, Field(ge=0)]


class FileContent(Declaration):
    """A file of the bundle.

    Attributes:
        name: the file's.
        expected: the digest that the manifest states; None when the manifest does not name the file.
        found: the digest of what the registry holds; None when it holds no such file.
    """

    name: str
    expected: Digest | None
    found: Digest | None


class SignedStatement(Declaration):
    """A statement about the bundle that must be signed.

    Attributes:
        kind: `provenance` or `evaluation`.
        expected: the environment that must have signed it.
        signer: the environment whose key verifies it; None when none does.
        problem: why none does.
    """

    kind: str
    expected: Name
    signer: Name | None
    problem: str = ""


class Origin(Declaration):
    """Where the provenance says that the bundle comes from.

    Attributes:
        builder: the builder's id.
        expected_builder: the id of the training job.
        commits: the commits that it states.
        commit_on_main: the first of them that is on main; None when none is.
        source: the digest of the model's folder that the bundle states.
        committed_source: the digest of that folder in that commit.
    """

    builder: str
    expected_builder: str
    commits: tuple[str, ...]
    commit_on_main: str | None
    source: Digest
    committed_source: Digest | None


class Policy(Declaration):
    """The gates in `model.yaml`, as committed before the evaluation.

    Attributes:
        gates: as they stand in the commit that the bundle was made from.
        digest: of those.
        evaluated: the digest of the gates that the signed evaluation names.
    """

    gates: Gates
    digest: Digest
    evaluated: Digest


class Runtime(Declaration):
    """What the candidate did when it was loaded as the server loads it.

    Attributes:
        version: of the inference runtime it was loaded in.
        serving_version: of the one that the serving image installs.
        problem: why it did not load, or which golden prediction it missed; empty when all is well.
        golden_rows: golden predictions that were compared.
        p99_ms: 99th percentile of the time of a request of one row, in milliseconds.
        requests: how many were timed.
    """

    version: str
    serving_version: str
    problem: str
    golden_rows: Count
    p99_ms: Annotated[float, Field(ge=0)]
    requests: Count


class Predecessor(Declaration):
    """How the candidate did in the environment before.

    Attributes:
        environment: that environment.
        verified_at: when it was last verified there; None when it was not.
        live: whether it is what that environment serves now.
        requests: answered since then.
        errors: of those, answered with a server error.
    """

    environment: Name
    verified_at: AwareDatetime | None
    live: bool
    requests: Count
    errors: Count


class Facts(Declaration):
    """Everything that is known of a promotion.

    Attributes:
        now: when the facts were gathered.
        release: the release file as the pull request proposes it.
        changed_files: every file that the pull request changes.
        files: of the bundle, expected and found; empty when the registry has no such bundle.
        signatures: the statements that must be signed.
        origin, policy, evaluation, runtime, request_schema: of the candidate.
        champion: the evaluation of the bundle that is live; None when nothing is.
        live: the bundle that is live; None when nothing is.
        live_schema: the request schema of that bundle.
        predecessor: None in the first environment.
        promotes_from: the environment before; None for the first.
        freezes: the windows in which nothing is promoted; None when they could not be read.
        quarantined: digest → reason; None when the list could not be read.
        contract_breaks: what the candidate's contract takes from those who rely on the live one's; None: not compared.
        unknown: name of a fact → why it could not be gathered.
    """

    now: AwareDatetime
    release: Release
    changed_files: tuple[str, ...]
    files: tuple[FileContent, ...]
    signatures: tuple[SignedStatement, ...]
    origin: Origin | None
    policy: Policy | None
    evaluation: Evaluation | None
    runtime: Runtime | None
    request_schema: RequestSchema | None
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
        """The bundle that the release names; empty when it names none."""
        return self.release.bundle or ""

    def missing(self, fact: str) -> str:
        """Why a fact is not known, as a sentence."""
        return f"{fact} could not be established: {self.unknown.get(fact, 'no reason was recorded')}"
