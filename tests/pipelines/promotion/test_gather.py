"""Each fact of a promotion, from a real git repository and registry; and what becomes of it when it cannot be had."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from pipelines.declarations.bundle import RequestSchema
from pipelines.declarations.digests import digest_of_bytes, digest_of_value
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.evaluation import Evaluation
from pipelines.declarations.release import Release
from pipelines.promotion.facts import Facts, Predecessor
from pipelines.promotion.gates import GATES, admits, judge
from pipelines.promotion.gather import Change, _read, gather, proposed, read_contract_breaks
from pipelines.registry import bundles, evidence, signing
from pipelines.registry.ledger import Event, Ledger
from pipelines.registry.quarantine import Quarantined, quarantine
from tests.aws import EmulatedAccount
from tests.clones import commit_all, git
from tests.pipelines.promotion.promotion_project import DATASET, MODEL, RELEASE, World
from tests.pipelines.serving.bundles import linear_bundle
from tests.signed import example_build, with_empty_registry


def proposal(bundle: str | None, replaces: str | None, environment: str = "staging") -> Change:
    """A change of one release file."""
    release = Release(model=MODEL, environment=environment, bundle=bundle, replaces=replaces)
    return Change(release, (f"models/{MODEL}/releases/{environment}.yaml",))


def facts_of(world: World, change: Change, **options: Any) -> Facts:
    return gather(world.project, world.repository, world.descriptors, change, **options)


def refused(facts: Facts) -> dict[str, str]:
    """Gates that do not pass, and how."""
    return {v.gate: v.outcome for v in judge(facts) if v.outcome != "pass"}


def go_live(world: World, digest: str) -> None:
    """Let staging have taken a bundle live."""
    world.bring(digest)
    ledger = Ledger(world.staging, MODEL)
    head = ledger.head()
    values = {"before": head.event.live if head else None, "to": digest, "live": digest, "result": "verified"}
    ledger.append(lambda _: Event.of(attempt=digest, action="promotion", **values))


def put(bucket: str, key: str, content: bytes) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=content)


# --- a promotion that is in order -------------------------------------------------------------------------------------


def test_every_fact_of_a_promotion_in_order_is_known_and_every_gate_passes(world: World) -> None:
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
    assert {f.name for f in facts.files} == {bundles.MANIFEST, *world.bundle(2)[0].files}
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
    assert refused(facts) == {}


def test_an_environment_that_is_not_up_is_an_error(world: World) -> None:
    change = proposal(world.register(1), None)
    for missing in ("dev", "staging"):
        up = {name: descriptor for name, descriptor in world.descriptors.items() if name != missing}
        with pytest.raises(MlopsError) as caught:
            gather(world.project, world.repository, up, change)
        assert (caught.value.what, caught.value.fix) == (f"{missing} is not up", f"mlops up --env {missing}")


def test_a_judgement_is_of_now_unless_it_is_said_to_be_of_another_time(world: World) -> None:
    change = proposal(None, None)
    then = datetime(2026, 3, 2, tzinfo=UTC)
    assert facts_of(world, change, now=then).now == then
    found = facts_of(world, change)
    assert timedelta() <= datetime.now(UTC) - found.now < timedelta(minutes=1)
    assert found.unknown["policy"] == "'' is not the digest of a bundle"


def test_a_model_that_does_not_exist_is_an_error(world: World) -> None:
    release = Release(model="churn", environment="staging", bundle=None, replaces=None)
    with pytest.raises(MlopsError, match="no model 'churn'"):
        facts_of(world, Change(release, ()))


# --- the bundle -------------------------------------------------------------------------------------------------------


def test_a_bundle_that_does_not_exist_leaves_no_gate_that_reads_it_passing(world: World) -> None:
    facts = facts_of(world, proposal("sha256:" + "0" * 64, None))
    assert facts.files == () and "files" not in facts.unknown
    passing = {v.gate for v in judge(facts) if v.outcome == "pass"}
    assert passing == {"scope", "freshness", "freeze", "quarantine"}
    assert GATES["digest"](facts).why == "the registry has no such bundle"


def test_a_release_of_no_bundle_is_refused(world: World) -> None:
    change = Change(world.project.release(MODEL, "staging"), (RELEASE,))
    assert GATES["digest"](facts_of(world, change)).figure == "no bundle"


def test_a_changed_a_missing_and_an_added_file_are_each_named(world: World) -> None:
    digest = world.ready(5)
    prefix = bundles.prefix_of(MODEL, digest)
    put(world.dev.registry_bucket, prefix + "card.md", b"another card")
    put(world.dev.registry_bucket, prefix + "more.txt", b"more")
    boto3.client("s3").delete_object(Bucket=world.dev.registry_bucket, Key=prefix + "golden.json")
    facts = facts_of(world, proposal(digest, None))
    wrong = {f.name: (f.expected is None, f.found is None) for f in facts.files if f.expected != f.found}
    assert wrong == {"card.md": (False, False), "more.txt": (True, False), "golden.json": (False, True)}
    assert refused(facts)["digest"] == "fail"
    assert refused(facts)["runtime"] == "inconclusive", "what is not what it says is not loaded"


def same_size(world: World, digest: str, bucket: str) -> None:
    """Change a file of a bundle to another of the same size."""
    put(bucket, bundles.prefix_of(MODEL, digest) + "card.md", b"# B card\n")


def test_of_a_bundle_of_which_a_file_was_changed_what_is_signed_is_known_and_nothing_is_loaded(world: World) -> None:
    digest = world.ready(80)
    same_size(world, digest, world.dev.registry_bucket)
    facts = facts_of(world, proposal(digest, None))
    assert [f.name for f in facts.files if f.expected != f.found] == ["card.md"]
    assert facts.origin is not None and facts.policy is not None
    for unknown in ("runtime", "evaluation", "request_schema"):
        assert getattr(facts, unknown) is None
        assert "card.md was changed" in facts.unknown[unknown]


def test_what_the_live_bundle_is_compared_by_is_known_though_another_of_its_files_was_changed(world: World) -> None:
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
def test_a_file_of_a_bundle_that_cannot_be_understood_is_named(
    world: World, file: str, known_as: str, live_as: str
) -> None:
    digest = world.register(83, files={file: b"{}"})
    go_live(world, digest)
    candidate = world.ready(86, files={file: b"{}"})
    facts = facts_of(world, proposal(candidate, digest))
    for name in (known_as, live_as):
        assert getattr(facts, name) is None and facts.unknown[name].startswith(f"{file}:1: ")


def test_a_manifest_that_cannot_be_understood_is_named(world: World) -> None:
    digest = digest_of_bytes(b"{}")
    put(world.dev.registry_bucket, bundles.prefix_of(MODEL, digest) + bundles.MANIFEST, b"{}")
    facts = facts_of(world, proposal(digest, None))
    assert facts.unknown["files"].startswith("bundle.json:1: ")


def test_bounds_or_a_contract_that_could_not_be_understood_when_they_were_committed_are_named(world: World) -> None:
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


def test_a_changed_manifest_is_named_and_what_it_names_is_not_believed(world: World) -> None:
    digest = world.ready(6)
    key = bundles.prefix_of(MODEL, digest) + bundles.MANIFEST
    put(world.dev.registry_bucket, key, world.bundle(7)[0].manifest())
    found = GATES["digest"](facts_of(world, proposal(digest, None)))
    assert (found.outcome, found.why) == ("fail", "bundle.json was changed")


def test_a_bundle_of_another_model_is_no_bundle_of_this_one(world: World) -> None:
    manifest, files = world.bundle(8, model="churn")
    for name, content in {**files, bundles.MANIFEST: manifest.manifest()}.items():
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
        "pipelines.promotion.gather.try_bundle", lambda *_: pytest.fail("a stranger's model was loaded")
    )
    facts = facts_of(world, proposal(unsigned(world, 9), None))
    assert (facts.signatures, "signatures" in facts.unknown) == ((), False)
    found = GATES["signature"](facts)
    assert (found.outcome, found.why) == ("fail", "there is no signed provenance and no signed evaluation")
    for gate in ("provenance", "thresholds", "champion", "fairness", "runtime", "soak"):
        assert refused(facts)[gate] == "inconclusive", gate


def test_a_missing_evaluation_is_named_though_the_provenance_is_there(world: World) -> None:
    digest = world.ready(10)
    key = evidence.prefix_of(MODEL, digest) + "evaluation.dsse.json"
    boto3.client("s3").delete_object(Bucket=world.dev.registry_bucket, Key=key)
    facts = facts_of(world, proposal(digest, None))
    assert GATES["signature"](facts).why == "there is no signed evaluation"


def test_a_missing_provenance_is_named_though_the_evaluation_is_there(world: World) -> None:
    digest = world.ready(76)
    key = evidence.prefix_of(MODEL, digest) + "provenance.dsse.json"
    boto3.client("s3").delete_object(Bucket=world.dev.registry_bucket, Key=key)
    facts = facts_of(world, proposal(digest, None))
    assert GATES["signature"](facts).why == "there is no signed provenance"
    assert [(s.kind, s.signer) for s in facts.signatures] == [("evaluation", "dev")]
    assert facts.policy is facts.origin is facts.runtime is None
    assert {"policy", "origin", "runtime"} <= set(facts.unknown)


def test_evidence_that_a_stranger_signed_is_refused(world: World) -> None:
    from tests.signed import make_key

    manifest, files = world.bundle(11)
    bundles.push(world.dev, manifest, files)
    arn, pem = make_key()
    stranger = world.dev.model_copy(update={"signing_key": arn, "trusted_keys": {"dev": pem}})
    evidence.attest(stranger, manifest, digest_of_bytes(b"gates"), example_build("dev"))
    facts = facts_of(world, proposal(manifest.digest, None))
    assert [s.signer for s in facts.signatures] == [None, None]
    found = GATES["signature"](facts)
    assert found.outcome == "fail" and "carries no valid signature by a trusted key" in found.why


def test_evidence_by_a_trusted_environment_that_does_not_train_is_refused(world: World) -> None:
    """Promoting from staging to a next environment, staging's own key is trusted there."""
    manifest, files = world.bundle(12)
    bundles.push(world.staging, manifest, files)
    gates = digest_of_value(world.project.model(MODEL).gates.model_dump(mode="json"))
    evidence.attest(world.staging, manifest, gates, example_build("staging", commit=world.repository.head()))
    up = {**world.descriptors, "prod": with_empty_registry(world.staging)}
    facts = gather(world.project, world.repository, up, proposal(manifest.digest, None, "prod"))
    assert GATES["signature"](facts).why == "staging signed the provenance; only dev may"
    assert GATES["provenance"](facts).why.startswith("it was built by staging/train-")


