"""Facts of a promotion, gathered from a git repository and a registry, readable and unreadable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from pipelines.declarations.bundle import MANIFEST
from pipelines.declarations.digests import digest_of_bytes, digest_of_value
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.declarations.release import Release
from pipelines.promotion.facts import Facts, Predecessor
from pipelines.promotion.facts.gather import NEW_ENVIRONMENT, ReleaseChange, gather, read_changes
from pipelines.promotion.gates import GATES, admits, judge
from pipelines.registry import bundles, evidence, signing
from pipelines.registry.bundle_quarantine import Quarantined, quarantine
from pipelines.registry.ledger import Event, Ledger
from tests.aws import EmulatedAccount
from tests.clones import commit_all, git
from tests.pipelines.promotion.promotion_project import DATASET, MODEL, RELEASE, SERVING, World
from tests.pipelines.serving.bundles import linear_bundle
from tests.signing_environments import example_build, with_empty_registry

pytestmark = pytest.mark.slow


def proposal(bundle: str | None, replaces: str | None, environment: str = "staging") -> ReleaseChange:
    """Return a change of one release file."""
    release = Release(model=MODEL, environment=environment, bundle=bundle, replaces=replaces)
    return ReleaseChange(release, (f"models/{MODEL}/releases/{environment}.yaml",))


def facts_of(world: World, change: ReleaseChange, **options: Any) -> Facts:
    return gather(world.project, world.repository, world.descriptors, change, **options)


def refused(facts: Facts) -> dict[str, str]:
    """Return the gates that do not pass, with their outcomes."""
    return {v.gate: v.outcome for v in judge(facts) if v.outcome != "pass"}


def go_live(world: World, digest: str) -> None:
    """Record in staging's ledger that a bundle went live."""
    world.bring(digest)
    ledger = Ledger(world.staging, MODEL)
    head = ledger.head()
    values: dict[str, Any] = {
        "before": head.event.live if head else None,
        "to": digest,
        "live": digest,
        "result": "verified",
    }
    ledger.append(lambda _: Event.of(attempt=digest, action="promotion", **values))


def put(bucket: str, key: str, content: bytes) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=content)


# --- a correct promotion ----------------------------------------------------------------------------------------------


def test_every_fact_of_a_correct_promotion_is_known_and_every_gate_passes(world: World) -> None:
    live = world.register(1)
    go_live(world, live)
    commit = world.repository.head()
    candidate = world.ready(2)
    change = proposal(candidate, live)
    facts = facts_of(world, change)
    assert facts.unknown == {}
    assert refused(facts) == {}
    assert admits(judge(facts))
    assert facts.changed_files == (RELEASE,)
    assert {f.name for f in facts.files} == {MANIFEST, *world.bundle(2)[0].files}
    assert all(f.expected == f.found for f in facts.files)
    assert [(s.kind, s.signer, s.expected) for s in facts.signatures] == [
        ("provenance", "dev", "dev"),
        ("evaluation", "dev", "dev"),
    ]
    assert facts.origin is not None and facts.policy is not None and facts.runtime is not None
    assert (facts.origin.commits, facts.origin.commit_on_main) == ((commit,), commit)
    assert facts.origin.builder == facts.origin.expected_builder == f"dev/train-{MODEL}@{digest_of_bytes(b'image')}"
    assert facts.origin.source == facts.origin.committed_source
    assert facts.policy.gates == world.project.model(MODEL).gates
    assert facts.policy.digest == facts.policy.evaluated
    assert (facts.runtime.problem, facts.runtime.golden_rows, facts.runtime.requests) == ("", 1, 300)
    assert facts.runtime.version == facts.runtime.serving_version
    assert (facts.live, facts.promotes_from) == (live, "dev")
    assert facts.champion is not None and facts.champion == facts.evaluation
    assert facts.live_schema is not None and facts.live_schema == facts.request_schema
    assert facts.predecessor is not None
    assert (facts.predecessor.live, facts.predecessor.requests, facts.predecessor.errors) == (True, 25, 0)
    assert (facts.quarantined, facts.freezes, facts.contract_breaks) == ({}, (), ())


