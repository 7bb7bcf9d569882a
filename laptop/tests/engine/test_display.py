from __future__ import annotations

import io

from laptop.engine.display import SAME_BEFORE, Display, Overview, show_outputs, show_step, show_summary
from laptop.engine.steps import Change, Kind, Step, describe_changes, summarise
from laptop.engine.values import UNKNOWN, Properties
from laptop.tests.engine.conftest import Site

URN = "urn:pulumi:dev::shop::aws:s3/bucket:Bucket::lake"


def test_a_step_is_shown_with_its_sign_type_and_name() -> None:
    assert show_step(Step(Kind.CREATE, URN)) == [" + aws:s3/bucket:Bucket  lake  create"]
    assert show_step(Step(Kind.REPLACE, URN))[0].startswith("+- ")
    assert show_step(Step(Kind.DELETE, URN))[0].startswith(" - ")


def test_an_update_shows_old_and_new_what_is_unknown_and_what_forces_a_replacement() -> None:
    changes = (
        Change("tags.owner", "ann", "ben"),
        Change("arn", "x", UNKNOWN),
        Change("new", None, [1]),
        Change("old", True, None),
        Change("zone.name", "a", "b"),
    )
    assert show_step(Step(Kind.REPLACE, URN, changes=changes, replaces=("zone",)))[1:] == [
        '     ~ tags.owner: "ann" => "ben"',
        '     ~ arn: "x" => [unknown]',
        "     + new: [1]",
        "     - old: true",
        '     ~ zone.name: "a" => "b"  (forces replacement)',
    ]


def test_a_recorded_step_says_why_and_a_failed_one_its_urn_and_reason() -> None:
    assert show_step(Step(Kind.CREATE, URN, recorded="moto has no such call")) == [
        " + aws:s3/bucket:Bucket  lake  recorded",
        "     not at the local target: moto has no such call",
    ]
    assert show_step(Step(Kind.UPDATE, URN, error="no room\n  fix: make room")) == [
        " ~ aws:s3/bucket:Bucket  lake  failed",
        f"     {URN}",
        "     no room",
        "       fix: make room",
    ]


def test_long_values_are_cut() -> None:
    (_, line) = show_step(Step(Kind.UPDATE, URN, changes=(Change("policy", None, "x" * 1000),)))
    assert len(line) < 200
    assert line.endswith("…")


def test_of_two_long_values_the_part_is_shown_where_they_begin_to_differ() -> None:
    change = Change("env", "x" * 1000 + "sha256:1a" + "y" * 1000, "x" * 1000 + "sha256:2b")
    (_, line) = show_step(Step(Kind.UPDATE, URN, changes=(change,)))
    same = "x" * (SAME_BEFORE - len("sha256:"))
    assert line.startswith(f"     ~ env: …{same}sha256:1ayyy") and line.endswith(f'… => …{same}sha256:2b"')
    (_, line) = show_step(Step(Kind.UPDATE, URN, changes=(Change("env", "a" + "x" * 1000, "b" + "x" * 1000),)))
    assert '~ env: "axx' in line and '=> "bxx' in line


def test_the_summary_counts_each_outcome() -> None:
    steps = [Step(Kind.CREATE, URN)] * 2 + [Step(Kind.SAME, URN)] * 3 + [Step(Kind.CREATE, URN, recorded="x")]
    steps += [Step(Kind.UPDATE, URN, error="x")]
    counts = summarise(steps)
    assert show_summary(counts, 3.04, planned=False) == (
        "Resources: + 2 created, + 1 recorded only, 3 unchanged, 1 failed; Duration 3.0s"
    )
    assert show_summary({"create": 1}, 0.1, planned=True) == "Resources: + 1 to create; Duration 0.1s"
    assert show_summary({}, 0, planned=False) == "Resources: none; Duration 0.0s"


