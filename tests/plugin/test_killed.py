"""Runs that are killed, over and over, end with the figures of one that was not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIVES = ROOT / "tests" / "support" / "lives.py"


def lives(project, store, appends):
    out = project.root / f"{store}.json"
    command = [
        sys.executable,
        str(LIVES),
        str(project.root / "cards"),
        str(project.root / store),
        str(out),
        str(appends),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    return int(run.stdout.split()[-1]), json.loads(out.read_text())


def test_killed_every_few_records_and_never_the_worse_for_it(project):
    (project.root / "cards" / "tiers" / "smoke.toml").write_text(
        (project.root / "cards" / "tiers" / "smoke.toml").read_text().replace('"rtn-int4-g64", ', "")
    )
    once, whole = lives(project, "whole", 0)
    again, pieced = lives(project, "pieced", 6)
    assert once == 1
    assert again >= 4
    assert pieced == whole
    assert whole["tiny/clip-restore-int8-channel"]["items"]["successor"]


class Gate:
    """`pytest suites/` in a directory, which can be killed once so many records are on the disk."""

    def __init__(self, directory, *options):
        self.directory = directory
        self.command = [sys.executable, "-m", "pytest", "suites/", "-p", "no:cacheprovider", *options]

    def run(self, out, store):
        options = ["--superweight-out", out, "--superweight-store", store]
        run = subprocess.run([*self.command, *options], cwd=self.directory, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout
        return self.figures(out)

    def kill(self, out, store, records):
        """Start it, and `kill -9` its process group."""
        options = ["--superweight-out", out, "--superweight-store", store]
        gate = subprocess.Popen(
            [*self.command, *options],
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while self.records(store) < records:
            assert gate.poll() is None, "the gate ended before it could be killed"
            time.sleep(0.01)
        os.killpg(gate.pid, signal.SIGKILL)
        gate.wait()
        assert not (self.directory / out / "evidence.json").exists()

    def records(self, store):
        files = (self.directory / store / "journal").rglob("*.jsonl")
        return sum(max(0, path.read_bytes().count(b"\n") - 1) for path in files)  # a header each

    def figures(self, out):
        evidence = json.loads((self.directory / out / "evidence.json").read_text())
        drop = ("seconds", "reused")
        cells = [{name: value for name, value in cell.items() if name not in drop} for cell in evidence["cells"]]
        tables = (self.directory / out / "items").rglob("*.csv")
        return evidence["verdict"], cells, {str(path.parent) + path.name: path.read_text() for path in tables}


def test_a_gate_that_is_killed_goes_on_from_there(project):
    gate = Gate(project.root)
    verdict, cells, tables = gate.run("one", "whole")
    for records in (2, 11):
        gate.kill("two", "pieced", records)
        assert gate.records("pieced") >= records
    again, pieced, others = gate.run("two", "pieced")
    assert (again, pieced) == (verdict, cells)
    assert list(others.values()) == list(tables.values())


@pytest.mark.real
@pytest.mark.slow
def test_the_embedded_gate_killed_at_three_points_has_identical_evidence(tmp_path):
    shutil.copytree(ROOT / "suites", tmp_path / "suites", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    gate = Gate(tmp_path, "-k", "smollm2")
    verdict, cells, tables = gate.run("one", "whole")
    total = gate.records("whole")
    for share in (0.1, 0.5, 0.9):
        gate.kill("two", "pieced", int(share * total))
    again, pieced, others = gate.run("two", "pieced")
    assert (again, pieced) == (verdict, cells)
    assert list(others.values()) == list(tables.values())
