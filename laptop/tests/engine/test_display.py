from __future__ import annotations

import io

from infra.policies.resource_graph import UNKNOWN
from laptop.engine.display import SAME_BEFORE, Display, Overview, show_outputs, show_step, show_summary
from laptop.engine.resource_steps import PropertyChange, ResourceStep, StepKind, describe_changes, summarise
from laptop.engine.values import Properties
from laptop.tests.engine.conftest import Site

URN = "urn:pulumi:dev::shop::aws:s3/bucket:Bucket::lake"


def test_a_step_is_shown_with_its_sign_type_and_name() -> None:
    assert show_step(ResourceStep(StepKind.CREATE, URN)) == [" + aws:s3/bucket:Bucket  lake  create"]
    assert show_step(ResourceStep(StepKind.REPLACE, URN))[0].startswith("+- ")
    assert show_step(ResourceStep(StepKind.DELETE, URN))[0].startswith(" - ")


def test_an_update_shows_old_and_new_values_unknowns_and_forced_replacements() -> None:
    changes = (
        PropertyChange("tags.owner", "ann", "ben"),
        PropertyChange("arn", "x", UNKNOWN),
        PropertyChange("new", None, [1]),
        PropertyChange("old", True, None),
        PropertyChange("zone.name", "a", "b"),
    )
    assert show_step(ResourceStep(StepKind.REPLACE, URN, changes=changes, replaces=("zone",)))[1:] == [
        '     ~ tags.owner: "ann" => "ben"',
        '     ~ arn: "x" => [unknown]',
        "     + new: [1]",
        "     - old: true",
        '     ~ zone.name: "a" => "b"  (forces replacement)',
    ]


def test_a_recorded_step_shows_its_reason_and_a_failed_one_its_urn_and_error() -> None:
    assert show_step(ResourceStep(StepKind.CREATE, URN, recorded="moto has no such call")) == [
        " + aws:s3/bucket:Bucket  lake  recorded only",
        "     no effect on the laptop: moto has no such call",
    ]
    assert show_step(ResourceStep(StepKind.UPDATE, URN, error="no room\n  fix: make room")) == [
        " ~ aws:s3/bucket:Bucket  lake  failed",
        f"     {URN}",
        "     no room",
        "       fix: make room",
    ]


def test_long_values_are_cut() -> None:
    (_, line) = show_step(ResourceStep(StepKind.UPDATE, URN, changes=(PropertyChange("policy", None, "x" * 1000),)))
    assert len(line) < 200
    assert line.endswith("…")


def test_two_long_values_are_shown_from_their_first_difference() -> None:
    change = PropertyChange("env", "x" * 1000 + "sha256:1a" + "y" * 1000, "x" * 1000 + "sha256:2b")
    (_, line) = show_step(ResourceStep(StepKind.UPDATE, URN, changes=(change,)))
    same = "x" * (SAME_BEFORE - len("sha256:"))
    assert line.startswith(f"     ~ env: …{same}sha256:1ayyy") and line.endswith(f'… => …{same}sha256:2b"')
    (_, line) = show_step(
        ResourceStep(StepKind.UPDATE, URN, changes=(PropertyChange("env", "a" + "x" * 1000, "b" + "x" * 1000),))
    )
    assert '~ env: "axx' in line and '=> "bxx' in line


def test_the_summary_counts_each_outcome() -> None:
    steps = (
        [ResourceStep(StepKind.CREATE, URN)] * 2
        + [ResourceStep(StepKind.SAME, URN)] * 3
        + [ResourceStep(StepKind.CREATE, URN, recorded="x")]
    )
    steps += [ResourceStep(StepKind.UPDATE, URN, error="x")]
    counts = summarise(steps)
    assert show_summary(counts, 3.04, planned=False) == (
        "Resources: + 2 created, + 1 recorded only, 3 unchanged, 1 failed; Duration 3.0s"
    )
    assert show_summary({"create": 1}, 0.1, planned=True) == "Resources: + 1 to create; Duration 0.1s"
    assert show_summary({}, 0, planned=False) == "Resources: none; Duration 0.0s"


