"""Host this repository on the laptop's GitHub: its users, rules, variables and actions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from laptop.github.actions.remote import ActionCall, ActionHandler, ActionResult
from laptop.github.forge.owners import CODEOWNERS_PATHS, all_owners, read_owners
from laptop.github.forge.repository_settings import BranchProtection, RepositorySettings
from laptop.github.hub import Hub
from laptop.github.runner.results import StepProgress

AUTHOR, APPROVER = PEOPLE = "ada", "grace"
APP = "mlops"
REPOSITORY = "acme/mlops"

Build = Callable[[Path, str, str, Mapping[str, str]], str]
"""Builds and pushes an image: (checkout, name of the image, tag, environment of the step) → digest."""


@dataclass(frozen=True)
class Roles:
    """ARNs of the roles that jobs sign in as.

    Attributes:
        deploy: environment → ARN.
        preview: ARN of the role for previews.
        images: ARN of the role that builds images.
    """

    deploy: Mapping[str, str]
    preview: str
    images: str


def attach(
    home: Path,
    *,
    environ: Mapping[str, str],
    build: Build,
    on_step: Callable[[StepProgress], None] = lambda progress: None,
) -> Hub:
    """Return the laptop's GitHub. It need not host a repository yet.

    Args:
        home: the laptop's home.
        environ: variables for every step; those that give access to AWS are left out.
        build: stands in for docker/build-push-action.
        on_step: called when a step ends.
    """
    venv = Path(sys.executable).parent.parent
    return Hub(
        home,
        environ={**environ, "VENV": str(venv), "MLOPS_HOME": str(home)},
        path=(venv / "bin",),
        workers=4,  # jobs spend most of their time waiting
        handlers=action_handlers(build),
        on_step=on_step,
        command_forks=True,
    )


def host(hub: Hub, source: Path, *, region: str, roles: Roles) -> None:
    """Host a repository with the settings of docs/repository-settings.md.

    Args:
        hub: has no repository yet.
        source: folder that becomes the first commit on main.
        region: AWS region.
        roles: roles that jobs sign in as.

    Raises:
        MlopsError: there is a repository already.
    """
    environments = tuple(roles.deploy)
    hub.create(
        source,
        REPOSITORY,
        RepositorySettings(
            protection=BranchProtection(required_checks=("test", "gates"), approvals=1, last_push=True, bypass=(APP,)),
            users=PEOPLE,
            administrators=(AUTHOR,),
            teams=dict.fromkeys(_owners(source), PEOPLE),
            environments={"preview": (), **dict.fromkeys(("images", *environments), ("main",))},
        ),
    )
    app = hub.register_app(APP, {"actions": "write", "contents": "write", "pull-requests": "write"})
    hub.set_variable("MLOPS_TARGET", "laptop")
    hub.set_variable("AWS_REGION", region)
    hub.set_variable("APP_CLIENT_ID", app.client_id)
    hub.set_variable("APP_SLUG", APP)
    hub.set_variable("AWS_PREVIEW_ROLE", roles.preview, "preview")
    hub.set_variable("AWS_IMAGES_ROLE", roles.images, "images")
    for name in environments:
        _set_up_environment(hub, name, roles.deploy[name], app.private_key)


def add_environments(hub: Hub, roles: Roles) -> tuple[str, ...]:
    """Set up the environments that have a deploy role and are not set up on GitHub yet, and return their names.

    It stands in for `mlops github setup` with the outputs of the bootstrap and the key of the app.

    Args:
        hub: hosts the repository.
        roles: roles that jobs sign in as.
    """
    settings = hub.server.settings
    key = next(found for name in settings.environments if (found := hub.secret("APP_PRIVATE_KEY", name)))
    known = {name: settings.find_environment(name) for name in roles.deploy}
    added = tuple(name for name, found in known.items() if not found or not hub.secret("APP_PRIVATE_KEY", found))
    for name in added:
        _set_up_environment(hub, hub.add_environment(name, ("main",)), roles.deploy[name], key)
    return added


def removed_environments(hub: Hub, roles: Roles) -> tuple[str, ...]:
    """Return the environments on GitHub whose deploy role no longer exists."""
    kept = {*roles.deploy, "preview", "images"}
    return tuple(name for name in hub.server.settings.environments if name.lower() not in kept)


def _set_up_environment(hub: Hub, name: str, role: str, key: str) -> None:
    hub.set_variable("AWS_DEPLOY_ROLE", role, name)
    # An environment secret: any branch could read one of the repository, and the app may push to main.
    hub.set_secret("APP_PRIVATE_KEY", key, name)


def _owners(source: Path) -> set[str]:
    """Return the owners named in CODEOWNERS. Both users of the laptop stand in for each of them."""
    files = [source / path for path in CODEOWNERS_PATHS]
    text = next((file.read_text(encoding="utf-8") for file in files if file.is_file()), "")
    return all_owners(read_owners(text))


def action_handlers(build: Build) -> dict[str, ActionHandler]:
    """Return stand-ins for the actions that need Docker, the Pulumi CLI or Sigstore."""

    def skip(why: str) -> ActionHandler:
        def log_reason(call: ActionCall) -> ActionResult:
            call.log(why)
            return ActionResult()

        return log_reason

    def build_image(call: ActionCall) -> ActionResult:
        name = Path(call.input("file")).parent.name
        tag = call.input("tags").rpartition(":")[2]
        digest = build(call.workspace / call.input("context", "."), name, tag, call.environ)
        call.log(f"{name}: {digest} (without Docker: the image has the files that its Dockerfile copies)")
        return ActionResult({"digest": digest, "imageid": digest})

    def find_cached(call: ActionCall) -> ActionResult:
        call.log("skipped: what a job downloads on GitHub is on this machine already")
        return ActionResult({"cache-hit": "true"})

    return {
        "pulumi/actions": skip("skipped: the laptop has its own engine and needs no Pulumi CLI"),
        "actions/cache": find_cached,
        "docker/setup-qemu-action": skip("skipped: the laptop has no container engine"),
        "docker/setup-buildx-action": skip("skipped: the laptop has no container engine"),
        "docker/build-push-action": build_image,
        "actions/attest": skip("skipped: the laptop has no Sigstore"),
    }