def test_the_first_environment_has_no_predecessor(world: World) -> None:
    digest = world.register(1)
    facts = facts_of(world, proposal(digest, None, "dev"))
    assert (facts.predecessor, facts.promotes_from, facts.unknown) == (None, None, {})
    assert refused(facts) == {"image": "fail"}, "dev pins none in this project"


def test_an_environment_that_is_not_up_is_an_error(world: World) -> None:
    change = proposal(world.register(1), None)
    for missing in ("dev", "staging"):
        up = {name: descriptor for name, descriptor in world.descriptors.items() if name != missing}
        with pytest.raises(MlopsError) as caught:
            gather(world.project, world.repository, up, change)
        assert caught.value.what.startswith(f"{missing} is not up")
        assert caught.value.fix == f"bring {missing} up first: {NEW_ENVIRONMENT}"


def test_the_time_of_judgement_is_now_by_default(world: World) -> None:
    change = proposal(None, None)
    then = datetime(2026, 3, 2, tzinfo=UTC)
    assert facts_of(world, change, now=then).now == then
    found = facts_of(world, change)
    assert timedelta() <= datetime.now(UTC) - found.now < timedelta(minutes=1)
    assert found.unknown["policy"] == "'' is not the digest of a bundle"


def test_a_model_that_does_not_exist_is_an_error(world: World) -> None:
    release = Release(model="churn", environment="staging", bundle=None, replaces=None)
    with pytest.raises(MlopsError, match="unknown model 'churn'"):
        facts_of(world, ReleaseChange(release, ()))


# --- the bundle -------------------------------------------------------------------------------------------------------


def test_gates_that_need_a_missing_bundle_do_not_pass(world: World) -> None:
    facts = facts_of(world, proposal("sha256:" + "0" * 64, None))
    assert facts.files == () and "files" not in facts.unknown
    passing = {v.gate for v in judge(facts) if v.outcome == "pass"}
    assert passing == {"scope", "freshness", "freeze", "image", "quarantine"}
    assert GATES["digest"](facts).why == "the registry has no such bundle"


def test_a_release_without_a_bundle_is_refused(world: World) -> None:
    change = ReleaseChange(world.project.release(MODEL, "staging"), (RELEASE,))
    assert GATES["digest"](facts_of(world, change)).figure == "no bundle"


def test_changed_missing_and_added_files_are_reported(world: World) -> None:
    digest = world.ready(5)
    prefix = bundles.prefix_of(MODEL, digest)
    put(world.dev.registry_bucket, prefix + "card.md", b"another card")
    put(world.dev.registry_bucket, prefix + "more.txt", b"more")
    boto3.client("s3").delete_object(Bucket=world.dev.registry_bucket, Key=prefix + "golden.json")
    facts = facts_of(world, proposal(digest, None))
    wrong = {f.name: (f.expected is None, f.found is None) for f in facts.files if f.expected != f.found}
    assert wrong == {"card.md": (False, False), "more.txt": (True, False), "golden.json": (False, True)}
    assert refused(facts)["digest"] == "fail"
    assert refused(facts)["runtime"] == "inconclusive", "a changed bundle is not loaded"


def same_size(world: World, digest: str, bucket: str) -> None:
    """Replace a file of a bundle with another of the same size."""
    put(bucket, bundles.prefix_of(MODEL, digest) + "card.md", b"# B card\n")


def test_a_bundle_with_a_changed_file_is_not_loaded_but_its_evidence_is_read(world: World) -> None:
    digest = world.ready(80)
    same_size(world, digest, world.dev.registry_bucket)
    facts = facts_of(world, proposal(digest, None))
    assert [f.name for f in facts.files if f.expected != f.found] == ["card.md"]
    assert facts.origin is not None and facts.policy is not None
    for unknown in ("runtime", "evaluation", "request_schema"):
        assert getattr(facts, unknown) is None
        assert "card.md was changed" in facts.unknown[unknown]


