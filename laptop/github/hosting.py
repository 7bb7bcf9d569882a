"""This repository on the laptop's GitHub: its people, rules and variables, and the actions that have a twin here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from laptop.github.actions import Answer, Call, Twin
from laptop.github.codeowners import PLACES, read_rules
from laptop.github.hub import Hub
from laptop.github.results import Progress
from laptop.github.settings import Protection, Settings

AUTHOR, APPROVER = PEOPLE = "ada", "grace"
APP = "mlops"
REPOSITORY = "acme/mlops"

Build = Callable[[Path, str], str]
"""From a checkout and the name of an image to the image's digest."""


@dataclass(frozen=True)
class Roles:
    """The roles that jobs sign in as.

    Attributes:
        deploy: environment → ARN.
        preview: ARN.
        images: ARN.
    """

    deploy: Mapping[str, str]
    preview: str
    images: str


def attach(
    home: Path,
    *,
    environ: Mapping[str, str],
    build: Build,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> Hub:
    """The laptop's GitHub as this process runs it, whether or not it hosts a repository yet.

    Args:
        home: of the local target.
        environ: variables for every step; access to AWS is not passed on.
        build: stands in for building and pushing an image.
        on_step: hears of every step that ends.
    """
    venv = Path(sys.executable).parent.parent
    return Hub(
        home,
        environ={**environ, "VENV": str(venv), "MLOPS_HOME": str(home)},
        path=(venv / "bin",),
        workers=4,  # jobs wait more than they work
        twins=twins(build),
        on_step=on_step,
    )


def host(hub: Hub, source: Path, *, region: str, roles: Roles) -> None:
    """Host a repository as docs/repository-settings.md asks for it on GitHub.

    Args:
        hub: hosts none yet.
        source: the folder that becomes the first commit on main.
        region: of AWS.
        roles: what jobs may sign in as.

    Raises:
        MlopsError: there is a repository already.
    """
    environments = tuple(roles.deploy)
    hub.create(
        source,
        REPOSITORY,
        Settings(
            protection=Protection(required_checks=("test", "gates"), approvals=1, bypass=(APP,)),
            users=PEOPLE,
            teams=dict.fromkeys(_owners(source), PEOPLE),
            environments={"preview": (), **dict.fromkeys(("images", *environments), ("main",))},
        ),
    )
    app = hub.register_app(APP, {"actions": "write", "contents": "write", "pull-requests": "write"})
    hub.set_variable("MLOPS_TARGET", "laptop")
    hub.set_variable("AWS_REGION", region)
    hub.set_variable("APP_CLIENT_ID", app.client_id)
    hub.set_variable("AWS_PREVIEW_ROLE", roles.preview, "preview")
    hub.set_variable("AWS_IMAGES_ROLE", roles.images, "images")
    for name in environments:
        hub.set_variable("AWS_DEPLOY_ROLE", roles.deploy[name], name)
        # Not for the whole repository: whoever may push a branch could use it, and the app may push to main.
        hub.set_secret("APP_PRIVATE_KEY", app.private_key, name)


def _owners(source: Path) -> set[str]:
    """Everybody whom a repository's CODEOWNERS names: the people of the laptop stand in for them."""
    files = [source / place for place in PLACES]
    text = next((file.read_text(encoding="utf-8") for file in files if file.is_file()), "")
    return {owner for rule in read_rules(text) for owner in rule.owners}


def twins(build: Build) -> dict[str, Twin]:
    """What stands in for the actions that need what a laptop does not have."""

    def nothing(why: str) -> Twin:
        def say(call: Call) -> Answer:
            call.log(why)
            return Answer()

        return say

    def build_image(call: Call) -> Answer:
        name = Path(call.input("file")).parent.name
        digest = build(call.workspace / call.input("context", "."), name)
        call.log(f"{name}: {digest}; nothing was compiled, the image is what it would copy")
        return Answer({"digest": digest, "imageid": digest})

    return {
        "pulumi/actions": nothing("the local target has an engine of its own; there is no Pulumi CLI to install"),
        "docker/setup-buildx-action": nothing("there is no container engine here to set up"),
        "docker/build-push-action": build_image,
        "actions/attest": nothing("not attested: the laptop has no Sigstore"),
    }
