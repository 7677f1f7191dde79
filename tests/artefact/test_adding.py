"""How base and adapter are added, beside what PEFT computes; and what must be added so that the original comes out."""

import random
import struct
from itertools import permutations

import numpy as np
import pytest
import torch

from superweight.artefact.adding import Way, parts, ways
from superweight.artefact.writing.corrections import correction, is_exact

DTYPES = ("float32", "bfloat16", "float16")
BF16 = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
BF16 = BF16[torch.isfinite(BF16)]
"""Every finite number of bfloat16."""


def numbers(count, seed, *, exponents=(-6, 4)):
    """Of both signs and many magnitudes, in float32."""
    generator = np.random.default_rng(seed)
    scale = np.exp2(generator.integers(*exponents, count))
    return (generator.standard_normal(count) * scale).astype(np.float32)


def by_peft(base, terms_nk, way):
    """PEFT's sum of a column of weights and a column of every term: unmerged and merged."""
    from peft import LoraConfig, get_peft_model

    rows, rank = terms_nk.shape
    holder = torch.nn.Sequential(torch.nn.Linear(1, rows, bias=False, dtype=getattr(torch, way.base)))
    holder[0].weight.data.copy_(torch.from_numpy(base)[:, None])
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=["0"])
    layer = get_peft_model(holder, config, autocast_adapter_dtype=way.adapter == "float32").base_model.model[0]
    layer.lora_A["default"].weight.data.fill_(1)
    layer.lora_B["default"].weight.data.copy_(torch.from_numpy(terms_nk))
    assert layer.lora_B["default"].weight.dtype == getattr(torch, way.adapter)
    with torch.no_grad():
        unmerged = layer(torch.ones(1, dtype=getattr(torch, way.base)))
    layer.merge()
    return unmerged.tolist(), layer.get_base_layer().weight[:, 0].tolist()


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("way", ways(*DTYPES), ids=str)
def test_the_sum_is_what_peft_computes(way, rank):
    base, terms = numbers(1000, 1), numbers(1000 * rank, 2).reshape(-1, rank)
    terms[:100] = 0
    base[50:150] = 0
    unmerged, merged = by_peft(base, terms, way)
    mine = [way.restored(float(w), [float(term) for term in row]) for w, row in zip(base, terms, strict=True)]
    assert mine == unmerged
    assert mine == merged


def test_a_safe_merge_keeps_the_correction_in_the_bases_dtype():
    from peft import LoraConfig, get_peft_model

    base, terms = numbers(500, 3), numbers(500, 4)
    holder = torch.nn.Sequential(torch.nn.Linear(1, 500, bias=False, dtype=torch.bfloat16))
    holder[0].weight.data.copy_(torch.from_numpy(base)[:, None])
    layer = get_peft_model(holder, LoraConfig(r=1, lora_alpha=1, target_modules=["0"])).base_model.model[0]
    layer.lora_A["default"].weight.data.fill_(1)
    layer.lora_B["default"].weight.data.copy_(torch.from_numpy(terms)[:, None])
    layer.merge(safe_merge=True)
    way = Way("bfloat16", "bfloat16")
    mine = [way.restored(float(w), [float(term)]) for w, term in zip(base, terms, strict=True)]
    assert mine == layer.get_base_layer().weight[:, 0].tolist()


@pytest.mark.parametrize("exponents", [(-8, 8), (-30, 30), (-100, 100)])
def test_parts_give_the_number_in_any_order(exponents):
    for value in map(float, numbers(600, 5, exponents=exponents)):
        split = parts(value)
        assert 1 <= len(split) <= 3
        assert all(float(torch.tensor(part).bfloat16()) == part for part in split)
        for order in permutations(split):
            total = torch.zeros((), dtype=torch.float32)
            for part in order:
                total += part
            assert float(total) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, []),
        (-0.0, []),
        (1.5, [1.5]),
        (-4.3125, [-4.3125]),
        (1 + 2**-10, [1.0, 2**-10]),
        (1 + 2**-10 + 2**-20, [1.0, 2**-10, 2**-20]),
        (2.0**-149, [2.0**-149]),  # below what bfloat16 reaches: itself
    ],
)
def test_parts_of_numbers_worked_out_by_hand(value, expected):
    assert parts(value) == expected


def test_a_correction_is_found_wherever_there_is_one():
    """Beside all 65,280 corrections that an adapter in bfloat16 can make."""
    way, found = Way("bfloat16", "bfloat16"), {True: 0, False: 0}
    chosen = random.Random(6)
    for _ in range(150):
        base = float(BF16[BF16.abs().float().log2().abs() < 3][chosen.randrange(1500)])
        original = base * chosen.choice([-2, -1, 0.3, 1.3, 2.5, 5, 9]) * (1 + chosen.random())
        original = float(torch.tensor(original).bfloat16())
        possible = bool(((torch.tensor(base).bfloat16() + BF16) == original).any())
        split = parts(correction(original, base, [way]))
        assert is_exact(original, base, split, way) is possible
        found[possible] += 1
    assert min(found.values()) > 10


def test_one_correction_serves_both_dtypes_where_the_base_is_bfloat16():
    """What float32 gives back whole is the original rounded once, in bfloat16 too."""
    required = [Way("float32", "float32"), Way("bfloat16", "float32")]
    for original, share in zip(numbers(300, 7), np.random.default_rng(8).uniform(0.5, 1.2, 300), strict=True):
        base = float(torch.tensor(float(original) * share).bfloat16())
        split = parts(correction(float(original), base, required))
        assert all(is_exact(float(original), base, split, way) for way in required)


def float32(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def test_no_float32_reaches_an_odd_number_from_between_two_others():
    """Numbers in [4, 8) are 2⁻²¹ apart, and so are corrections there; the base lies half a step off both grids."""
    original, base = 4.5 + 2**-21, 0.25 + 2**-22
    assert np.float32(original) == original
    assert np.float32(base) == base
    way = Way("float32", "float32")
    split = parts(correction(original, base, [way]))
    assert abs(way.restored(base, split) - original) == 2**-21
    near = struct.unpack("<I", struct.pack("<f", 4.25))[0]
    reached = {float(np.float32(base) + np.float32(float32(near + off))) for off in range(-64, 64)}
    assert original not in reached
    assert {original - 2**-21, original + 2**-21} <= reached