def test_the_champion_is_read_if_only_another_file_of_the_live_bundle_changed(world: World) -> None:
    live = world.register(81)
    go_live(world, live)
    same_size(world, live, world.staging.registry_bucket)
    path = world.project.contract_file(DATASET)
    path.write_text(path.read_text().replace("maximum: 120", "maximum: 130"))
    commit_all(world.root, "Promise less")
    facts = facts_of(world, proposal(world.ready(82), live))
    assert facts.champion is not None and facts.live_schema is not None
    assert facts.contract_breaks == ("age: maximum was 120, is 130",)


@pytest.mark.parametrize(
    ("file", "known_as", "live_as"),
    [("evaluation.json", "evaluation", "champion"), ("schema.json", "request_schema", "live_schema")],
)
def test_an_invalid_file_of_a_bundle_is_reported(world: World, file: str, known_as: str, live_as: str) -> None:
    digest = world.register(83, files={file: b"{}"})
    go_live(world, digest)
    candidate = world.ready(86, files={file: b"{}"})
    facts = facts_of(world, proposal(candidate, digest))
    for name in (known_as, live_as):
        assert getattr(facts, name) is None and facts.unknown[name].startswith(f"{file}:1: ")


def test_an_invalid_manifest_is_reported(world: World) -> None:
    digest = digest_of_bytes(b"{}")
    put(world.dev.registry_bucket, bundles.prefix_of(MODEL, digest) + MANIFEST, b"{}")
    facts = facts_of(world, proposal(digest, None))
    assert facts.unknown["files"].startswith("bundle.json:1: ")


def test_an_invalid_model_or_contract_in_the_bundles_commit_is_reported(world: World) -> None:
    model, contract = world.project.model_file(MODEL), world.project.contract_file(DATASET)
    before = model.read_text(), contract.read_text()
    model.write_text("name: x\n")
    contract.write_text("kind: no contract\n")
    wrong = commit_all(world.root, "wrong")
    model.write_text(before[0])
    contract.write_text(before[1])
    commit_all(world.root, "right")
    live = world.register(84, commit=wrong, contract=digest_of_bytes(b"kind: no contract\n"))
    go_live(world, live)
    facts = facts_of(world, proposal(world.ready(85, commit=wrong), live))
    assert facts.unknown["policy"].startswith(f"models/{MODEL}/model.yaml:1: ")
    assert facts.unknown["contract_breaks"].startswith(f"data-contracts/{DATASET}.odcs.yaml:1: ")


def test_a_changed_manifest_is_reported_and_not_trusted(world: World) -> None:
    digest = world.ready(6)
    key = bundles.prefix_of(MODEL, digest) + MANIFEST
    put(world.dev.registry_bucket, key, world.bundle(7)[0].manifest())
    found = GATES["digest"](facts_of(world, proposal(digest, None)))
    assert (found.outcome, found.why) == ("fail", "bundle.json was changed")


def test_a_bundle_of_another_model_is_refused(world: World) -> None:
    manifest, files = world.bundle(8, model="churn")
    for name, content in {**files, MANIFEST: manifest.manifest()}.items():
        put(world.dev.registry_bucket, bundles.prefix_of(MODEL, manifest.digest) + name, content)
    outcomes = refused(facts_of(world, proposal(manifest.digest, None)))
    assert {"signature", "provenance", "thresholds", "runtime"} <= set(outcomes)


# --- the evidence -----------------------------------------------------------------------------------------------------


def unsigned(world: World, seed: int) -> str:
    manifest, files = world.bundle(seed)
    bundles.push(world.dev, manifest, files)
    return manifest.digest