# --- git --------------------------------------------------------------------------------------------------------------


def test_a_bundle_made_from_a_commit_that_is_not_on_main_is_refused(world: World) -> None:
    git(world.root, "checkout", "--quiet", "-b", "feature")
    git(world.root, "commit", "--quiet", "--allow-empty", "--message", "not merged")
    digest = world.ready(70)
    facts = facts_of(world, world.release(digest, None))
    assert facts.origin is not None and facts.origin.commit_on_main is None
    found = GATES["provenance"](facts)
    assert (found.outcome, found.figure) == ("fail", "not on main")


def test_a_bundle_made_from_a_commit_that_nobody_has_is_refused(world: World) -> None:
    digest = world.ready(14, commit="e" * 40)
    facts = facts_of(world, proposal(digest, None))
    assert GATES["provenance"](facts).figure == "not on main"
    assert refused(facts)["thresholds"] == "inconclusive", "its bounds cannot be read"


def test_a_bundle_made_again_from_main_after_the_branch_is_good(world: World) -> None:
    digest = world.ready(15, commit="e" * 40)
    gates = digest_of_value(world.project.model(MODEL).gates.model_dump(mode="json"))
    build = example_build("dev", commit=world.repository.head(), run="run-2")
    evidence.attest(world.dev, world.bundle(15)[0], gates, build)
    facts = facts_of(world, proposal(digest, None))
    assert facts.origin is not None and facts.origin.commits == ("e" * 40, build.commit)
    assert refused(facts) == {}


