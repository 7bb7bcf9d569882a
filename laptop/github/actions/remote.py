"""Remote actions (`uses: owner/name@commit`): each needs a stand-in here or a registered one; all others are refused.

| action | stand-in |
|---|---|
| actions/checkout | checks out from the bare repository with the given `fetch-depth`, on top of the last checkout in the workspace; stores the token in the clone unless `persist-credentials: false` |
| actions/setup-python | checks the version of the Python on the PATH; downloads nothing |
| actions/upload-artifact, actions/download-artifact | folders of the run |
| actions/create-github-app-token | a token of an app that is installed on the repository |
| aws-actions/configure-aws-credentials | signs the job's OIDC token, and exchanges it at the laptop's AWS account for a role that trusts its subject |
| aws-actions/amazon-ecr-login | returns the registry of the account that the job is signed in to |
| all others (docker/*, pulumi/*, actions/attest, …) | need Docker, Pulumi or Sigstore; a caller can register a function |
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from laptop.github.forge.actors import Actor
from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.webhook_event import WebhookEvent
from pipelines.declarations.errors import MlopsError


@dataclass(frozen=True)
class ActionCall:
    """One use of a remote action.

    Attributes:
        action: `owner/name`.
        inputs: the inputs under `with`, as text.
        workspace: the job's folder.
        kept: the last checkout in this workspace; may not exist.
        temp: the job's folder for temporary files.
        environ: the step's environment.
        runner_environ: the runner's own variables, with the operator's access to the AWS account.
        event: the event that started the run.
        actor: owner of the job's token, with the job's permissions.
        token: the job's token.
        environment: deployment environment of the job, or "".
        artifacts: the run's folder of artifacts.
        run, attempt, workflow: number, attempt and workflow file of the run.
        server: the repository.
        log: writes a line to the job's log.
        mask: hides a value in the logs.
        at_end: registers a function to call when the job ends.
    """

    action: str
    inputs: Mapping[str, str]
    workspace: Path
    kept: Path
    temp: Path
    environ: Mapping[str, str]
    runner_environ: Mapping[str, str]
    event: WebhookEvent
    actor: Actor
    token: str
    environment: str
    artifacts: Path
    run: int
    attempt: int
    workflow: str
    server: GitHubServer
    log: Callable[[str], None]
    mask: Callable[[str], None]
    at_end: Callable[[Callable[[], None]], None]

    def input(self, name: str, default: str = "") -> str:
        """Return an input, or the default if it is missing or empty."""
        return self.inputs.get(name, "") or default

    def flag(self, name: str, default: bool) -> bool:
        """Return a boolean input.

        Raises:
            MlopsError: the value is neither true nor false.
        """
        value = self.input(name, "true" if default else "false").lower()
        if value not in ("true", "false"):
            raise MlopsError(f"{self.action}: {name}: expected true or false, found {value!r}")
        return value == "true"


@dataclass(frozen=True)
class ActionResult:
    """Result of an action.

    Attributes:
        outputs: outputs of the step.
        exports: variables for later steps.
        paths: folders to put in front of PATH for later steps.
    """

    outputs: Mapping[str, str] = field(default_factory=dict)
    exports: Mapping[str, str] = field(default_factory=dict)
    paths: Sequence[Path] = ()


ActionHandler = Callable[[ActionCall], ActionResult]


@dataclass(frozen=True)
class _Known:
    inputs: frozenset[str]
    handler: ActionHandler


def perform(call: ActionCall, registered: Mapping[str, ActionHandler]) -> ActionResult:
    """Run the stand-in for a remote action.

    Args:
        call: the use of the action.
        registered: the caller's stand-ins, by `owner/name`; they take precedence.

    Raises:
        MlopsError: there is no stand-in, it does not know an input, or the action fails.
    """
    if call.action in registered:
        return registered[call.action](call)
    known = _known_actions().get(call.action)
    if known is None:
        what = f"the laptop has no stand-in for the action {call.action}"
        raise MlopsError(what, fix="register a function for it with the runner, or skip the step with `if:`")
    if unknown := sorted(set(call.inputs) - known.inputs):
        raise MlopsError(f"{call.action}: unknown input {unknown[0]!r}", fix=f"use one of {sorted(known.inputs)}")
    return known.handler(call)


def _known_actions() -> Mapping[str, _Known]:
    # Imported late: most jobs do not need an AWS SDK.
    from laptop.github.actions import app_token, artifacts, aws_sign_in, checkout, setup_python

    return {
        "actions/checkout": _Known(checkout.INPUTS, checkout.checkout),
        "actions/setup-python": _Known(setup_python.INPUTS, setup_python.setup_python),
        "actions/upload-artifact": _Known(artifacts.UPLOAD_INPUTS, artifacts.upload),
        "actions/download-artifact": _Known(artifacts.DOWNLOAD_INPUTS, artifacts.download),
        "actions/create-github-app-token": _Known(app_token.INPUTS, app_token.create_app_token),
        "aws-actions/configure-aws-credentials": _Known(
            aws_sign_in.CREDENTIALS_INPUTS, aws_sign_in.configure_credentials
        ),
        "aws-actions/amazon-ecr-login": _Known(aws_sign_in.LOGIN_INPUTS, aws_sign_in.login_to_registry),
    }