def test_a_bundle_without_evidence_is_refused_and_not_loaded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pipelines.promotion.facts.gather.try_bundle", lambda *_: pytest.fail("a bundle without evidence was loaded")
    )
    facts = facts_of(world, proposal(unsigned(world, 9), None))
    assert (facts.signatures, "signatures" in facts.unknown) == ((), False)
    found = GATES["signature"](facts)
    assert (found.outcome, found.why) == ("fail", "there is no signed provenance and no signed evaluation")
    for gate in ("provenance", "thresholds", "champion", "fairness", "runtime", "soak"):
        assert refused(facts)[gate] == "inconclusive", gate


def test_a_missing_signed_evaluation_is_reported(world: World) -> None:
    digest = world.ready(10)
    key = evidence.prefix_of(MODEL, digest) + "evaluation.dsse.json"
    boto3.client("s3").delete_object(Bucket=world.dev.registry_bucket, Key=key)
    facts = facts_of(world, proposal(digest, None))
    assert GATES["signature"](facts).why == "there is no signed evaluation"


def test_a_missing_signed_provenance_is_reported(world: World) -> None:
    digest = world.ready(76)
    key = evidence.prefix_of(MODEL, digest) + "provenance.dsse.json"
    boto3.client("s3").delete_object(Bucket=world.dev.registry_bucket, Key=key)
    facts = facts_of(world, proposal(digest, None))
    assert GATES["signature"](facts).why == "there is no signed provenance"
    assert [(s.kind, s.signer) for s in facts.signatures] == [("evaluation", "dev")]
    assert (facts.policy, facts.origin, facts.runtime) == (None, None, None)
    assert {"policy", "origin", "runtime"} <= set(facts.unknown)


def test_evidence_signed_with_an_unknown_key_is_refused(world: World) -> None:
    from tests.signing_environments import make_key

    manifest, files = world.bundle(11)
    bundles.push(world.dev, manifest, files)
    arn, pem = make_key()
    unknown = world.dev.model_copy(update={"signing_key": arn, "trusted_keys": {"dev": pem}})
    evidence.attest(unknown, manifest, digest_of_bytes(b"gates"), example_build("dev"))
    facts = facts_of(world, proposal(manifest.digest, None))
    assert [s.signer for s in facts.signatures] == [None, None]
    found = GATES["signature"](facts)
    assert found.outcome == "fail" and "has no valid signature by a trusted key" in found.why


def test_evidence_signed_by_an_environment_that_does_not_train_is_refused(world: World) -> None:
    """The environment after staging trusts staging's key."""
    manifest, files = world.bundle(12)
    bundles.push(world.staging, manifest, files)
    gates = digest_of_value(world.project.model(MODEL).gates.model_dump(mode="json"))
    evidence.attest(world.staging, manifest, gates, example_build("staging", commit=world.repository.head()))
    up = {**world.descriptors, "prod": with_empty_registry(world.staging)}
    facts = gather(world.project, world.repository, up, proposal(manifest.digest, None, "prod"))
    assert GATES["signature"](facts).why == "the provenance is signed by staging; expected dev"
    assert GATES["provenance"](facts).why.startswith("built by staging/train-")


# --- git --------------------------------------------------------------------------------------------------------------


def test_a_bundle_from_an_unmerged_commit_is_refused(world: World) -> None:
    git(world.root, "checkout", "--quiet", "-b", "feature")
    git(world.root, "commit", "--quiet", "--allow-empty", "--message", "not merged")
    digest = world.ready(70)
    facts = facts_of(world, world.release(digest, None))
    assert facts.origin is not None and facts.origin.commit_on_main is None
    found = GATES["provenance"](facts)
    assert (found.outcome, found.figure) == ("fail", "not on main")


def test_a_bundle_from_an_unknown_commit_is_refused(world: World) -> None:
    digest = world.ready(14, commit="e" * 40)
    facts = facts_of(world, proposal(digest, None))
    assert GATES["provenance"](facts).figure == "not on main"
    assert refused(facts)["thresholds"] == "inconclusive", "its bounds cannot be read"


