"""Nodes that join when pods do not fit, and the images that each has pulled. Pure state over a clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from laptop.cluster.alb import Clock
from laptop.delays import Delays

PODS_PER_NODE = 8
"""Pods that fit on a node. AWS's limit depends on the instance type; few make the autoscaler visible."""


@dataclass
class _JoiningNode:
    name: str
    ready: float
    pods: set[str] = field(default_factory=set)
    images: dict[str, float] = field(default_factory=dict)


class NodeCapacity:
    """Nodes of the cluster. The first one is there from the start.

    Args:
        first: name of the first node; others are numbered.
        delays: delays of the laptop. Without any, everything fits on the first node.
        clock: the clock.
    """

    def __init__(self, first: str, delays: Delays, clock: Clock) -> None:
        self._delays = delays
        self._clock = clock
        self._nodes = [_JoiningNode(first, clock())]

    def place(self, uid: str) -> str:
        """Return the node for a new pod. A new node begins to join if no other has room."""
        node = next((one for one in self._nodes if len(one.pods) < PODS_PER_NODE or not self._delays), None)
        if node is None:
            name = f"{self._nodes[0].name}-{len(self._nodes) + 1}"
            node = _JoiningNode(name, self._clock() + self._delays["node"])
            self._nodes.append(node)
        node.pods.add(uid)
        return node.name

    def seconds_to_ready(self, uid: str) -> float:
        """Return the seconds until the node of a pod is ready; 0 if it is, or if the pod has no node."""
        return max((one.ready - self._clock() for one in self._nodes if uid in one.pods), default=0.0)

    def release(self, uid: str) -> None:
        """Give the place of a pod back. Nodes stay."""
        for node in self._nodes:
            node.pods.discard(uid)

    def seconds_to_pull(self, uid: str, image: str) -> float:
        """Return the seconds until the node of a pod has pulled an image. The first request starts the pull."""
        node = next((one for one in self._nodes if uid in one.pods), None)
        if node is None:
            return 0.0
        done = node.images.setdefault(image, self._clock() + self._delays["image-pull"])
        return max(0.0, done - self._clock())