def test_a_bundle_trained_from_a_changed_folder_is_refused(world: World) -> None:
    train = world.root / "models" / MODEL / "train.py"
    train.write_text(train.read_text() + "\n# changed, and not committed\n")
    digest = world.ready(71)
    git(world.root, "checkout", "--quiet", "--", ".")
    facts = facts_of(world, world.release(digest, None))
    assert refused(facts) == {"provenance": "fail"}
    assert "is not what the bundle was made from" in GATES["provenance"](facts).why


def test_a_folder_that_changes_after_the_commit_is_no_reason_to_refuse(world: World) -> None:
    digest = world.ready(1)
    train = world.root / "models" / MODEL / "train.py"
    train.write_text(train.read_text() + "\n# the next version\n")
    commit_all(world.root, "work goes on")
    assert refused(facts_of(world, world.release(digest, None))) == {}


def test_bounds_that_were_loosened_after_the_evaluation_do_not_count(world: World) -> None:
    """A bundle evaluated under other gates than those of the commit that it says it was made from."""
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


def test_bounds_that_are_loosened_later_on_main_do_not_count_either(world: World) -> None:
    digest = world.ready(1)
    path = world.project.model_file(MODEL)
    path.write_text(path.read_text().replace("maximum: 62.0", "maximum: 1000.0"))
    commit_all(world.root, "Loosen the bound")
    facts = facts_of(world, world.release(digest, None))
    assert facts.policy is not None and facts.policy.gates.thresholds[0].maximum == 62.0