def test_a_bundle_rebuilt_from_main_is_accepted(world: World) -> None:
    digest = world.ready(15, commit="e" * 40)
    gates = digest_of_value(world.project.model(MODEL).gates.model_dump(mode="json"))
    build = example_build("dev", commit=world.repository.head(), run="run-2")
    evidence.attest(world.dev, world.bundle(15)[0], gates, build)
    facts = facts_of(world, proposal(digest, None))
    assert facts.origin is not None and facts.origin.commits == ("e" * 40, build.commit)
    assert refused(facts) == {}


def test_a_bundle_trained_from_a_modified_folder_is_refused(world: World) -> None:
    train = world.root / "models" / MODEL / "train.py"
    train.write_text(train.read_text() + "\n# changed, and not committed\n")
    digest = world.ready(71)
    git(world.root, "checkout", "--quiet", "--", ".")
    facts = facts_of(world, world.release(digest, None))
    assert refused(facts) == {"provenance": "fail"}
    assert "differs from the source of the bundle" in GATES["provenance"](facts).why


def test_later_commits_to_the_models_folder_are_ignored(world: World) -> None:
    digest = world.ready(1)
    train = world.root / "models" / MODEL / "train.py"
    train.write_text(train.read_text() + "\n# the next version\n")
    commit_all(world.root, "a later commit")
    assert refused(facts_of(world, world.release(digest, None))) == {}


def test_bounds_other_than_the_evaluated_ones_are_refused(world: World) -> None:
    """The evaluation names other gates than the bundle's commit has."""
    digest = world.ready(18)
    facts = facts_of(world, proposal(digest, None))
    assert facts.policy is not None
    manifest, _ = world.bundle(19)
    bundles.push(world.dev, manifest, world.bundle(19)[1])
    build = example_build("dev", commit=world.repository.head())
    evidence.attest(world.dev, manifest, digest_of_bytes(b"looser gates"), build)
    world.verify_in_dev(manifest.digest)
    world.log_requests(manifest.digest)
    facts = facts_of(world, proposal(manifest.digest, None))
    assert refused(facts) == {"thresholds": "fail"}


def test_bounds_loosened_later_on_main_are_ignored(world: World) -> None:
    digest = world.ready(1)
    path = world.project.model_file(MODEL)
    path.write_text(path.read_text().replace("maximum: 62.0", "maximum: 1000.0"))
    commit_all(world.root, "Loosen the bound")
    facts = facts_of(world, world.release(digest, None))
    assert facts.policy is not None and facts.policy.gates.thresholds[0].maximum == 62.0


def test_provenance_is_inconclusive_without_main(world: World) -> None:
    digest = world.ready(1)
    change = world.release(digest, None)
    git(world.root, "update-ref", "-d", "refs/remotes/origin/main")
    facts = facts_of(world, change)
    assert refused(facts)["provenance"] == refused(facts)["thresholds"] == "inconclusive"


# --- contract, schema, runtime ----------------------------------------------------------------------------------------


def test_a_breaking_contract_change_is_refused(world: World) -> None:
    live = world.register(1)
    go_live(world, live)
    path = world.project.contract_file(DATASET)
    text = path.read_text()
    assert text.count("maximum: 120") == 1
    path.write_text(text.replace("maximum: 120", "maximum: 130"))
    commit_all(world.root, "Promise less")
    candidate = world.ready(72)
    facts = facts_of(world, world.release(candidate, live))
    assert facts.contract_breaks == ("age: maximum was 120, is 130",)
    assert refused(facts) == {"contract": "fail"}


def test_contracts_that_cannot_be_compared_are_inconclusive(world: World) -> None:
    live = world.register(24, contract=digest_of_bytes(b"a contract that was never committed"))
    go_live(world, live)
    candidate = world.ready(25)
    facts = facts_of(world, proposal(candidate, live))
    assert refused(facts) == {"contract": "inconclusive"}
    assert "has its contract" in facts.unknown["contract_breaks"]


