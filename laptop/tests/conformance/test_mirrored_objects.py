"""Mirror of an API server's objects: the laptop's own API serves here."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laptop.cluster.kinds import CONFIG_MAP, INGRESS, SERVICE
from laptop.cluster.objects import ObjectEvent
from laptop.conformance.mirrored_objects import MirroredObjects, merge_patch
from laptop.tests.cluster.running_cluster import RunningCluster, new_namespace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    running = RunningCluster(tmp_path_factory.mktemp("cluster"), time_scale=0.1)
    new_namespace(running, "space")
    yield running
    running.close()


Check = Callable[[MirroredObjects], Awaitable[None]]


def mirror(cluster: RunningCluster, check: Check) -> None:
    """Run a check with a mirror of the cluster."""

    async def run() -> None:
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(cluster.authority)))
        headers = {"Authorization": f"Bearer {cluster.token}"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            objects = MirroredObjects(cluster.endpoint, session, "laptop")
            await objects.start()
            try:
                await asyncio.wait_for(check(objects), 20)
            finally:
                await objects.close()

    asyncio.run(run())


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.02)


def ingress(name: str) -> dict[str, Any]:
    backend = {"service": {"name": "a", "port": {"number": 80}}}
    rules = [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]
    return {"metadata": {"name": name}, "spec": {"rules": rules}}


def test_it_has_what_was_there_and_follows_what_changes(cluster: RunningCluster) -> None:
    cluster.create(CONFIG_MAP, "space", {"metadata": {"name": "before"}, "data": {"a": "1"}})

    async def check(objects: MirroredObjects) -> None:
        seen: list[ObjectEvent] = []
        objects.listen(seen.append)
        assert objects.get(CONFIG_MAP, "space", "before")["data"] == {"a": "1"}
        await asyncio.to_thread(cluster.merge, CONFIG_MAP, "space", "before", {"data": {"a": "2"}})
        await until(lambda: objects.get(CONFIG_MAP, "space", "before")["data"] == {"a": "2"})
        await asyncio.to_thread(cluster.delete, CONFIG_MAP, "space", "before")
        await until(lambda: objects.find(CONFIG_MAP, "space", "before") is None)
        assert [event.type for event in seen if event.kind is CONFIG_MAP] == ["MODIFIED", "DELETED"]

    mirror(cluster, check)


def test_a_change_is_seen_at_once_and_reaches_the_server(cluster: RunningCluster) -> None:
    cluster.create(INGRESS, "space", ingress("web"))
    status = {"loadBalancer": {"ingress": [{"ip": "127.0.0.9"}]}}

    async def check(objects: MirroredObjects) -> None:
        found = objects.get(INGRESS, "space", "web")
        objects.modify(INGRESS, found, lambda obj: obj.update(status=status))
        assert objects.get(INGRESS, "space", "web")["status"] == status
        await objects.settled()
        assert cluster.get(INGRESS, "space", "web")["status"] == status

    mirror(cluster, check)


def test_two_writers_of_one_object_lose_nothing(cluster: RunningCluster) -> None:
    """The server's version changes between the read and each write, so the write is made again."""
    cluster.create(SERVICE, "space", {"metadata": {"name": "both"}, "spec": {"ports": [{"port": 80}]}})

    def label(name: str) -> Callable[[dict[str, Any]], None]:
        return lambda obj: obj["metadata"].setdefault("labels", {}).update({name: "yes"})

    async def check(objects: MirroredObjects) -> None:
        for number in range(20):
            objects.modify(SERVICE, objects.get(SERVICE, "space", "both"), label(f"ours-{number}"))
            patch = {"metadata": {"labels": {f"theirs-{number}": "yes"}}}
            await asyncio.to_thread(cluster.merge, SERVICE, "space", "both", patch)
        await objects.settled()
        labels = cluster.get(SERVICE, "space", "both")["metadata"]["labels"]
        assert set(labels) == {f"{who}-{number}" for who in ("ours", "theirs") for number in range(20)}

    mirror(cluster, check)


def test_an_object_made_again_under_its_name_is_another_object(cluster: RunningCluster) -> None:
    cluster.create(CONFIG_MAP, "space", {"metadata": {"name": "again"}, "data": {"a": "1"}})

    async def check(objects: MirroredObjects) -> None:
        old = objects.get(CONFIG_MAP, "space", "again")
        await asyncio.to_thread(cluster.delete, CONFIG_MAP, "space", "again")
        await asyncio.to_thread(
            cluster.create, CONFIG_MAP, "space", {"metadata": {"name": "again"}, "data": {"a": "2"}}
        )
        await until(lambda: (objects.find(CONFIG_MAP, "space", "again") or {}).get("data") == {"a": "2"})
        assert objects.modify(CONFIG_MAP, old, lambda obj: obj.update(data={})) is None

    mirror(cluster, check)


JSON = st.recursive(
    st.integers() | st.text(max_size=3) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=2), JSON, max_size=4)


def apply_patch(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch as RFC 7396 says."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = apply_patch(result.get(key), value)
    return result


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_makes_one_object_of_the_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert apply_patch(old, merge_patch(old, new)) == new
    assert merge_patch(old, old) == {}
