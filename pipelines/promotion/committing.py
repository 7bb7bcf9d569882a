"""Git, where it writes: commits are the product's own, and a push goes by the token that the workflow was given."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

from pipelines.declarations.errors import MlopsError

AUTHOR = ("-c", "user.name=mlops", "-c", "user.email=mlops@users.noreply.github.com", "-c", "commit.gpgsign=false")


def git(root: Path, *arguments: str) -> str:
    """Run git in `root`; what it printed, without the white space around it.

    `GH_TOKEN` authorises it where `GITHUB_SERVER_URL` says, by git's own environment: in argv, or in the clone's
    configuration, others could read it.

    Raises:
        MlopsError: it failed.
    """
    done = subprocess.run(
        ["git", *AUTHOR, *arguments],
        cwd=root,
        env={**os.environ, **authorization()},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MlopsError(f"git {' '.join(arguments[:2])}: {done.stderr.strip() or f'status {done.returncode}'}")
    return done.stdout.strip()


def authorization() -> dict[str, str]:
    """The variables by which git sends the token; none when there is no token, as on a person's machine."""
    token, server = os.environ.get("GH_TOKEN"), os.environ.get("GITHUB_SERVER_URL")
    if not token or not server:
        return {}
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{server}/.extraheader",
        "GIT_CONFIG_VALUE_0": f"AUTHORIZATION: basic {basic}",
        "GIT_TERMINAL_PROMPT": "0",
    }
