from __future__ import annotations

import json

import boto3
import pytest

from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.gates import judge
from pipelines.promotion.report import keep_report, read_report
from pipelines.registry import store
from tests.aws import EmulatedAccount, make_environment
from tests.pipelines.promotion.test_gates import facts

FACTS = facts()
VERDICTS = judge(FACTS)


@pytest.fixture(scope="module")
def dev(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_environment()


def test_a_report_is_stored_under_its_digest_with_all_facts_and_verdicts(dev: EnvironmentDescriptor) -> None:
    digest = keep_report(dev, "price", FACTS, VERDICTS)
    content = read_report(dev, "price", digest)
    assert digest == digest_of_bytes(content)
    assert json.loads(content) == {
        "facts": FACTS.model_dump(mode="json"),
        "verdicts": [verdict.model_dump(mode="json") for verdict in VERDICTS],
    }
    assert content == json.dumps(json.loads(content), sort_keys=True, separators=(",", ":")).encode()
    key = f"reports/price/{digest.removeprefix('sha256:')}.json"
    assert store.sizes(dev.registry_bucket, "reports/price/", limit=10) == {key: len(content)}


def test_storing_a_report_is_idempotent(dev: EnvironmentDescriptor) -> None:
    again = [keep_report(dev, "sales", FACTS, VERDICTS) for _ in range(2)]
    assert again[0] == again[1]
    assert len(store.sizes(dev.registry_bucket, "reports/sales/", limit=10)) == 1


def test_large_integers_are_stored_exactly(dev: EnvironmentDescriptor) -> None:
    assert FACTS.runtime is not None
    many = FACTS.model_copy(update={"runtime": FACTS.runtime.model_copy(update={"requests": 2**60 + 1})})
    digest = keep_report(dev, "price", many, [])
    assert json.loads(read_report(dev, "price", digest))["facts"]["runtime"]["requests"] == 2**60 + 1


def test_a_tampered_report_is_refused(dev: EnvironmentDescriptor) -> None:
    digest = keep_report(dev, "churn", FACTS, VERDICTS)
    key = f"reports/churn/{digest.removeprefix('sha256:')}.json"
    boto3.client("s3").put_object(Bucket=dev.registry_bucket, Key=key, Body=b"{}")
    with pytest.raises(MlopsError) as caught:
        read_report(dev, "churn", digest)
    assert caught.value.what == f"s3://{dev.registry_bucket}/{key} was changed"
    assert caught.value.fix == "do not rely on it"


def test_an_oversized_report_is_refused(dev: EnvironmentDescriptor, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = keep_report(dev, "price", FACTS, VERDICTS)
    monkeypatch.setattr("pipelines.promotion.report.LARGEST", 100)
    with pytest.raises(store.TooLargeError):
        read_report(dev, "price", digest)


def test_a_report_that_cannot_be_written_is_an_error(dev: EnvironmentDescriptor, account: EmulatedAccount) -> None:
    account.denied.add(dev.registry_bucket)
    with pytest.raises(store.AccessDeniedError):
        keep_report(dev, "price", FACTS, VERDICTS)
    account.denied.clear()


@pytest.mark.parametrize(("model", "digest"), [("../x", "sha256:" + "a" * 64), ("price", "latest")])
def test_an_invalid_name_or_digest_is_refused(dev: EnvironmentDescriptor, model: str, digest: str) -> None:
    with pytest.raises(MlopsError, match="is not"):
        read_report(dev, model, digest)