def test_a_breaking_schema_change_is_refused(world: World) -> None:
    live = world.register(26)
    go_live(world, live)
    narrower = linear_bundle(
        columns=tuple(
            column.model_copy(update={"maximum": 60.0} if column.name == "age" else {}) for column in _columns()
        )
    )
    candidate = world.ready(27, files={"schema.json": narrower.files["schema.json"]})
    facts = facts_of(world, proposal(candidate, live))
    assert refused(facts) == {"compatibility": "fail"}
    assert GATES["compatibility"](facts).why == "the maximum of age fell to 60"


def _columns() -> Any:
    from tests.pipelines.serving.bundles import COLUMNS

    return COLUMNS


def test_a_wrong_golden_prediction_is_reported(world: World) -> None:
    digest = world.ready(28, golden=7.0)
    facts = facts_of(world, proposal(digest, None))
    assert refused(facts) == {"runtime": "fail"}
    assert "expected 7, found 91." in GATES["runtime"](facts).why


def test_a_bundle_without_an_evaluation_is_reported(world: World) -> None:
    manifest, files = world.bundle(73)
    kept = {name: file for name, file in manifest.files.items() if name != "evaluation.json"}
    manifest = manifest.model_copy(update={"files": kept})
    for name in kept:
        put(world.dev.registry_bucket, bundles.prefix_of(MODEL, manifest.digest) + name, files[name])
    put(world.dev.registry_bucket, bundles.prefix_of(MODEL, manifest.digest) + MANIFEST, manifest.manifest())
    facts = facts_of(world, proposal(manifest.digest, None))
    assert (facts.evaluation, facts.unknown["evaluation"]) == (None, "the bundle has no evaluation.json")
    assert facts.request_schema is not None


@pytest.mark.parametrize("content", [b"not a model", b"", b"\x08\x09\x12"])
def test_a_model_that_does_not_load_is_reported(world: World, content: bytes) -> None:
    digest = world.ready(29 + len(content), files={"model.onnx": content})
    assert refused(facts_of(world, proposal(digest, None))) == {"runtime": "fail"}


def test_contracts_are_not_compared_without_verified_evidence(world: World) -> None:
    go_live(world, world.register(1))
    facts = facts_of(world, proposal(unsigned(world, 77), None))
    assert facts.contract_breaks is None
    assert facts.unknown["contract_breaks"] == facts.unknown["policy"]


def test_the_contract_is_read_from_any_commit_of_the_bundle(world: World) -> None:
    """The first commit is gone, and the second has another contract."""
    path = world.project.contract_file(DATASET)
    before = path.read_text()
    path.write_text(before.replace("maximum: 120", "maximum: 130"))
    other = commit_all(world.root, "Promise less")
    path.write_text(before)
    commit_all(world.root, "Promise it again")
    live = world.register(74, commit="e" * 40)
    gates = digest_of_value(world.project.model(MODEL).gates.model_dump(mode="json"))
    for run, commit in (("run-2", other), ("run-3", world.start)):
        build = example_build("dev", commit=commit, run=run)
        evidence.attest(world.dev, world.bundle(74)[0], gates, build)
    go_live(world, live)
    path.write_text(before.replace("maximum: 120", "maximum: 110"))
    commit_all(world.root, "Promise more")
    facts = facts_of(world, proposal(world.ready(75), live))
    assert facts.contract_breaks == ()


# --- the previous environment -----------------------------------------------------------------------------------------


def test_a_bundle_that_was_never_verified_is_refused(world: World) -> None:
    facts = facts_of(world, proposal(world.register(1), None))
    assert refused(facts) == {"order": "fail", "soak": "fail"}
    assert facts.predecessor == Predecessor(environment="dev", verified_at=None, live=False, requests=0, errors=0)


@pytest.mark.parametrize("result", ["refused", "failed"])
def test_refused_and_failed_deployments_do_not_count_as_verified(world: World, result: str) -> None:
    other, digest = world.register(1), world.register(2)
    world.verify_in_dev(other)
    event = Event.of(attempt="x", action="promotion", result=result, before=other, to=digest, live=other)
    Ledger(world.dev, MODEL).append(lambda _: event)
    world.log_requests(digest)
    assert refused(facts_of(world, proposal(digest, None))) == {"order": "fail", "soak": "fail"}


