"""The order of visits: random, nested, the same everywhere."""

import hashlib

from superweight.evaluate.order import batched, visiting_order


def test_an_order_visits_everything_once_and_is_not_the_texts():
    order = visiting_order(500)
    assert sorted(order) == list(range(500))
    assert order != list(range(500))
    assert abs(sum(order[:100]) / 100 - 249.5) < 45  # five standard errors of a mean of 100 draws


def test_the_order_of_fewer_is_the_order_of_more_with_the_rest_left_out():
    more = visiting_order(300)
    assert visiting_order(120) == [index for index in more if index < 120]


def test_it_is_a_sort_by_sha256_that_any_machine_repeats():
    digests = {index: hashlib.sha256(b"7:%d" % index).hexdigest() for index in range(9)}
    assert visiting_order(9, seed=7) == sorted(digests, key=digests.get)


def test_batches_are_consecutive():
    assert batched([5, 3, 1, 4, 2], 2) == [[5, 3], [1, 4], [2]]
    assert batched([5, 3], 0) == [[5], [3]]
    assert batched([], 3) == []
