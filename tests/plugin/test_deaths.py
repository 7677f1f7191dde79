"""How a worker's death is told."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from pytest_superweight import memory
from pytest_superweight.crumbs import Crumbs
from pytest_superweight.deaths import Death, Watchman
from pytest_superweight.memory import Kills
from pytest_superweight.signals import progress_writer
from superweight.progress import Step

GIB = 2**30


@pytest.mark.parametrize(
    ("death", "said"),
    [
        (
            Death("gw1", "Not properly terminated", -9, "t[m/r]", held=3 * GIB, everyone=12 * GIB, limit=16 * GIB),
            "worker gw1 was killed by SIGKILL (9) while it ran t[m/r]; resident memory 3.0 GiB when last seen, of all "
            "workers together 12.0 of 16.0 GiB. The kernel kills like this when memory runs out: if it did, use fewer "
            "workers (-n)",
        ),
        (
            Death("gw0", "", -9, "t", before=Kills(2, 7), after=Kills(3, 8)),
            "worker gw0 was killed by SIGKILL (9) while it ran t. The kernel killed for want of memory during this run: "
            "use fewer workers (-n)",
        ),
        (
            Death("gw0", "", -9, "t", finished=True, before=Kills(None, 7), after=Kills(None, 8)),
            "worker gw0 was killed by SIGKILL (9) after t was over. The kernel killed for want of memory on this machine "
            "during this run: use fewer workers (-n)",
        ),
        (
            Death("gw2", "", -11, "t", step=Step(cell="m/rtn", stage="perplexity:w", done=3, planned=8)),
            "worker gw2 was killed by SIGSEGV (11) while it ran t (at perplexity:w of m/rtn, 3 of 8)",
        ),
        (Death("gw0", "", 7, ""), "worker gw0 exited with code 7 before its first test"),
        (Death("gw0", "lost", None), "worker gw0 died (lost)"),
        (Death("gw0", "", -77, "t"), "worker gw0 was killed by signal 77 while it ran t"),
    ],
)
def test_a_death_in_words(death, said):
    assert str(death) == said


def test_a_test_that_was_over_is_not_to_blame():
    assert Death("gw0", "", -9, "t").fatal == "t"
    assert Death("gw0", "", -9, "t", finished=True).fatal == ""
    assert Death("gw0", "", -9, None).fatal == ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_process_that_is_killed_is_known_by_its_signal_and_its_memory():
    hold = "held = bytearray(2**28); print('held', flush=True); import time; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE)
    process.stdout.readline()
    node = SimpleNamespace(gateway=SimpleNamespace(id="gw5", _io=SimpleNamespace(popen=process)))
    watchman = Watchman()
    watchman.add(node)
    while watchman._held.get("gw5", 0) < 2**28:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    death = watchman.death(node, "down", test="t", finished=False, step=None)
    watchman.stop()
    assert death.code == -signal.SIGTERM
    assert 2**28 <= death.held < 2**29
    assert death.limit >= death.held


def test_memory_is_read_as_the_kernel_writes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "groups")
    assert memory.resident(1) is None
    assert memory.kills() == Kills(None, None)
    (tmp_path / "proc" / "7").mkdir(parents=True)
    (tmp_path / "proc" / "7" / "statm").write_text("9000 300 20 1 0 200 0\n")
    assert memory.resident(7) == 300 * os.sysconf("SC_PAGE_SIZE")
    (tmp_path / "proc" / "self").mkdir()
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/job/one\n")
    (tmp_path / "proc" / "vmstat").write_text("nr_free_pages 5\noom_kill 12\n")
    group = tmp_path / "groups" / "job" / "one"
    group.mkdir(parents=True)
    (group / "memory.events").write_text("low 0\noom 4\noom_kill 3\n")
    (group / "memory.max").write_text(f"{2 * GIB}\n")
    assert memory.kills() == Kills(3, 12)
    assert memory.available() == 2 * GIB
    (group / "memory.max").write_text("max\n")
    assert memory.available() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_crumbs_tell_what_a_worker_did_last(tmp_path):
    crumbs = Crumbs(tmp_path)
    assert crumbs.started("gw0") is None
    crumbs.collected("gw0", [("m/rtn", "sanity")])
    assert crumbs.started("gw0") == ""
    assert crumbs.requested_gates("gw0") == {("m/rtn", "sanity")}
    step = Step(cell="m/rtn", stage="perplexity:w", done=3, planned=8)
    progress_writer("gw0", tmp_path)(step)
    crumbs.starts("gw0", "suites/test_a.py::test_ü[m/rtn]")
    os.utime(tmp_path / "gw0.json", ns=(1, 1))
    assert crumbs.started("gw0") == "suites/test_a.py::test_ü[m/rtn]"
    assert crumbs.step("gw0") is None, "that was in the test before"
    progress_writer("gw0", tmp_path)(step)
    assert crumbs.step("gw0") == step
    (tmp_path / "gw0.requested").write_text("{", encoding="utf-8")
    assert crumbs.requested_gates("gw0") == set()


def test_a_directory_that_is_not_there_costs_nothing(tmp_path):
    crumbs = Crumbs(tmp_path / "elsewhere")
    crumbs.collected("gw0", [])
    crumbs.starts("gw0", "t")
    assert crumbs.started("gw0") is None
    assert crumbs.step("gw0") is None


def test_who_watches_sees_the_steps_as_well(tmp_path, monkeypatch):
    monkeypatch.setenv("SUPERWEIGHT_PROGRESS", str(tmp_path))
    (tmp_path / "crumbs").mkdir()
    progress_writer("gw0", tmp_path / "crumbs")(Step(cell="m/rtn", stage="s", done=1, planned=2))
    told = [json.loads((place / "gw0.json").read_text()) for place in (tmp_path, tmp_path / "crumbs")]
    assert told[0] == told[1]