def test_without_main_no_bundle_passes_for_one_that_is_on_it(world: World) -> None:
    digest = world.ready(1)
    change = world.release(digest, None)
    git(world.root, "update-ref", "-d", "refs/remotes/origin/main")
    facts = facts_of(world, change)
    assert refused(facts)["provenance"] == refused(facts)["thresholds"] == "inconclusive"


# --- what it is held against ------------------------------------------------------------------------------------------


def test_a_contract_that_takes_something_from_its_consumers_is_refused(world: World) -> None:
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


def test_contracts_that_cannot_be_compared_are_not_taken_for_equal(world: World) -> None:
    live = world.register(24, contract=digest_of_bytes(b"a contract that was never committed"))
    go_live(world, live)
    candidate = world.ready(25)
    facts = facts_of(world, proposal(candidate, live))
    assert refused(facts) == {"contract": "inconclusive"}
    assert "holds its contract" in facts.unknown["contract_breaks"]


def test_a_schema_that_callers_would_notice_is_refused(world: World) -> None:
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


def test_a_bundle_that_does_not_work_is_told_with_its_first_wrong_value(world: World) -> None:
    digest = world.ready(28, golden=7.0)
    facts = facts_of(world, proposal(digest, None))
    assert refused(facts) == {"runtime": "fail"}
    assert "expected 7, found 91." in GATES["runtime"](facts).why


def test_a_bundle_that_holds_no_evaluation_leaves_that_unknown_and_says_so(world: World) -> None:
    manifest, files = world.bundle(73)
    kept = {name: file for name, file in manifest.files.items() if name != "evaluation.json"}
    assert _read(files, "schema.json", RequestSchema).inputs
    with pytest.raises(MlopsError) as caught:
        _read({name: files[name] for name in kept}, "evaluation.json", Evaluation)
    assert caught.value.what == "the bundle holds no evaluation.json"
    with pytest.raises(MlopsError, match=r"^evaluation\.json:1: "):
        _read({"evaluation.json": b"{}"}, "evaluation.json", Evaluation)


@pytest.mark.parametrize("content", [b"not a model", b"", b"\x08\x09\x12"])
def test_a_model_that_does_not_load_is_told_and_stops_nothing(world: World, content: bytes) -> None:
    digest = world.ready(29 + len(content), files={"model.onnx": content})
    assert refused(facts_of(world, proposal(digest, None))) == {"runtime": "fail"}


