"""Nodes that join, on a clock that the test moves."""

from __future__ import annotations

from laptop.cluster.node_capacity import PODS_PER_NODE, NodeCapacity
from laptop.delays import NONE, Delays
from laptop.tests.cluster.running_cluster import SetClock

DELAYS = Delays({"node": 60.0, "image-pull": 15.0})


def full(clock: SetClock) -> NodeCapacity:
    nodes = NodeCapacity("one", DELAYS, clock)
    for number in range(PODS_PER_NODE):
        assert nodes.place(f"pod-{number}") == "one"
        assert nodes.seconds_to_ready(f"pod-{number}") == 0
    return nodes


def test_a_pod_that_fits_on_no_node_waits_for_a_new_one() -> None:
    clock = SetClock()
    nodes = full(clock)
    assert nodes.place("late") == "one-2"
    clock.pass_time(59)
    assert nodes.place("later") == "one-2"
    assert nodes.seconds_to_ready("late") == nodes.seconds_to_ready("later") == 1
    clock.pass_time(1)
    assert nodes.seconds_to_ready("late") == 0


def test_the_place_of_a_pod_that_ended_is_free() -> None:
    clock = SetClock()
    nodes = full(clock)
    nodes.release("pod-3")
    assert nodes.place("late") == "one"


def test_each_node_pulls_an_image_once() -> None:
    clock = SetClock()
    nodes = full(clock)
    nodes.place("late")
    assert nodes.seconds_to_pull("pod-0", "image") == 15
    clock.pass_time(10)
    assert nodes.seconds_to_pull("pod-1", "image") == 5
    assert nodes.seconds_to_pull("late", "image") == 15
    clock.pass_time(5)
    assert nodes.seconds_to_pull("pod-2", "image") == 0
    assert nodes.seconds_to_pull("pod-2", "other") == 15


def test_without_delays_everything_fits_on_the_first_node() -> None:
    nodes = NodeCapacity("one", NONE, SetClock())
    assert {nodes.place(f"pod-{number}") for number in range(100)} == {"one"}
