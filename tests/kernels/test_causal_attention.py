"""Causal attention by blocks of queries against the plain formula in float64, and where it takes torch's place."""

import math

import pytest
import torch
from torch.nn import functional

from superweight.kernels import onednn
from superweight.kernels.causal_attention import WORTHWHILE, causal_attention, suits
from superweight.kernels.onednn import differ, onednn_products

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not differ(torch.float32, CPU), reason="torch's own products are all there is here")


def heads(length, dtype, *, batch=2, count=6, groups=2, width=16, out=16):
    generator = torch.Generator().manual_seed(length)
    shapes = ((count, width), (groups, width), (groups, out))
    return [torch.randn(batch, n, length, w, generator=generator).to(dtype) for n, w in shapes]


def plain(query, key, value, scale):
    """By the formula, in float64."""
    shared = query.shape[1] // key.shape[1]
    query, key, value = query.double(), key.double(), value.double()
    scores = query @ key.repeat_interleave(shared, 1).transpose(-1, -2) * scale
    ahead = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(ahead, -math.inf).softmax(-1) @ value.repeat_interleave(shared, 1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("length", [1, 127, 128, 129, 300])
@pytest.mark.parametrize(("groups", "out"), [(1, 16), (2, 16), (6, 16), (2, 24)])
@torch.inference_mode()
def test_it_is_softmax_attention(length, dtype, tolerance, groups, out):
    query, key, value = heads(length, dtype, groups=groups, out=out)
    found = causal_attention(query, key, value)
    assert found.dtype == dtype
    expected = plain(query, key, value, 1 / 4)
    assert found.shape == expected.shape
    assert bool(((found.double() - expected).abs() <= tolerance * expected.abs().clamp(min=1)).all())


@torch.inference_mode()
def test_bfloat16_is_no_less_accurate_than_torchs_own_kernel():
    query, key, value = heads(512, torch.bfloat16, width=64, out=64)
    expected = plain(query, key, value, 1 / 8)
    theirs = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    ours = causal_attention(query, key, value)
    assert (ours - expected).abs().mean() < 1.2 * (theirs - expected).abs().mean()


class _Calls(list):
    def __call__(self, *args, **kwargs):
        self.append(kwargs.get("scale"))
        return causal_attention(*args, **kwargs)


@pytest.fixture
def calls(monkeypatch):
    """The scales that `causal_attention` is called with from products."""
    found = _Calls()
    monkeypatch.setattr(onednn, "causal_attention", found)
    monkeypatch.setattr(onednn, "_multiplies_tiles", lambda: False)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_long_causal_attention_is_handed_over_with_its_scale(calls, dtype):
    query, key, value = heads(WORTHWHILE, dtype)
    with onednn_products(dtype, CPU):
        found = functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.5, enable_gqa=True)
    assert calls == [0.5]
    expected = plain(query, key, value, 0.5)
    assert torch.allclose(found.double(), expected, atol=1e-5 if dtype == torch.float32 else 5e-2)


@torch.inference_mode()
def test_autocast_narrows_before_it_is_handed_over(calls):
    query, key, value = heads(WORTHWHILE, torch.float32)
    with onednn_products(torch.bfloat16, CPU), torch.autocast("cpu", torch.bfloat16):
        found = functional.scaled_dot_product_attention(query, key, value.bfloat16(), is_causal=True, enable_gqa=True)
    assert calls == [None]
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, causal_attention(query.bfloat16(), key.bfloat16(), value.bfloat16()))


def test_anything_else_stays_with_torch(calls):
    query, key, value = heads(WORTHWHILE, torch.float32, groups=6)
    attend = functional.scaled_dot_product_attention
    short = [each[:, :, :-1] for each in (query, key, value)]
    mask = torch.ones(WORTHWHILE, WORTHWHILE, dtype=torch.bool)
    with onednn_products(torch.float32, CPU):
        attend(query, key, value, is_causal=True)  # gradients may be wanted
        with torch.inference_mode():
            attend(query, key, value)
            attend(query, key, value, attn_mask=mask)
            attend(*short, is_causal=True)
            attend(query, key[:, :, :-1], value[:, :, :-1], is_causal=True)
            attend(query.double(), key.double(), value.double(), is_causal=True)
    assert calls == []


def test_a_processor_that_multiplies_tiles_keeps_torchs_bfloat16_kernel(calls, monkeypatch):
    monkeypatch.setattr(onednn, "_multiplies_tiles", lambda: True)
    query, key, value = heads(WORTHWHILE, torch.bfloat16, groups=6)
    with torch.inference_mode(), onednn_products(torch.bfloat16, CPU):
        functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    assert calls == []


def test_what_it_takes():
    good = heads(WORTHWHILE, torch.float32)
    assert suits(*good)
    assert not suits(*(each[0] for each in good))
    assert not suits(*heads(WORTHWHILE, torch.float32, count=6, groups=4))
    assert not suits(good[0], good[1], good[2][:1])