def test_without_a_candidate_that_can_be_trusted_no_contract_is_compared(world: World) -> None:
    for given, says in (((), "the bundle cannot be read"), (("it was denied",), "it was denied")):
        with pytest.raises(MlopsError) as caught:
            read_contract_breaks(world.repository, world.staging, None, None, *given)
        assert caught.value.what == says


def test_a_contract_is_read_from_any_commit_that_the_bundle_was_made_from(world: World) -> None:
    """The first is of a branch that is gone, and the second of another contract."""
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


# --- the environment before -------------------------------------------------------------------------------------------


def test_a_bundle_that_was_never_verified_before_is_refused(world: World) -> None:
    facts = facts_of(world, proposal(world.register(1), None))
    assert refused(facts) == {"order": "fail", "soak": "fail"}
    nothing = {"verified_at": None, "live": False, "requests": 0, "errors": 0}
    assert facts.predecessor == Predecessor(environment="dev", **nothing)


@pytest.mark.parametrize("result", ["refused", "failed"])
def test_a_bundle_that_the_environment_before_did_not_take_was_not_verified_there(world: World, result: str) -> None:
    other, digest = world.register(1), world.register(2)
    world.verify_in_dev(other)
    event = Event.of(attempt="x", action="promotion", result=result, before=other, to=digest, live=other)
    Ledger(world.dev, MODEL).append(lambda _: event)
    world.log_requests(digest)
    assert refused(facts_of(world, proposal(digest, None))) == {"order": "fail", "soak": "fail"}


def test_requests_are_counted_from_the_moment_of_verification(world: World) -> None:
    digest = world.register(1)
    world.log_requests(digest)
    world.verify_in_dev(digest, at=datetime.now(UTC) + timedelta(seconds=1))
    facts = facts_of(world, proposal(digest, None), now=datetime.now(UTC) + timedelta(hours=1))
    assert facts.predecessor is not None and facts.predecessor.requests == 0
    assert refused(facts) == {"soak": "fail"}


def test_requests_that_ended_in_a_server_error_are_counted_as_errors(world: World) -> None:
    digest = world.register(1)
    world.verify_in_dev(digest)
    world.log_requests(digest, 25, status=500)
    facts = facts_of(world, proposal(digest, None))
    assert facts.predecessor is not None and facts.predecessor.errors == 25
    assert refused(facts) == {"soak": "fail"}


def test_a_bundle_that_the_environment_before_does_not_serve_any_more_is_refused(world: World) -> None:
    digest = world.ready(1)
    world.verify_in_dev(world.register(2))
    facts = facts_of(world, proposal(digest, None))
    assert refused(facts) == {"soak": "fail"}


# --- quarantine, freeze, what is live ---------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["dev", "staging"])
def test_a_bundle_quarantined_in_any_environment_goes_nowhere(world: World, where: str) -> None:
    digest = world.ready(1)
    entry = Quarantined(bundle=digest, reason="mae 61 is over 55", at=datetime.now(UTC))
    quarantine(world.descriptors[where], MODEL, entry)
    facts = facts_of(world, proposal(digest, None))
    assert refused(facts) == {"quarantine": "fail"}
    assert GATES["quarantine"](facts).why == f"it was taken out: mae 61 is over 55 (in {where})"


def test_a_freeze_in_the_environments_configuration_refuses(world: World) -> None:
    digest = world.ready(1)
    window = "    freezes:\n      - {start: 2020-01-01T00:00:00Z, end: 2100-01-01T00:00:00Z, reason: end of days}\n"
    path = world.project.stack_file("staging")
    path.write_text(path.read_text() + window)
    assert refused(facts_of(world, world.release(digest, None))) == {"freeze": "fail"}


def test_a_release_that_replaces_something_else_than_what_is_live_is_refused(world: World) -> None:
    live = world.register(1)
    go_live(world, live)
    digest = world.ready(2)
    assert refused(facts_of(world, proposal(digest, None))) == {"freshness": "fail"}


# --- fail closed ------------------------------------------------------------------------------------------------------


