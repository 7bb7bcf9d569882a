"""Images in ECR, read while it is throttled."""

from __future__ import annotations

import json

import pytest
from botocore.retries.standard import ExponentialBackoff

from pipelines.declarations.errors import MlopsError
from pipelines.registry.container_images import ImageRepository
from tests.http_responder import Answer, http_server

REPOSITORY = ImageRepository("111122223333", "eu-west-1", "mlops/serving")


@pytest.mark.parametrize("throttled", [7, 8])
def test_a_throttled_request_is_repeated_seven_times(monkeypatch: pytest.MonkeyPatch, throttled: int) -> None:
    asked: list[str] = []

    def answer(method: str, path: str, body: bytes) -> Answer:
        asked.append(path)
        if len(asked) <= throttled:
            return 400, json.dumps({"__type": "ThrottlingException", "message": "Rate exceeded"}).encode()
        return 200, json.dumps({"imageDetails": []}).encode()

    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.0)
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(name, value)
    with http_server(answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", url)
        if throttled == 7:
            assert REPOSITORY.request("describe_images")["imageDetails"] == []
        else:
            with pytest.raises(MlopsError, match="Rate exceeded"):
                REPOSITORY.request("describe_images")
    assert len(asked) == 8
