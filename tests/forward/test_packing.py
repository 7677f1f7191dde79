"""How requests are laid out, by hand."""

from superweight.forward.layout import lay_out
from superweight.forward.packing import Cost, Request, batches, rows

FREE = Cost(float("inf"))  # attention that costs nothing


def test_two_choices_share_their_context():
    first = Request(0, (10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 21), 9)
    second = Request(1, (10, 11, 12, 13, 14, 15, 16, 17, 18, 30), 9)
    (row,) = rows([first, second], limit=100, cost=FREE)
    assert (row.shared, row.length) == (9, 10)
    layout = lay_out([row])
    assert layout.input_ids.tolist() == [[10, 11, 12, 13, 14, 15, 16, 17, 18, 20]]
    assert layout.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert layout.branch.tolist() == [[0] * 9 + [1]]
    assert layout.targets == [20, 21, 30]
    assert layout.at == ([0, 0, 0], [8, 9, 8])  # 20 and 30 are predicted where the context ends
    assert layout.owners == [0, 0, 1]


def test_branches_do_not_see_each_other():
    shared = tuple(range(10, 19))
    row = rows([Request(0, (*shared, 1, 2, 3), 9), Request(1, (*shared, 4, 5, 6), 9)], limit=100, cost=FREE)
    layout = lay_out(row)
    assert layout.input_ids.tolist() == [[*shared, 1, 2, 4, 5]]
    assert layout.position_ids.tolist() == [[*range(9), 9, 10, 9, 10]]
    visible = layout.visible()[0, 0].int().tolist()
    assert visible[8] == [1] * 9 + [0] * 4
    assert visible[10] == [1] * 9 + [1, 1, 0, 0]
    assert visible[11] == [1] * 9 + [0, 0, 1, 0]
    assert visible[12] == [1] * 9 + [0, 0, 1, 1]


def test_sharing_must_be_worth_it_and_rows_have_a_limit():
    short = [Request(0, (1, 2, 3, 4), 2), Request(1, (1, 2, 5, 6), 2)]
    assert len(rows(short, limit=100, cost=FREE)) == 2  # two tokens saved
    long = [Request(k, (*range(20), 50 + k, 60), 20) for k in range(4)]
    assert [row.length for row in rows(long, limit=100, cost=FREE)] == [24]
    assert [row.length for row in rows(long, limit=22, cost=FREE)] == [22, 22]
    assert [row.length for row in rows(long, limit=0, cost=FREE)] == [21] * 4


def test_batches_hold_what_is_alike_within_the_budget():
    requests = [Request(k, tuple(range(100 * k, 100 * k + length + 1)), 1) for k, length in enumerate((5, 30, 6, 29))]
    alone = rows(requests, limit=0, cost=FREE)
    found = batches(alone, tokens=60)
    assert [[row.length for row in batch] for batch in found] == [[30, 29], [6, 5]]
    assert [[row.length for row in batch] for batch in batches(alone, tokens=1)] == [[30], [29], [6], [5]]


def test_padding_repeats_the_last_token_and_sees_no_branch():
    one, other = Request(0, (1, 2, 3), 1), Request(1, (7, 8, 9, 10, 11), 1)
    layout = lay_out(batches(rows([one, other], limit=0, cost=FREE), tokens=100)[0])
    assert layout.input_ids.tolist() == [[7, 8, 9, 10], [1, 2, 2, 2]]
    assert layout.branch.tolist() == [[0] * 4, [0, 0, -1, -1]]
    assert not layout.branching
