from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from laptop.cluster.kinds import NAMESPACE
from laptop.tests.cluster.running_cluster import RunningCluster, new_namespace


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    running = RunningCluster(tmp_path_factory.mktemp("cluster"), time_scale=0.1)
    yield running
    running.close()


@pytest.fixture
def namespace(cluster: RunningCluster) -> Iterator[str]:
    name = new_namespace(cluster, f"test-{uuid.uuid4().hex[:8]}")
    yield name
    cluster.delete(NAMESPACE, "", name)
