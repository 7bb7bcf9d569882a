"""Remote actions on the laptop: each has an explicit twin here, one that the caller registers, or is refused.

| action | what the twin does |
|---|---|
| actions/checkout | checks out from the bare repository, as deep as `fetch-depth` says, over what the last job here left; leaves the token in the clone unless `persist-credentials: false` |
| actions/setup-python | checks that the Python on the PATH is the wanted one; downloads nothing |
| actions/upload-artifact, actions/download-artifact | folders of the run |
| actions/create-github-app-token | a token of an app that is registered with the forge |
| aws-actions/configure-aws-credentials | signs the job's OIDC token, and exchanges it at the emulated account for the role that trusts its subject |
| aws-actions/amazon-ecr-login | names the registry of the account that the job's credentials are of |
| everything else (docker/*, pulumi/*, actions/attest, …) | has no meaning without Docker, Pulumi or GitHub's signing; a caller may register a function for it |
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from laptop.github.access import Actor
from laptop.github.events import Event
from laptop.github.forge import Forge
from pipelines.declarations.errors import MlopsError


@dataclass(frozen=True)
class Call:
    """One use of an action.

    Attributes:
        action: `owner/name`.
        inputs: what stands under `with`, as text.
        workspace: the job's folder; may be empty yet.
        kept: the last checkout that another job left at the same place, or nothing.
        temp: a folder of the job for other files.
        environ: the step's environment.
        runner_environ: the environment that the runner was given, with the operator's access to the emulated account.
        event: what started the run.
        actor: whoever the job's token speaks for, with the job's permissions.
        token: the job's token.
        environment: the job's deployment environment, or "".
        artifacts: the run's folder of artifacts.
        run, attempt, workflow: of the run.
        forge: the repository.
        log: writes a line to the job's log.
        mask: hides a value from the logs from now on.
        at_end: runs when the job ends.
    """

    action: str
    inputs: Mapping[str, str]
    workspace: Path
    kept: Path
    temp: Path
    environ: Mapping[str, str]
    runner_environ: Mapping[str, str]
    event: Event
    actor: Actor
    token: str
    environment: str
    artifacts: Path
    run: int
    attempt: int
    workflow: str
    forge: Forge
    log: Callable[[str], None]
    mask: Callable[[str], None]
    at_end: Callable[[Callable[[], None]], None]

    def input(self, name: str, default: str = "") -> str:
        return self.inputs.get(name, "") or default

    def flag(self, name: str, default: bool) -> bool:
        """A boolean input.

        Raises:
            MlopsError: it is neither true nor false.
        """
        value = self.input(name, "true" if default else "false").lower()
        if value not in ("true", "false"):
            raise MlopsError(f"{self.action}: {name} is true or false, found {value!r}")
        return value == "true"


@dataclass(frozen=True)
class Answer:
    """What an action leaves.

    Attributes:
        outputs: of the step.
        exports: variables for the steps that follow.
        paths: folders put in front of the PATH of the steps that follow.
    """

    outputs: Mapping[str, str] = field(default_factory=dict)
    exports: Mapping[str, str] = field(default_factory=dict)
    paths: Sequence[Path] = ()


Twin = Callable[[Call], Answer]


@dataclass(frozen=True)
class _Known:
    inputs: frozenset[str]
    twin: Twin


def perform(call: Call, registered: Mapping[str, Twin]) -> Answer:
    """Perform one use of a remote action by its twin.

    Args:
        call: the use.
        registered: the caller's own twins, by `owner/name`; they go first.

    Raises:
        MlopsError: there is no twin, it does not know an input, or what it stands for would fail.
    """
    if call.action in registered:
        return registered[call.action](call)
    known = _twins().get(call.action)
    if known is None:
        what = f"the action {call.action} has no twin on the laptop"
        raise MlopsError(what, fix="register a function for it with the runner, or skip the step there with `if:`")
    if unknown := sorted(set(call.inputs) - known.inputs):
        raise MlopsError(
            f"{call.action}: the twin does not know the input {unknown[0]!r}", fix=f"known: {sorted(known.inputs)}"
        )
    return known.twin(call)


def _twins() -> Mapping[str, _Known]:
    # Imported late: reading a workflow must not need an AWS SDK.
    from laptop.github.twins import artifacts, aws, checkout, python, tokens

    return {
        "actions/checkout": _Known(checkout.INPUTS, checkout.checkout),
        "actions/setup-python": _Known(python.INPUTS, python.setup_python),
        "actions/upload-artifact": _Known(artifacts.UPLOAD_INPUTS, artifacts.upload),
        "actions/download-artifact": _Known(artifacts.DOWNLOAD_INPUTS, artifacts.download),
        "actions/create-github-app-token": _Known(tokens.INPUTS, tokens.create_app_token),
        "aws-actions/configure-aws-credentials": _Known(aws.CREDENTIALS_INPUTS, aws.configure_credentials),
        "aws-actions/amazon-ecr-login": _Known(aws.LOGIN_INPUTS, aws.login_to_registry),
    }
