"""Fixtures of the tests of the Kubernetes provider: those of the cluster."""

from laptop.tests.cluster.conftest import cluster, namespace

__all__ = ["cluster", "namespace"]
