import math

import pytest
import torch

from superweight.compress import apply
from superweight.compress.clip_restore import Z_GRID

GROUPS = {"kind": "clip-restore", "bits": 3, "granularity": "group", "group_size": 16}
BLOCKS = {"kind": "clip-restore", "bits": 3, "granularity": "block", "block_size": 300}


def down(loaded, layer=1):
    return loaded.architecture.down_projections[layer].parameter


def plant(loaded, place, value=9.0):
    loaded.architecture.scalar(place).fill_(value)


def clip_round(block, z, bits):
    """Clip and round one block in float64."""
    x = block.double()
    threshold = x.abs().mean() + z * x.abs().std() if math.isfinite(z) else torch.tensor(math.inf).double()
    clipped = x.clamp(-threshold, threshold)
    low, high = clipped.min(), clipped.max()
    step = (high - low) / (2**bits - 1)
    return ((clipped - low) / step).round() * step + low


def test_clips_rounds_and_restores(tiny, context, recipe, place):
    loaded = tiny()
    plant(loaded, place)
    before = down(loaded).clone()
    apply(recipe(**BLOCKS, z=2.0), context(loaded, place))
    flat = before.flatten()
    expected = torch.cat([clip_round(flat[start : start + 300], 2.0, 3) for start in (0, 300, 600)]).view(16, 40)
    expected[place.row, place.column] = 9.0
    torch.testing.assert_close(down(loaded).double(), expected, rtol=1e-5, atol=1e-5)


def test_clipping_is_what_gives_the_neighbours_a_finer_step(tiny, context, recipe, place):
    loaded = tiny()
    plant(loaded, place, 50.0)
    before = down(loaded).clone()
    errors = {}
    for z in (2.0, math.inf):
        with apply(recipe(**BLOCKS, z=z), context(loaded, place)):
            errors[z] = (down(loaded) - before).square().sum().item()
    assert errors[2.0] < errors[math.inf] / 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("z", [2.0, math.inf, "search"])
def test_super_weights_keep_their_bits(tiny, context, recipe, place, dtype, z):
    loaded = tiny(dtype=dtype)
    plant(loaded, place, 7.321)
    before = loaded.architecture.scalar(place).clone()
    with apply(recipe(**GROUPS, z=z), context(loaded, place)) as applied:
        assert torch.equal(applied.stored(place), before)
        assert applied.figures["restored"] == 1


def test_infinite_z_differs_from_rounding_in_the_super_weight_alone(tiny, context, recipe, place):
    loaded = tiny()
    plant(loaded, place, 0.0123)  # inside its block, so that rounding moves it
    with apply(recipe(kind="rtn", bits=3, granularity="group", group_size=16), context(loaded)):
        rounded = down(loaded).clone()
    with apply(recipe(**GROUPS, z=math.inf), context(loaded, place)):
        restored = down(loaded).clone()
    assert (rounded != restored).nonzero().tolist() == [[place.row, place.column]]


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group", "block"])
def test_search_finds_the_least_error_of_its_grid(tiny, context, recipe, place, granularity):
    loaded = tiny()
    plant(loaded, place)
    before = down(loaded).clone()
    sizes = {"group": {"group_size": 16}, "block": {"block_size": 300}}.get(granularity, {})
    with apply(
        recipe(kind="clip-restore", bits=3, granularity=granularity, z="search", **sizes), context(loaded, place)
    ) as applied:
        chosen = applied.figures["z"]["model.layers.1.mlp.down_proj.weight"]
    others = torch.ones_like(before, dtype=torch.bool)
    others[place.row, place.column] = False
    errors = {}
    for z in Z_GRID:
        got = torch.empty_like(before).double()
        for view, target in zip(views(before, granularity), views(got, granularity), strict=True):
            for block, destination in zip(view, target, strict=True):
                destination.copy_(clip_round(block, z, 3))
        errors[z] = (got - before.double())[others].square().sum().item()
    best = min(errors.values())
    assert errors[float(chosen)] == pytest.approx(best, rel=1e-5)
    assert errors[math.inf] > best * 1.01  # else the search has nothing to find here


def views(weight, granularity):
    """Blocks of a (16, 40) weight, as lists of 1-d views, written out by hand."""
    flat = weight.view(-1)
    return [
        {
            "tensor": [flat],
            "channel": list(weight),
            "group": [weight[r, s : s + 16] for r in range(16) for s in (0, 16, 32)],
            "block": [flat[s : s + 300] for s in (0, 300, 600)],
        }[granularity]
    ]


def test_search_reports_a_z_for_every_matrix(tiny, context, recipe, expert_place):
    loaded = tiny("mixtral")
    plant(loaded, expert_place)
    with apply(recipe(**GROUPS, z="search"), context(loaded, expert_place)) as applied:
        assert applied.stored(expert_place).item() == 9.0
        chosen = applied.figures["z"]
    assert len(chosen) == 2 * (4 + 2 * 3)  # a layer: q, k, v, o, and two stacks of three experts
    assert "model.layers.1.mlp.experts.down_proj[2]" in chosen
    assert all(z == "inf" or z in Z_GRID for z in chosen.values())


def test_side_table_is_counted(tiny, context, recipe, place):
    loaded = tiny(dtype=torch.bfloat16)
    with apply(recipe(kind="rtn", bits=3, granularity="group", group_size=16), context(loaded)) as plain:
        pass
    with apply(recipe(**GROUPS, z=3.0), context(loaded, place)) as restored:
        pass
    assert restored.size.bits - plain.size.bits == 16 + 32  # a bfloat16 and its index
    assert restored.size.parts["super_weights"] == 48


def test_a_mixture_is_clipped_expert_by_expert(tiny, context, recipe, expert_place):
    loaded = tiny("gpt_oss")  # stored (experts, in, out)
    plant(loaded, expert_place)
    before = down(loaded).clone()
    apply(recipe(kind="clip-restore", bits=4, granularity="tensor", z=2.5), context(loaded, expert_place))
    for expert in range(3):
        expected = clip_round(before[expert].flatten(), 2.5, 4).view(40, 16)
        if expert == 2:
            expected[expert_place.column, expert_place.row] = 9.0
        torch.testing.assert_close(down(loaded)[expert].double(), expected, rtol=1e-5, atol=1e-5)
