"""The scheduler that outlives its workers, on workers that are only pretended; any order of deaths, chosen by a seed."""

import random
from types import SimpleNamespace

import pytest

from pytest_superweight.session import KEY
from pytest_superweight.surviving import Surviving

TESTS = [f"suites/test_{part}.py::test_{number}" for part in "abc" for number in range(5)]


class Node:
    """A worker that runs its tests in turn, when it is told to."""

    def __init__(self, number):
        self.gateway = SimpleNamespace(id=f"gw{number}")
        self.shutting_down = False
        self.waiting = []
        self.current = None

    def send_runtest_some(self, indices):
        self.waiting += indices

    def shutdown(self):
        self.shutting_down = True

    @property
    def may_run(self):
        """xdist's worker runs a test once it knows the next one, or that there is none."""
        return len(self.waiting) > 1 or (self.waiting and self.shutting_down)


class Run:
    """What xdist does between its workers and a scheduler."""

    def __init__(self, workers):
        self.distribution = SimpleNamespace(_max_worker_restart=None, _active_nodes=[])
        session = SimpleNamespace(scheduled=False, last_started=self.last_started)
        self.config = SimpleNamespace(
            stash={KEY: session},
            pluginmanager=SimpleNamespace(getplugin=lambda name: self.distribution),
            getoption=lambda name: None,
            getvalue=lambda name: [f"{workers}*popen"],
            option=SimpleNamespace(loadscopereorder=True),
        )
        self.started, self.ended, self.crashed, self.known = [], [], [], {}
        self.scheduler = Surviving(self.config)
        self.nodes = []
        for _ in range(workers):
            self.join()

    def last_started(self, worker):
        return self.known.get(worker)

    def join(self):
        node = Node(len(self.known) + len(self.nodes))
        self.nodes.append(node)
        self.distribution._active_nodes = self.nodes
        self.scheduler.add_node(node)
        self.scheduler.add_node_collection(node, TESTS)
        self.known[node.gateway.id] = ""
        if self.scheduler.collection_is_completed:
            self.scheduler.schedule()

    def start(self, node):
        node.current = node.waiting.pop(0)
        self.started.append(TESTS[node.current])
        self.known[node.gateway.id] = TESTS[node.current]

    def end(self, node):
        self.ended.append(TESTS[node.current])
        self.scheduler.mark_test_complete(node, node.current)
        node.current = None

    def die(self, node, *, replaced):
        self.nodes.remove(node)
        fatal = self.scheduler.remove_node(node)
        if fatal:
            self.crashed.append(fatal)
        if replaced:
            self.join()


@pytest.mark.parametrize("seed", range(60))
def test_whoever_dies_and_when_each_test_is_started_once(seed):
    """Every test is started once, ended or blamed, and none is waited for in vain."""
    dice = random.Random(seed)
    run = Run(dice.choice([1, 2, 3]))
    deadly = dice.choice([0.02, 0.2])
    for _ in range(2000):
        if run.scheduler.tests_finished and all(node.current is None and not node.may_run for node in run.nodes):
            break
        able = [node for node in run.nodes if node.current is not None or node.may_run]
        assert able, "everybody waits"
        node = dice.choice(able)
        if dice.random() < deadly:
            run.die(node, replaced=True)
        elif node.current is None:
            run.start(node)
        else:
            run.end(node)
    for node in run.nodes:  # xdist tells all to end once the scheduler has finished
        node.shutdown()
        while node.current is not None or node.waiting:
            run.start(node) if node.current is None else run.end(node)
    assert sorted(run.started) == sorted(TESTS)
    assert sorted(run.ended + run.crashed) == sorted(TESTS)
    assert run.scheduler.not_started == []


def test_with_nobody_left_the_run_is_over_and_what_was_not_started_is_known():
    run = Run(2)
    first, second = run.nodes
    run.start(first)
    run.die(first, replaced=False)
    assert not run.scheduler.tests_finished
    run.die(second, replaced=False)
    assert run.scheduler.tests_finished
    assert sorted([*run.scheduler.not_started, *run.crashed]) == sorted(TESTS)


def test_deaths_over_tests_are_not_counted_against_the_workers_that_may_be_replaced():
    run = Run(2)
    allowed = run.distribution._max_worker_restart
    run.start(run.nodes[0])
    run.die(run.nodes[0], replaced=True)
    assert run.distribution._max_worker_restart == allowed + 1
    run.die(run.nodes[0], replaced=True)  # before it came to a test
    assert run.distribution._max_worker_restart == allowed + 1
