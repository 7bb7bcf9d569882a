from __future__ import annotations

from typing import Any

import pytest

from laptop.engine.deployment import DeploymentError
from laptop.engine.refreshing import reconcile
from laptop.engine.resources import ResourceState
from laptop.engine.values import Properties
from laptop.tests.engine.conftest import Site, kinds

PROGRAM = (
    'a = Thing("a", size=1, pin=Output.secret("hunter2hunter2"))\nThing("b", target=a.arn)\nPaper("p")\nGroup("g")'
)


def drift(site: Site, logical: str, **values: object) -> None:
    with site.cloud.open() as things:
        for key in [key for key, thing in things.items() if thing["name"].startswith(f"{logical}-")]:
            if values:
                things[key].update(values)
            else:
                del things[key]


def test_a_refresh_without_drift_changes_nothing(site: Site) -> None:
    site.up(PROGRAM)
    before = (site.home / "state" / "dev.json").read_bytes()
    result = site.deployment().refresh()
    assert result.counts == {"same": 2}
    assert (site.home / "state" / "dev.json").read_bytes() == before


def test_a_refresh_finds_drift_and_the_next_up_corrects_it(site: Site) -> None:
    site.up(PROGRAM)
    drift(site, "a", size=9, pin="drifted-secret")
    assert site.up().changes == ()
    result = site.deployment().refresh()
    (step,) = result.changes
    assert (step.name, step.kind.value) == ("a", "drifted")
    assert [(c.path, c.old, c.new) for c in step.changes] == [("pin", "[secret]", "[secret]"), ("size", 1, 9)]
    assert "drifted-secret" not in (site.home / "state" / "dev.json").read_text()
    assert kinds(site.up())["a"] == "update"
    thing = next(thing for thing in site.cloud.things().values() if thing["name"].startswith("a-"))
    assert (thing["size"], thing["pin"]) == (1, "hunter2hunter2")


def test_an_up_can_refresh_first_and_corrects_drift_at_once(site: Site) -> None:
    site.up(PROGRAM)
    drift(site, "a", size=9)
    drift(site, "b")
    changed = kinds(site.deployment().up(refresh=True))
    assert {name: kind for name, kind in changed.items() if kind != "same"} == {"a": "update", "b": "create"}
    assert site.deployment().drift() == ()


def test_finding_drift_does_not_change_the_state(site: Site) -> None:
    site.up(PROGRAM)
    before = (site.home / "state" / "dev.json").read_bytes()
    assert site.deployment().drift() == ()
    drift(site, "a", size=9)
    drift(site, "b")
    for _ in range(2):
        found = [(step.name, step.kind.value) for step in site.deployment().drift()]
        assert sorted(found) == [("a", "drifted"), ("a", "update"), ("b", "create"), ("b", "gone")]
    assert (site.home / "state" / "dev.json").read_bytes() == before


def test_a_refresh_forgets_a_missing_resource_and_the_next_up_creates_it(site: Site) -> None:
    site.up(PROGRAM)
    drift(site, "b")
    assert kinds(site.deployment().refresh()) == {"a": "same", "b": "gone"}
    assert kinds(site.up())["b"] == "create"
    assert site.names() == ["a", "b"]


def test_an_unreadable_resource_is_a_failure_and_stays_in_the_state(site: Site) -> None:
    site.up('Thing("a", unreadable=True)\nThing("b")')
    drift(site, "b")
    with pytest.raises(DeploymentError, match=r"Thing::a\n  the cloud does not answer"):
        site.deployment().refresh()
    assert sorted(urn.rpartition("::")[2] for urn in site.state().resources) == ["a", "shop-dev"]


@pytest.mark.parametrize(
    ("wanted", "before", "live", "found"),
    [
        # as the last step left it, whatever its form
        ({"tags": {"a": "1"}}, {"tags": {"a": "1", "id": 7}}, {"tags": {"a": "1", "id": 7}}, {"tags": {"a": "1"}}),
        # an input changed, disappeared or got a new neighbour
        ({"tags": {"a": "1"}}, {"tags": {"a": "1"}}, {"tags": {"a": "2"}}, {"tags": {"a": "2"}}),
        ({"tags": {"a": "1"}}, {"tags": {"a": "1"}}, {"tags": {}}, {"tags": {}}),
        ({"tags": {"a": "1"}}, {"tags": {"a": "1"}}, {"tags": {"a": "1", "b": "2"}}, {"tags": {"a": "1", "b": "2"}}),
        # computed values are not inputs
        ({"meta": {"name": "x"}}, {"meta": {"name": "x", "version": 1}}, {"meta": {"name": "x", "version": 2}}, None),
        ({"size": 1}, {"size": 1, "used": 3}, {"size": 1, "used": 4}, None),
        ({"force": True, "size": 1}, {"size": 1}, {"size": 1}, None),
        # element by element if the length is the same, else as a whole
        (
            {"ports": [{"port": 80}, {"port": 81}]},
            {"ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]},
            {"ports": [{"port": 80, "protocol": "TCP"}, {"port": 82, "protocol": "TCP"}]},
            {"ports": [{"port": 80}, {"port": 82}]},
        ),
        ({"ports": [80]}, {"ports": [80]}, {"ports": [80, 81]}, {"ports": [80, 81]}),
    ],
)
def test_only_inputs_can_drift(
    wanted: dict[str, Any], before: dict[str, Any], live: dict[str, Any], found: dict[str, Any] | None
) -> None:
    known = ResourceState("urn:pulumi:dev::p::a:b:C::x", inputs=Properties(wanted), outputs=Properties(before))
    refreshed = reconcile(known, live)
    assert refreshed.inputs.values == (wanted if found is None else found)
    assert refreshed.outputs.values == live


def test_destroy_deletes_everything_in_order_and_is_idempotent(site: Site) -> None:
    site.up(PROGRAM)
    site.provider.calls.clear()
    result = site.deployment().destroy()
    assert site.verbs() == [("delete", "b"), ("delete", "a")]
    assert site.cloud.things() == {}
    assert site.state().resources == {}
    assert result.outputs == {}
    assert site.deployment().destroy().steps == ()
    assert len(site.up().changes) == 5


def test_a_refresh_drops_dependencies_on_resources_that_are_gone(site: Site) -> None:
    site.up('a = Thing("a")\nThing("b", uses=a.arn, opts=Opts(deleted_with=a))')
    drift(site, "a")
    site.deployment().refresh()
    (known,) = (known for known in site.state().resources.values() if known.name == "b")
    assert (known.dependencies, known.property_dependencies, known.deleted_with) == ((), (), "")
