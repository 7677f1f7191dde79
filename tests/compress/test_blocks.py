import pytest
import torch

from superweight.compress.blocks import block_views, count_blocks, gathered, whole_blocks


def numbered(rows, columns):
    return torch.arange(rows * columns, dtype=torch.float32).view(rows, columns)


def blocks(views):
    return [block.tolist() for view in views for block in view.reshape(-1, view.shape[-1])]


def test_tensor_is_one_block():
    assert blocks(block_views(numbered(2, 3), "tensor")) == [[0, 1, 2, 3, 4, 5]]


def test_channel_is_an_output_row():
    assert blocks(block_views(numbered(2, 3), "channel")) == [[0, 1, 2], [3, 4, 5]]


def test_channel_of_a_transposed_weight_is_a_stored_column():
    assert blocks(block_views(numbered(2, 3), "channel", transposed=True)) == [[0, 3], [1, 4], [2, 5]]


def test_groups_run_along_the_input_and_the_rest_is_its_own():
    expected = [[0, 1], [2, 3], [5, 6], [7, 8], [4], [9]]
    assert blocks(block_views(numbered(2, 5), "group", 2)) == expected


def test_groups_of_a_transposed_weight_run_along_the_input():
    # stored (in = 3, out = 2): output channel 0 is 0, 2, 4
    assert blocks(block_views(numbered(3, 2), "group", 2, transposed=True)) == [[0, 2], [1, 3], [4], [5]]


def test_a_group_longer_than_the_row_is_the_row():
    assert blocks(block_views(numbered(2, 3), "group", 128)) == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("transposed", [False, True])
def test_blocks_run_through_the_flattened_weight_as_stored(transposed):
    expected = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert blocks(block_views(numbered(2, 5), "block", 4, transposed=transposed)) == expected


def test_a_block_longer_than_the_weight_is_the_weight():
    assert blocks(block_views(numbered(2, 3), "block", 16384)) == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("granularity", "size"), [("tensor", None), ("channel", None), ("group", 3), ("block", 4)])
def test_views_cover_every_element_once_and_write_through(granularity, size, transposed):
    stored = torch.zeros(5, 7)
    for view in block_views(stored, granularity, size, transposed=transposed):
        view += 1
    assert torch.equal(stored, torch.ones(5, 7))


def test_count():
    assert count_blocks(block_views(numbered(2, 5), "group", 2)) == 6


@pytest.mark.parametrize("limit", [1, 3, 4, 10, 1000])
@pytest.mark.parametrize(("granularity", "size"), [("tensor", None), ("channel", None), ("group", 3), ("block", 4)])
def test_parts_never_exceed_the_limit_unless_one_block_does(granularity, size, limit):
    stored = torch.zeros(5, 7)
    for view in block_views(stored, granularity, size):
        for part in whole_blocks(view, limit):
            assert part.shape[-1] == view.shape[-1]
            assert part.numel() <= limit or part.numel() == part.shape[-1]
            part += 1
    assert torch.equal(stored, torch.ones(5, 7))


def test_long_blocks_come_alone(monkeypatch):
    monkeypatch.setattr("superweight.compress.blocks.LONG", 6)
    assert [part.shape for part in whole_blocks(torch.zeros(3, 7), 1000)] == [(1, 7)] * 3
    assert [part.shape for part in whole_blocks(torch.zeros(3, 6), 1000)] == [(3, 6)]


def test_gathered_is_the_part_itself_where_its_blocks_lie_one_after_another():
    stored = numbered(4, 6)
    whole, strided = stored.view(4, 2, 3), stored[:, :4].unflatten(1, (2, 2))
    assert gathered(whole).data_ptr() == stored.data_ptr()
    assert gathered(strided).data_ptr() != stored.data_ptr()
    assert gathered(strided).tolist() == strided.reshape(8, 2).tolist()
    assert gathered(stored.T).is_contiguous()
