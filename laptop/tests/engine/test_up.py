from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest

from infra.policies.resource_graph import UNKNOWN
from laptop.engine.deployment import DeploymentError, stack_outputs
from laptop.tests.engine.conftest import Site, kinds

TWO = """
a = Thing("a", tags={"owner": "ann"})
b = Thing("b", target=a.arn)
pulumi.export("arn", b.arn)
"""


def test_an_up_creates_the_resources_and_exports_the_outputs(site: Site) -> None:
    result = site.up(TWO)
    assert kinds(result) == {"shop-dev": "create", "a": "create", "b": "create"}
    things = {thing["name"].split("-")[0]: thing for thing in site.cloud.things().values()}
    assert things["b"]["target"] == things["a"]["arn"]
    assert result.outputs == {"arn": things["b"]["arn"]} == stack_outputs(site.home, "dev")


def test_an_unchanged_up_calls_nothing_and_writes_nothing(site: Site) -> None:
    site.up(TWO)
    file = site.home / "state" / "dev.json"
    before = file.stat()
    result = site.up()
    assert result.changes == ()
    assert result.counts == {"same": 3}
    assert result.outputs == stack_outputs(site.home, "dev")
    assert site.verbs() == []
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_changed_property_is_updated_in_place_and_reported(site: Site) -> None:
    site.up(TWO)
    ids = set(site.cloud.things())
    result = site.up(TWO.replace("ann", "ben"))
    assert site.verbs() == [("update", "a")]
    (step,) = result.changes
    assert [(c.path, c.old, c.new) for c in step.changes] == [("tags.owner", "ann", "ben")]
    assert set(site.cloud.things()) == ids
    assert {"owner": "ben"} in [thing.get("tags") for thing in site.cloud.things().values()]


def test_a_removed_resource_is_deleted_after_its_dependents(site: Site) -> None:
    site.up('a = Thing("a")\nb = Thing("b", target=a.arn)\nc = Thing("c", target=b.arn)\nThing("d")')
    result = site.up('Thing("d")')
    assert site.verbs() == [("delete", "c"), ("delete", "b"), ("delete", "a")]
    assert result.counts == {"delete": 3, "same": 2}
    assert site.names() == ["d"]


def test_a_replacement_creates_the_new_resource_updates_its_users_and_deletes_the_old_one_last(site: Site) -> None:
    program = 'a = Thing("a", zone="{zone}")\nThing("b", tags={{"uses": a.arn}})'
    site.up(program.format(zone="x"))
    (old,) = (key for key in site.cloud.things() if key.startswith("id-a"))
    result = site.up(program.format(zone="y"))
    assert site.verbs() == [("create", "a"), ("update", "b"), ("delete", "a")]
    assert kinds(result)["b"] == "update"
    assert [step.replaces for step in result.steps if step.kind.value == "replace"] == [("zone",)]
    assert old not in site.cloud.things()
    assert site.names() == ["a", "b"]
    assert site.state().doomed == {}


def test_a_replacement_extends_to_dependents_whose_properties_force_it(site: Site) -> None:
    program = 'a = Thing("a", zone="{zone}")\nb = Thing("b", target=a.arn)'
    site.up(program.format(zone="x"))
    site.up(program.format(zone="y"))
    assert site.verbs() == [("create", "a"), ("create", "b"), ("delete", "b"), ("delete", "a")]
    assert site.names() == ["a", "b"]


def test_if_two_cannot_coexist_the_old_one_and_its_dependents_are_deleted_first(site: Site) -> None:
    program = """
        a = Named("a", name="one", zone="{zone}")
        b = Thing("b", target=a.arn)
        c = Thing("c", target=b.arn)
        Thing("waits", opts=Opts(depends_on=[a]))
        Thing("uses", tags={{"uses": a.arn}})
    """
    site.up(program.format(zone="x"))
    result = site.up(program.format(zone="y"))
    verbs = site.verbs()
    assert verbs[:4] == [("delete", "c"), ("delete", "b"), ("delete", "a"), ("create", "a")]
    assert verbs[4:6] == [("create", "b"), ("create", "c")] or set(verbs[4:]) == {("create", "b"), ("create", "c")}
    assert {step.name for step in result.steps if step.kind.value == "replace"} == {"a", "b", "c"}
    assert {step.name for step in result.steps if step.kind.value == "same"} == {"shop-dev", "waits", "uses"}
    assert site.names() == ["b", "c", "one", "uses", "waits"]


def test_a_preview_reports_the_steps_of_the_up_and_changes_nothing(site: Site) -> None:
    program = 'a = Thing("a", zone="{zone}")\nb = Thing("b", target=a.arn)\nThing("{last}")'
    planned = site.preview(program.format(zone="x", last="c"))
    assert not site.cloud.things()
    assert not (site.home / "state").exists()
    assert planned.counts == {"create": 4}
    site.up()
    for change in ({"zone": "x", "last": "d"}, {"zone": "y", "last": "d"}):
        before = (site.home / "state" / "dev.json").read_bytes(), site.cloud.things()
        planned = site.preview(program.format(**change))
        assert site.verbs() == []
        assert ((site.home / "state" / "dev.json").read_bytes(), site.cloud.things()) == before
        done = site.up()
        steps = [sorted((step.kind.value, step.name) for step in result.changes) for result in (planned, done)]
        assert steps[0] == steps[1] != []


