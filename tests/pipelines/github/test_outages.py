"""An outage of GitHub is told apart from a refusal, and requests that may be repeated outlast a short one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.github import outages
from pipelines.github.git import Git
from pipelines.github.outages import OutageError, is_outage, outlast
from tests.clones import git, make_clone
from tests.http_responder import http_server


@pytest.mark.parametrize(
    "said",
    [
        "fatal: unable to access 'https://github.com/a/b/': The requested URL returned error: 503",
        "fatal: unable to access 'https://github.com/a/b/': Could not resolve host: github.com",
        "fatal: unable to access 'https://github.com/a/b/': Failed to connect to github.com port 443: Timed out",
        "ssh: connect to host github.com port 22: Connection refused\nfatal: Could not read from remote repository.",
        "fatal: the remote end hung up unexpectedly",
        "gh: Service Unavailable (HTTP 503)",
        "HTTP 429: too many requests (https://api.github.com/)",
        "error connecting to api.github.com\ncheck your internet connection or https://githubstatus.com",
    ],
)
def test_a_service_that_does_not_answer_is_an_outage(said: str) -> None:
    assert is_outage(said)


@pytest.mark.parametrize(
    "said",
    [
        "fatal: Authentication failed for 'https://github.com/a/b/'",
        "fatal: unable to access 'https://github.com/a/b/': The requested URL returned error: 403",
        "remote: Repository not found.\nfatal: repository 'https://github.com/a/b/' not found",
        "git@github.com: Permission denied (publickey).\nfatal: Could not read from remote repository.",
        " ! [rejected]        main -> main (fetch first)",
        "gh: Bad credentials (HTTP 401)",
    ],
)
def test_a_refusal_is_not_an_outage(said: str) -> None:
    assert not is_outage(said)


def test_git_tells_an_outage_of_the_origin_from_a_refusal(tmp_path: Path) -> None:
    root = make_clone(tmp_path)
    for status, expected in ((503, OutageError), (403, MlopsError)):
        with http_server(lambda *_, status=status: (status, b"no")) as url:
            git(root, "remote", "set-url", "origin", f"{url}/a/b.git")
            with pytest.raises(MlopsError) as failed:
                Git(root).fetch("main")
        assert type(failed.value) is expected
    with pytest.raises(OutageError, match="Failed to connect"):  # the server has gone
        Git(root).fetch("main")


def test_what_may_be_repeated_outlasts_a_short_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "FIRST_PAUSE", 0.001)
    answers = iter([OutageError("down"), OutageError("down"), None])

    def ask() -> str:
        if (error := next(answers)) is not None:
            raise error
        return "up"

    assert outlast(ask) == "up"


def test_a_refusal_is_not_repeated() -> None:
    answers = iter([MlopsError("no")])

    def ask() -> None:
        raise next(answers)

    with pytest.raises(MlopsError, match="no"):
        outlast(ask)
