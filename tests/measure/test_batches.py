"""Measuring batch by batch, written down and found again."""

import pytest

from superweight.errors import InfraError
from superweight.evidence import Store
from superweight.measure.batches import measure_batches, measure_once

WHAT = {"model": "m", "measured": "x"}
BATCHES = [[0, 1], [2, 3], [4]]


class Meter:
    """Measures squares, and remembers what it was asked."""

    def __init__(self, fail_at=None):
        self.asked, self.fail_at = [], fail_at

    def __call__(self, batch):
        if batch == self.fail_at:
            raise InfraError("no", reason="crash")
        self.asked.append(batch)
        return [{"item": number, "value": number / 3} for number in batch]


ALL = [{"item": number, "value": number / 3} for number in range(5)]


@pytest.mark.parametrize("kept", [False, True])
def test_everything_is_measured_once_and_in_order(tmp_path, kept):
    store, meter = Store(tmp_path) if kept else None, Meter()
    taken = measure_batches(store, WHAT, BATCHES, meter)
    assert (taken.items, taken.since) == (ALL, "")
    assert meter.asked == BATCHES
    again = Meter()
    second = measure_batches(store, WHAT, BATCHES, again)
    assert second.items == ALL
    assert again.asked == ([] if kept else BATCHES)
    assert bool(second.since) == kept
    assert second.key == taken.key


def test_what_failed_half_way_goes_on_from_there(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(InfraError):
        measure_batches(store, WHAT, BATCHES, Meter(fail_at=[2, 3]))
    meter = Meter()
    taken = measure_batches(store, WHAT, BATCHES, meter)
    assert taken.items == ALL
    assert meter.asked == BATCHES[1:]
    assert taken.since == ""


def test_anything_else_is_measured_anew(tmp_path):
    store = Store(tmp_path)
    measure_batches(store, WHAT, BATCHES, Meter())
    meter = Meter()
    measure_batches(store, WHAT | {"recipe": "other"}, BATCHES, meter)
    assert meter.asked == BATCHES


def test_a_decision_ends_it_at_the_same_batch_every_time(tmp_path):
    store, meter = Store(tmp_path), Meter()

    def decided(items):
        return len(items) >= 2

    first = measure_batches(store, WHAT, BATCHES, meter, decided=decided)
    assert first.items == ALL[:2]
    again = Meter()
    assert measure_batches(store, WHAT, BATCHES, again, decided=decided).items == ALL[:2]
    assert again.asked == []
    to_the_end = Meter()
    assert measure_batches(store, WHAT, BATCHES, to_the_end).items == ALL
    assert to_the_end.asked == BATCHES[1:]
    assert measure_batches(store, WHAT, BATCHES, Meter(), decided=decided).items == ALL[:2]


def test_a_journal_of_something_else_is_begun_again(tmp_path):
    store, meter = Store(tmp_path), Meter()
    key = measure_batches(store, WHAT, BATCHES, Meter()).key
    with store.journal(key, WHAT) as journal:
        journal.restart()
        journal.append({"batch": 1, "items": []})
    assert measure_batches(store, WHAT, BATCHES, meter).items == ALL
    assert meter.asked == BATCHES


def test_figures_are_what_they_will_be_read_back_as(tmp_path):
    values = {"a": (1, 2), "b": float("inf"), "c": 0.1 + 0.2, 3: "x"}
    measured, _ = measure_once(Store(tmp_path), WHAT, lambda: dict(values))
    read, taken = measure_once(Store(tmp_path), WHAT, lambda: pytest.fail("measured again"))
    assert measured == read == {"a": [1, 2], "b": float("inf"), "c": 0.1 + 0.2, "3": "x"}
    assert taken.since