def test_requests_are_counted_from_the_verification(world: World) -> None:
    digest = world.register(1)
    world.log_requests(digest)
    world.verify_in_dev(digest, at=datetime.now(UTC) + timedelta(seconds=1))
    facts = facts_of(world, proposal(digest, None), now=datetime.now(UTC) + timedelta(hours=1))
    assert facts.predecessor is not None and facts.predecessor.requests == 0
    assert refused(facts) == {"soak": "fail"}


def test_server_errors_are_counted(world: World) -> None:
    digest = world.register(1)
    world.verify_in_dev(digest)
    world.log_requests(digest, 25, errors=25)
    facts = facts_of(world, proposal(digest, None))
    assert facts.predecessor is not None and facts.predecessor.errors == 25
    assert refused(facts) == {"soak": "fail"}


def test_a_bundle_that_is_no_longer_live_in_the_previous_environment_is_refused(world: World) -> None:
    digest = world.ready(1)
    world.verify_in_dev(world.register(2))
    facts = facts_of(world, proposal(digest, None))
    assert refused(facts) == {"soak": "fail"}


# --- quarantine, freeze, live bundle ----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["dev", "staging"])
def test_a_bundle_quarantined_in_any_environment_is_refused(world: World, where: str) -> None:
    digest = world.ready(1)
    entry = Quarantined(bundle=digest, reason="mae 61 is over 55", at=datetime.now(UTC))
    quarantine(world.descriptors[where], MODEL, entry)
    facts = facts_of(world, proposal(digest, None))
    assert refused(facts) == {"quarantine": "fail"}
    assert GATES["quarantine"](facts).why == f"it was rolled back: mae 61 is over 55 (in {where})"


def test_a_freeze_window_refuses_a_promotion(world: World) -> None:
    digest = world.ready(1)
    window = "    freezes:\n      - {start: 2020-01-01T00:00:00Z, end: 2100-01-01T00:00:00Z, reason: end of days}\n"
    path = world.project.stack_file("staging")
    path.write_text(path.read_text() + window)
    assert refused(facts_of(world, world.release(digest, None))) == {"freeze": "fail"}


def test_a_stale_release_is_refused(world: World) -> None:
    live = world.register(1)
    go_live(world, live)
    digest = world.ready(2)
    assert refused(facts_of(world, proposal(digest, None))) == {"freshness": "fail"}


# --- unreadable -------------------------------------------------------------------------------------------------------


def test_gates_that_need_an_unreadable_registry_are_inconclusive(world: World, account: EmulatedAccount) -> None:
    live = world.register(1)
    go_live(world, live)
    change = proposal(world.ready(2), live)
    account.denied.add(world.dev.registry_bucket)
    facts = facts_of(world, change)
    account.denied.clear()
    found = {v.gate: v for v in judge(facts)}
    depending = set(GATES) - {"scope", "freshness", "freeze", "image"}
    assert {gate for gate, v in found.items() if v.outcome != "pass"} == depending
    for gate in depending:
        assert found[gate].outcome == "inconclusive", found[gate]
        assert "was denied" in found[gate].why, found[gate]


def test_an_unreadable_registry_is_not_taken_for_a_first_release(world: World, account: EmulatedAccount) -> None:
    change = proposal(world.ready(1), None)
    account.denied.add(world.staging.registry_bucket)
    facts = facts_of(world, change)
    account.denied.clear()
    found = refused(facts)
    assert found == dict.fromkeys(["champion", "compatibility", "freshness", "quarantine", "contract"], "inconclusive")


def test_an_unreadable_log_makes_soak_inconclusive(world: World, account: EmulatedAccount) -> None:
    change = proposal(world.ready(1), None)
    account.denied.add(world.dev.logs_bucket)
    facts = facts_of(world, change)
    account.denied.clear()
    assert refused(facts) == {"order": "inconclusive", "soak": "inconclusive"}


