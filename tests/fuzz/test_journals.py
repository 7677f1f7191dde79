"""Journals that something happened to: a figure is the one that was written under its key, or it is measured again."""

import json
import os
import shutil
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.damage import NASTY, budget, byte_damage, line_damage, tree_damage
from fuzz.outcome import before_long
from superweight.errors import InfraError
from superweight.evidence import Store, content_key
from superweight.measure.batches import measure_batches

WHATS = ({"corpus": "wiki", "recipe": "rtn"}, {"corpus": "wiki", "recipe": "awq"})
KEYS = [content_key(**what) for what in WHATS]
NAMES = [f"journal/{key[:2]}/{key}.jsonl" for key in KEYS]
BATCHES = list(range(6))


def measured(what, batch):
    """What a measurement of this and nothing else gives: texts and figures of every kind."""
    seed = sum(what["recipe"].encode()) + batch
    return [{"doc_id": 2 * batch + i, "nll": seed / 7 + i, "text": NASTY[seed % 17], "inf": -1e999} for i in range(2)]


def expected(what, batches=BATCHES):
    return [item for batch in batches for item in json.loads(json.dumps(measured(what, batch)))]


@pytest.fixture(autouse=True)
def _no_flushing(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power is cut here, and flushing is slow


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """Two measurements, the second of which was cut off after four batches."""
    root = tmp_path_factory.mktemp("pristine")
    for what, batches in zip(WHATS, (BATCHES, BATCHES[:4]), strict=True):
        measure_batches(Store(root), what, batches, lambda batch, what=what: measured(what, batch))
    return root


@st.composite
def lines_moved(draw):
    """Whole lines, each of them sound, of one journal put into another."""
    source, target = draw(st.permutations(NAMES))
    first, last, at = (draw(st.integers(0, 7)) for _ in range(3))

    def change(root):
        lines = (root / source).read_bytes().splitlines(keepends=True)[first : first + last]
        whole = (root / target).read_bytes().splitlines(keepends=True)
        whole[at:at] = lines
        (root / target).write_bytes(b"".join(whole))

    return change


def damages():
    kinds = byte_damage(NAMES), byte_damage(NAMES), tree_damage(NAMES), line_damage(NAMES), lines_moved()
    return st.lists(st.one_of(*kinds), min_size=1, max_size=3)


def damaged(pristine, root, changes):
    shutil.copytree(pristine, root)
    for change in changes:
        if any(path.is_fifo() for path in root.rglob("*")):
            break  # the next damage would wait for it
        with suppress(OSError, ValueError):  # the one before left nothing to damage
            change(root)


def check(pristine, changes):
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings(record=True) as told, before_long():
        warnings.simplefilter("always")
        root = Path(directory) / "store"
        damaged(pristine, root, changes)
        for what, key, name in zip(WHATS, KEYS, NAMES, strict=True):
            before = (root / name).read_bytes() if (root / name).is_file() else None
            again = []

            def measure(batch, what=what, again=again):
                again.append(batch)
                return measured(what, batch)

            try:
                peeked = Store(root).peek(key)
                taken = measure_batches(Store(root), what, BATCHES, measure)
            except InfraError as error:
                refused = str(error)
            else:
                refused = ""
            if refused:
                assert key in refused
                assert not (root / name).is_file()
                continue
            assert taken.items == expected(what)
            assert taken.key == key
            assert [record["batch"] for record in peeked] == BATCHES[: len(peeked)]
            assert [item for record in peeked for item in record["items"]] == expected(what, BATCHES[: len(peeked)])
            assert again == BATCHES[len(peeked) :]
            if not again:
                assert taken.since
            kept_aside(root / name, before, [str(one.message) for one in told])
            assert measure_batches(Store(root), what, BATCHES, measure).items == expected(what)
            assert again == BATCHES[len(peeked) :], "measured a third time"
        assert not list(root.rglob("*.damaged")), "a copy that was not finished"


def kept_aside(path, before, told):
    """Whatever was in a file that is not a beginning of the one now is kept beside it, and told."""
    if before is None or path.read_bytes().startswith(before[: before.rfind(b"\n") + 1]):
        return
    copies = [one.read_bytes() for one in path.parent.glob(f"{path.name}.damaged-*")]
    assert before in copies
    assert any(path.name in line for line in told)


@pytest.mark.parametrize("examples", [200, pytest.param(12000, marks=pytest.mark.slow)])
def test_figures_are_those_that_were_written_or_measured_again(pristine, examples):
    @budget(examples)
    @given(damages())
    def fuzz(changes):
        check(pristine, changes)

    fuzz()


def test_what_is_no_file_is_told_and_not_waited_for(tmp_path):
    path = tmp_path / NAMES[0]
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with before_long():
        for use in (
            lambda: Store(tmp_path).peek(KEYS[0]),
            lambda: measure_batches(Store(tmp_path), WHATS[0], BATCHES, list),
        ):
            with pytest.raises(InfraError, match="is a pipe or a device, not a file"):
                use()