def test_a_preview_gives_the_program_known_values_and_leaves_the_rest_unknown(site: Site) -> None:
    program = """
        a = Thing("a", size={size})
        pulumi.export("size", a.size)
        pulumi.export("arn", a.arn)
        pulumi.export("id", a.id)
        a.arn.apply(lambda arn: print("ran with", arn))
    """
    assert site.preview(program.format(size=3)).outputs == {"size": 3, "arn": UNKNOWN, "id": UNKNOWN}
    up = site.up().outputs
    planned = site.preview(program.format(size=4)).outputs
    assert planned == {**up, "size": 4}


def test_an_apply_does_not_run_on_an_unknown_value(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.preview('Thing("a").arn.apply(lambda arn: print("ran with", arn))')
    assert "ran with" not in capsys.readouterr().out
    site.up()
    assert "ran with arn:id-a" in capsys.readouterr().out


def _wait_for_all(together: threading.Barrier) -> Callable[[str, str], None]:
    """Return a hook that starts no access before all of them are about to start."""

    def hook(moment: str, what: str) -> None:
        if moment == "before":
            together.wait(10)

    return hook


def test_independent_resources_are_created_in_parallel(site: Site) -> None:
    together = threading.Barrier(4)
    site.provider._hook = _wait_for_all(together)
    site.up("for n in range(4): Thing(f'a{n}')")
    assert len(site.cloud.things()) == 4


def test_independent_resources_are_deleted_in_parallel(site: Site) -> None:
    site.up("for n in range(4): Thing(f'a{n}')")
    together = threading.Barrier(4)
    site.provider._hook = _wait_for_all(together)
    site.deployment().destroy()
    assert not site.cloud.things()


def test_a_recorded_resource_is_reported_and_kept_without_further_calls(site: Site) -> None:
    result = site.up('Paper("p", size=1)')
    assert result.counts == {"create": 1, "recorded": 1}
    assert next(step for step in result.steps if step.name == "p").recorded == "the cloud has no paper"
    assert site.up().counts == {"same": 2}
    assert site.up('Paper("p", size=2)').counts == {"same": 1, "recorded": 1}
    site.deployment().refresh()
    site.up("")
    assert ("delete", "p") not in site.verbs()
    assert "Paper" not in json.dumps(list(site.state().resources))


def test_components_explicit_providers_and_their_children_are_kept_in_order(site: Site) -> None:
    program = """
        class Fake(pulumi.ProviderResource):
            def __init__(self, name, region):
                super().__init__("fake", name, {"region": region})

        class Store(ComponentResource):
            def __init__(self, name):
                super().__init__("my:g:Store", name)
                self.thing = Thing(f"{name}-thing", opts=Opts(parent=self, provider=there))
                self.register_outputs({"arn": self.thing.arn})

        there = Fake("there", "r1")
        store = Store("s")
        Thing("after", tags={"needs": store.thing.arn}, opts=Opts(depends_on=[store]))
    """
    site.up(program)
    resources = site.state().resources
    child = next(known for urn, known in resources.items() if urn.endswith("s-thing"))
    assert child.parent.endswith("my:g:Store::s")
    assert "my:g:Store$fake:index:Thing" in child.urn
    assert child.provider.startswith("urn:pulumi:dev::shop::pulumi:providers:fake::there::")
    store = next(known for urn, known in resources.items() if urn.endswith("Store::s"))
    assert store.outputs.values == {"arn": child.outputs.values["arn"]}
    after = next(known for urn, known in resources.items() if urn.endswith("::after"))
    assert after.dependencies == (child.urn,)
    assert site.up().changes == ()
    assert kinds(site.up(program.replace("r1", "r2")))["there"] == "update"
    site.up("")
    assert site.verbs() == [("delete", "after"), ("delete", "s-thing")]


def test_functions_are_called_with_their_arguments(site: Site) -> None:
    program = """
        from pulumi.runtime import invoke
        pulumi.export("said", invoke("fake:index:echo", {"say": "hello"}).value["said"])
    """
    assert site.up(program).outputs == {"said": "hello"}


def test_two_resources_with_one_name_are_refused_before_any_step(site: Site) -> None:
    with pytest.raises(DeploymentError, match=r"Thing::a\n  duplicate resource: (?s:.*)named `a`"):
        site.up('Thing("a")\nThing("a")')
    assert not site.cloud.things()


def test_a_type_that_no_provider_serves_is_refused(site: Site) -> None:
    with pytest.raises(DeploymentError, match=r"no provider for `gcp:a:B`(?s:.*)serves \(fake\)"):
        site.up('CustomResource("gcp:a:B", "x", {})')


def test_stack_outputs_of_a_stack_that_was_never_applied_are_empty(site: Site) -> None:
    assert stack_outputs(site.home, "dev") == {}