def test_changes_are_shown_as_deep_as_they_go_and_those_of_secrets_are_masked() -> None:
    old = Properties(
        {"a": {"x": 1, "y": 1}, "pin": "1", "box": {"in": "p"}, "same": 1}, frozenset([("pin",), ("box", "in")])
    )
    new = Properties({"a": {"x": 1, "y": 2}, "pin": "2", "box": {"in": "q"}, "same": 1}, old.secrets)
    assert describe_changes(old, new, ["a", "pin", "box", "same"]) == (
        Change("a.y", 1, 2),
        Change("box.in", "[secret]", "[secret]"),
        Change("pin", "[secret]", "[secret]"),
        Change("same", 1, 1),
    )  # fmt: skip


def test_properties_without_effect_are_shown_with_the_reason_and_counted(site: Site) -> None:
    stream = io.StringIO()
    program = 'Thing("a", scent="rose")\nPaper("p", scent="old")'
    site.write(program)
    planned = site.deployment(progress=Display(stream)).preview()
    assert planned.counts | {"recorded": 1, "partly": 1} == planned.counts
    result = site.deployment(progress=Display(stream)).up()
    assert result.counts == planned.counts
    said = "     recorded, not at the local target: scent: the cloud cannot smell"
    assert stream.getvalue().splitlines().count(said) == 2
    assert "1 of these with properties recorded only" in show_summary(result.counts, 1, planned=False)
    assert "partly" not in site.deployment().up().counts  # nothing was done to it, so nothing is said again


def test_a_run_prints_plain_lines_where_there_is_no_terminal(site: Site) -> None:
    stream = io.StringIO()
    display = Display(stream)
    site.write('Thing("a", tags={"[bold]": ":smile: [red]x"})\nPaper("p")')
    result = site.deployment(progress=display).up()
    display.outputs({"url": "http://x", "id": 3})
    display.summary(result.counts, result.duration)
    site.deployment(progress=display).up()
    site.up('Thing("a", tags={"[bold]": ":smile: [red]y"})', progress=display)
    lines = stream.getvalue().splitlines()
    assert " + fake:index:Thing  a  create" in lines
    assert " + fake:index:Paper  p  recorded" in lines
    assert '     ~ tags.[bold]: ":smile: [red]x" => ":smile: [red]y"' in [
        line.replace('tags["[bold]"]', "tags.[bold]") for line in lines
    ]
    assert " - fake:index:Paper  p  delete" in lines
    assert "\x1b" not in stream.getvalue()
    assert show_outputs({"id": 3, "url": "x"}) == ["    id   3", '    url  "x"']


def test_a_reason_is_given_in_full_once_and_referred_to_after_that() -> None:
    stream = io.StringIO()
    display = Display(stream)
    for name in ("lake", "logs"):
        display.ended(Step(Kind.CREATE, f"{URN}-{name}", without=(("policy", "a condition never bites"),)))
    assert stream.getvalue().splitlines()[1::2] == [
        "     recorded, not at the local target: policy: a condition never bites",
        "     recorded, not at the local target: policy: as above",
    ]


def test_an_overview_counts_the_resources_of_each_component_and_shows_faults() -> None:
    stream = io.StringIO()
    overview = Overview(stream)
    for number in range(3):
        overview.ended(
            Step(Kind.CREATE, f"urn:pulumi:dev::shop::mlops:storage:Storage$aws:s3/bucket:Bucket::b{number}")
        )
    overview.ended(Step(Kind.CREATE, "urn:pulumi:dev::shop::mlops:storage:Storage::storage"))
    overview.ended(Step(Kind.CREATE, "urn:pulumi:dev::shop::mlops:registry:Registry$aws:kms/key:Key::k", error="no"))
    overview.summary({"create": 4, "failed": 1}, 1.0)
    failed, _, _, counts, total = stream.getvalue().splitlines()
    assert failed == " + aws:kms/key:Key  k  failed"
    assert (counts, total.startswith("Resources: + 4 created, 1 failed")) == ("   storage 3, registry 1", True)