def test_a_registry_that_may_not_be_read_lets_nothing_pass_that_depends_on_it(
    world: World, account: EmulatedAccount
) -> None:
    live = world.register(1)
    go_live(world, live)
    change = proposal(world.ready(2), live)
    account.denied.add(world.dev.registry_bucket)
    facts = facts_of(world, change)
    account.denied.clear()
    found = {v.gate: v for v in judge(facts)}
    depending = set(GATES) - {"scope", "freshness", "freeze"}
    assert {gate for gate, v in found.items() if v.outcome != "pass"} == depending
    for gate in depending:
        assert found[gate].outcome == "inconclusive", found[gate]
        assert "was denied" in found[gate].why, found[gate]


def test_a_registry_of_the_target_that_may_not_be_read_is_not_taken_for_a_first_release(
    world: World, account: EmulatedAccount
) -> None:
    change = proposal(world.ready(1), None)
    account.denied.add(world.staging.registry_bucket)
    facts = facts_of(world, change)
    account.denied.clear()
    found = refused(facts)
    assert found == dict.fromkeys(["champion", "compatibility", "freshness", "quarantine", "contract"], "inconclusive")


def test_a_log_that_may_not_be_read_is_not_taken_for_a_quiet_soak(world: World, account: EmulatedAccount) -> None:
    change = proposal(world.ready(1), None)
    account.denied.add(world.dev.logs_bucket)
    facts = facts_of(world, change)
    account.denied.clear()
    assert refused(facts) == {"order": "inconclusive", "soak": "inconclusive"}


def test_a_broken_ledger_lets_nothing_pass_that_depends_on_it(world: World) -> None:
    change = proposal(world.ready(1), None)
    for descriptor in (world.dev, world.staging):
        put(descriptor.registry_bucket, f"ledger/{MODEL}/0000000002.dsse.json", b"{}")
    found = refused(facts_of(world, change))
    assert {"order", "soak", "champion", "compatibility", "freshness", "contract"} == set(found)


def test_a_quarantine_entry_that_cannot_be_understood_blocks_everything(world: World) -> None:
    change = proposal(world.ready(1), None)
    put(world.staging.registry_bucket, f"quarantine/{MODEL}/{'a' * 64}.json", b"{}")
    assert refused(facts_of(world, change)) == {"quarantine": "inconclusive"}


def test_a_live_bundle_that_was_tampered_with_is_no_champion(world: World) -> None:
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


# --- what a change proposes -------------------------------------------------------------------------------------------


def test_a_change_proposes_the_releases_that_it_leaves_behind(world: World) -> None:
    base = world.repository.head()
    digest = world.register(1)
    world.release(digest, None)
    (world.root / "README.md").write_text("more")
    commit_all(world.root, "and something else")
    (change,) = proposed(world.repository, base, "HEAD")
    assert (change.release.bundle, change.files) == (digest, ("README.md", RELEASE))
    assert proposed(world.repository, "HEAD", "HEAD") == []


def test_a_release_file_that_is_wrong_is_an_error_that_names_it(world: World) -> None:
    base = world.repository.head()
    (world.root / RELEASE).write_text("model: x\n")
    commit_all(world.root, "wrong")
    with pytest.raises(MlopsError, match=r"releases/staging\.yaml"):
        proposed(world.repository, base, "HEAD")


def test_a_release_file_that_is_taken_away_is_an_error(world: World) -> None:
    base = world.repository.head()
    (world.root / RELEASE).unlink()
    commit_all(world.root, "gone")
    with pytest.raises(MlopsError):
        proposed(world.repository, base, "HEAD")


def test_only_a_bad_signature_is_taken_for_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement that could not be read for another reason is not known, and not wrong."""
    digest = world.ready(1)
    change = proposal(digest, None)

    def unreadable(*_: Any) -> Any:
        raise MlopsError("s3:GetObject failed: connection reset")

    monkeypatch.setattr(evidence, "read_statement", unreadable)
    assert GATES["signature"](facts_of(world, change)).outcome == "inconclusive"
    monkeypatch.setattr(evidence, "read_statement", _bad)
    assert GATES["signature"](facts_of(world, change)).outcome == "fail"


def _bad(*_: Any) -> Any:
    raise signing.BadSignatureError("it is not an envelope")