def test_changes_are_shown_at_their_deepest_path_and_secrets_are_masked() -> None:
    old = Properties(
        {"a": {"x": 1, "y": 1}, "pin": "1", "box": {"in": "p"}, "same": 1}, frozenset([("pin",), ("box", "in")])
    )
    new = Properties({"a": {"x": 1, "y": 2}, "pin": "2", "box": {"in": "q"}, "same": 1}, old.secrets)
    assert describe_changes(old, new, ["a", "pin", "box", "same"]) == (
        PropertyChange("a.y", 1, 2),
        PropertyChange("box.in", "[secret]", "[secret]"),
        PropertyChange("pin", "[secret]", "[secret]"),
        PropertyChange("same", 1, 1),
    )  # fmt: skip


def test_properties_without_effect_are_shown_with_their_reason_and_counted(site: Site) -> None:
    stream = io.StringIO()
    program = 'Thing("a", scent="rose")\nPaper("p", scent="old")'
    site.write(program)
    planned = site.deployment(progress=Display(stream)).preview()
    assert planned.counts | {"recorded": 1, "partly": 1} == planned.counts
    result = site.deployment(progress=Display(stream)).up()
    assert result.counts == planned.counts
    said = "     recorded only, no effect on the laptop: scent: the cloud cannot smell"
    assert stream.getvalue().splitlines().count(said) == 2
    assert "1 with properties recorded only" in show_summary(result.counts, 1, planned=False)
    assert "partly" not in site.deployment().up().counts


def test_a_run_prints_plain_lines_without_a_terminal(site: Site) -> None:
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
    assert " + fake:index:Paper  p  recorded only" in lines
    assert '     ~ tags.[bold]: ":smile: [red]x" => ":smile: [red]y"' in [
        line.replace('tags["[bold]"]', "tags.[bold]") for line in lines
    ]
    assert " - fake:index:Paper  p  delete" in lines
    assert "\x1b" not in stream.getvalue()
    assert show_outputs({"id": 3, "url": "x"}) == ["    id   3", '    url  "x"']


def test_a_reason_is_printed_in_full_only_once() -> None:
    stream = io.StringIO()
    display = Display(stream)
    for name in ("lake", "logs"):
        display.ended(ResourceStep(StepKind.CREATE, f"{URN}-{name}", without=(("policy", "a condition never bites"),)))
    assert stream.getvalue().splitlines()[1::2] == [
        "     recorded only, no effect on the laptop: policy: a condition never bites",
        "     recorded only, no effect on the laptop: policy: as above",
    ]


def test_why_resources_are_only_recorded_is_said_once() -> None:
    stream = io.StringIO()
    display = Display(stream)
    for name in ("a", "b"):
        display.ended(ResourceStep(StepKind.CREATE, f"{URN}-{name}", recorded="moto has none"))
    lines = stream.getvalue().splitlines()
    assert [line.endswith("recorded only") for line in lines] == [True, False, True]
    assert lines[1] == "     no effect on the laptop: moto has none"


def test_an_overview_sums_up_what_is_created_per_component_and_shows_the_rest() -> None:
    stream = io.StringIO()
    overview = Overview(stream)
    storage, maintenance = (
        f"urn:pulumi:dev::shop::mlops:{name}" for name in ("storage:Storage", "data:TableMaintenance")
    )
    created = [
        f"{storage}::storage",
        *(f"{storage}$aws:s3/bucket:Bucket::b{number}" for number in range(3)),
        *(f"{maintenance}::{name}" for name in ("orders", "customers")),
        *(f"{maintenance}$mlops:identity:Workload$aws:iam/role:Role::{name}" for name in ("orders", "customers")),
    ]
    for urn in created:
        overview.began(ResourceStep(StepKind.CREATE, urn))
        overview.ended(ResourceStep(StepKind.CREATE, urn))
    bucket = f"{storage}$aws:s3/bucket:Bucket::old"
    overview.ended(ResourceStep(StepKind.UPDATE, bucket, changes=(PropertyChange("tags.owner", "ann", "ben"),)))
    overview.ended(ResourceStep(StepKind.DELETE, bucket))
    overview.ended(ResourceStep(StepKind.CREATE, f"{storage}$aws:kms/key:Key::k", error="denied"))
    overview.summary({"create": 8, "failed": 1}, 1.0)
    assert stream.getvalue().splitlines() == [
        " ~ aws:s3/bucket:Bucket  old  update",
        '     ~ tags.owner: "ann" => "ben"',
        " - aws:s3/bucket:Bucket  old  delete",
        " + aws:kms/key:Key  k  failed",
        f"     {storage}$aws:kms/key:Key::k",
        "     denied",
        " + storage            3 created",
        " + table maintenance  2 created for customers, orders",
        "Resources: + 8 created, 1 failed; Duration 1.0s",
    ]
