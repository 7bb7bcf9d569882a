"""Links from alarms to the page that says what to do."""

from __future__ import annotations

from infra.scopes import Environment

PAGE = "docs/on-call.md"


def runbook(environment: Environment, anchor: str) -> str:
    """Return where to read what to do: a URL if the environment names its repository on GitHub, otherwise a path.

    Args:
        environment: the environment.
        anchor: heading of the page.
    """
    github = environment.config.monitoring.github
    start = f"{github.web}/{github.repository}/blob/main/" if github is not None else ""
    return f"{start}{PAGE}#{anchor}"
