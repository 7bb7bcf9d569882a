"""What `gh` says becomes an error with a fix, and reads outlast a short outage of GitHub."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipelines.github import outages
from pipelines.github.gh import Gh, GitHubError
from pipelines.github.outages import OutageError

COMMAND = """#!{python}
import pathlib, sys
folder = pathlib.Path({folder!r})
answers = (folder / "answers").read_text().split("|")
(folder / "asked").open("a").write(" ".join(sys.argv[1:]) + "\\n")
(folder / "answers").write_text("|".join(answers[1:] or answers))
if answers[0].startswith("["):
    print(answers[0])
else:
    sys.exit("gh: " + answers[0])
"""


@pytest.fixture
def gh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gh:
    command = tmp_path / "bin" / "gh"
    command.parent.mkdir()
    command.write_text(COMMAND.format(python=sys.executable, folder=str(tmp_path)))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent))
    monkeypatch.setattr(outages, "FIRST_PAUSE", 0.001)
    return Gh(tmp_path, "acme/mlops")


def answer(gh: Gh, *answers: str) -> None:
    (gh.root / "answers").write_text("|".join(answers))


def asked(gh: Gh) -> int:
    return len((gh.root / "asked").read_text().splitlines())


def test_a_read_outlasts_a_short_outage(gh: Gh) -> None:
    unreachable = "error connecting to api.github.com"
    answer(gh, "Service Unavailable (HTTP 503)", "HTTP 502: Bad Gateway (https://a/)", unreachable, '[{"number": 7}]')
    assert gh.list_all("pulls") == [{"number": 7}]
    assert asked(gh) == 4


@pytest.mark.parametrize(
    ("said", "fix"),
    [("Bad credentials (HTTP 401)", "check that the app is installed"), ("Not Found (HTTP 404)", "")],
)
def test_a_refusal_is_not_repeated(gh: Gh, said: str, fix: str) -> None:
    answer(gh, said)
    with pytest.raises(GitHubError) as refused:
        gh.get("pulls/1")
    assert (refused.value.fix.startswith(fix), asked(gh)) == (True, 1)


def test_a_long_outage_says_when_to_try_again(gh: Gh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "OUTAGE_SECONDS", 0.0)
    answer(gh, "Service Unavailable (HTTP 503)")
    with pytest.raises(GitHubError) as failed:
        gh.request("GET", "repos/acme/mlops")
    assert isinstance(failed.value, OutageError)
    assert "run this again when" in failed.value.fix


def test_a_change_is_made_once(gh: Gh) -> None:
    answer(gh, "Service Unavailable (HTTP 503)", "[]")
    with pytest.raises(GitHubError):
        gh.request("POST", "repos/acme/mlops/git/refs", {"ref": "refs/heads/a"})
    assert asked(gh) == 1
