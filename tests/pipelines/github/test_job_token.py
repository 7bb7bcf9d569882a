"""The subject of a job's token, printed when a sign-in fails."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.github.job_token import read_subject
from tests.http_responder import served_by

SUBJECT = "repo:example@5/models@9:environment:dev"
KEY = "k"
ANSWERS: dict[str, object] = {}


class Runner(BaseHTTPRequestHandler):
    """The service of a runner that issues tokens."""

    def do_GET(self) -> None:
        is_allowed = (
            self.headers["Authorization"] == f"Bearer {KEY}" and self.path == "/token?v=2&audience=sts.amazonaws.com"
        )
        self.send_response(200 if is_allowed else 401)
        self.end_headers()
        self.wfile.write(json.dumps(ANSWERS if is_allowed else {}).encode())


@pytest.fixture
def url() -> Iterator[str]:
    with served_by(Runner) as address:
        yield f"{address}/token?v=2"


def environ(url: str, token: str = KEY) -> dict[str, str]:
    return {"ACTIONS_ID_TOKEN_REQUEST_URL": url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": token}


def test_the_subject_of_the_token_is_read(url: str) -> None:
    payload = base64.urlsafe_b64encode(json.dumps({"sub": SUBJECT}).encode()).decode().rstrip("=")
    ANSWERS.clear()
    ANSWERS["value"] = f"e30.{payload}.c2ln"
    assert read_subject(environ(url)) == SUBJECT


@pytest.mark.parametrize("value", ["", "a", "a.b.c", "e30.e30.e30"])
def test_what_is_no_token_is_refused(url: str, value: str) -> None:
    ANSWERS.clear()
    ANSWERS["value"] = value
    with pytest.raises(MlopsError, match="GitHub gave none that can be read"):
        read_subject(environ(url))


def test_a_refusal_is_an_error_without_the_token(url: str) -> None:
    with pytest.raises(MlopsError, match="GitHub gave none that can be read: HTTPError") as error:
        read_subject(environ(url, "wrong"))
    assert "wrong" not in str(error.value)


def test_outside_of_a_job_that_may_sign_in_it_says_so() -> None:
    with pytest.raises(MlopsError, match="found none") as error:
        read_subject({})
    assert "id-token: write" in error.value.fix