def test_gates_that_need_a_broken_ledger_do_not_pass(world: World) -> None:
    change = proposal(world.ready(1), None)
    for descriptor in (world.dev, world.staging):
        put(descriptor.registry_bucket, f"ledger/{MODEL}/0000000002.dsse.json", b"{}")
    found = refused(facts_of(world, change))
    assert {"order", "soak", "champion", "compatibility", "freshness", "contract"} == set(found)


def test_an_invalid_quarantine_entry_refuses_a_promotion(world: World) -> None:
    change = proposal(world.ready(1), None)
    put(world.staging.registry_bucket, f"quarantine/{MODEL}/{'a' * 64}.json", b"{}")
    assert refused(facts_of(world, change)) == {"quarantine": "inconclusive"}


def test_a_tampered_live_bundle_is_inconclusive(world: World) -> None:
    live = world.register(1)
    go_live(world, live)
    change = proposal(world.ready(2), live)
    for name in ("evaluation.json", "schema.json"):
        put(world.staging.registry_bucket, bundles.prefix_of(MODEL, live) + name, b"{}")
    found = refused(facts_of(world, change))
    assert found == dict.fromkeys(["champion", "compatibility", "contract"], "inconclusive")
    unknown = facts_of(world, change).unknown
    assert set(unknown) == {"champion", "live_schema", "contract_breaks"}
    assert "evaluation.json" in unknown["champion"] == unknown["live_schema"] == unknown["contract_breaks"]


# --- proposed releases ------------------------------------------------------------------------------------------------


def test_a_change_proposes_the_release_files_it_changes(world: World) -> None:
    base = world.repository.head()
    digest = world.register(1)
    world.release(digest, None)
    (world.root / "README.md").write_text("more")
    commit_all(world.root, "another file")
    (change,) = read_changes(world.repository, base, "HEAD")
    assert (change.release.bundle, change.files) == (digest, ("README.md", RELEASE))
    assert read_changes(world.repository, "HEAD", "HEAD") == []


def test_an_invalid_release_file_is_an_error_that_names_it(world: World) -> None:
    base = world.repository.head()
    (world.root / RELEASE).write_text("model: x\n")
    commit_all(world.root, "wrong")
    with pytest.raises(MlopsError, match=r"releases/staging\.yaml"):
        read_changes(world.repository, base, "HEAD")


def test_a_deleted_release_file_and_one_without_a_bundle_release_nothing(world: World) -> None:
    base = world.repository.head()
    (world.root / RELEASE).unlink()
    commit_all(world.root, "gone")
    assert read_changes(world.repository, base, "HEAD") == []
    gone = world.repository.head()
    world.release(None, None)
    assert read_changes(world.repository, gone, "HEAD") == []


def test_an_unreadable_statement_is_inconclusive_not_invalid(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a bad signature fails."""
    digest = world.ready(1)
    change = proposal(digest, None)

    def unreadable(*_: Any) -> Any:
        raise MlopsError("s3:GetObject failed: connection reset")

    monkeypatch.setattr(evidence, "read_statement", unreadable)
    assert GATES["signature"](facts_of(world, change)).outcome == "inconclusive"
    monkeypatch.setattr(evidence, "read_statement", _bad)
    assert GATES["signature"](facts_of(world, change)).outcome == "fail"


def _bad(*_: Any) -> Any:
    raise signing.BadSignatureError("not an envelope")


def test_a_serving_image_that_main_pins_since_the_change_was_proposed_counts(world: World) -> None:
    """Gates that are asked again see the checkout of the first time."""
    change = world.release(world.register(1), None)

    def serving_image() -> str | None:
        return gather(Project(world.root), world.repository, world.descriptors, change).serving_image

    assert serving_image() == SERVING
    file = world.project.stack_file("staging")
    without = file.read_text().replace(SERVING, "null")
    assert without != file.read_text()
    file.write_text(without)
    assert serving_image() == SERVING
    commit_all(world.root, "Pin nothing")
    assert serving_image() is None
