import pytest
import torch

from superweight.cards.base import Coordinate
from superweight.compress.w8a8 import kept_scalars, stored_scalar
from superweight.kernels.activations import ActivationQuantiser
from superweight.kernels.int8 import Int8Weight, int8_matmul, weight_codes, weight_scale


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("m", "k", "n"), [(1, 5, 3), (3, 16, 8), (17, 24, 40), (64, 133, 9)])
def test_product_is_exact(m, k, n):
    generator = torch.Generator().manual_seed(m)
    a = torch.randint(-127, 128, (m, k), dtype=torch.int8, generator=generator)
    b = torch.randint(-127, 128, (n, k), dtype=torch.int8, generator=generator)
    got = int8_matmul(a, b)
    assert got.dtype == torch.int32
    assert torch.equal(got.long(), a.long() @ b.long().T)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("m", "k", "n"), [(1, 5, 3), (3, 16, 8), (17, 24, 40), (64, 133, 9)])
def test_product_is_exact_on_cuda(m, k, n):
    a = torch.randint(-127, 128, (m, k), dtype=torch.int8)
    b = torch.randint(-127, 128, (n, k), dtype=torch.int8)
    assert torch.equal(int8_matmul(a.cuda(), b.cuda()).cpu().long(), a.long() @ b.long().T)


def test_scales_and_codes_by_hand():
    w = torch.tensor([[1.27, -0.635], [254.0, 3.0]])
    assert weight_scale(w, "channel").flatten().tolist() == pytest.approx([0.01, 2.0])
    assert weight_scale(w, "tensor").flatten().tolist() == pytest.approx([2.0])
    assert weight_codes(w, torch.tensor([[2.0]])).tolist() == [[1.0, 0.0], [127.0, 2.0]]  # 0.635, −0.3, 127, 1.5 → 2
    # smoothed by (1, 0.5): 3 · 0.5 = 1.5, over 2 is 0.75 → 1
    assert weight_codes(w[1:], torch.tensor([[2.0]]), torch.tensor([1.0, 0.5])).tolist() == [[127.0, 1.0]]


def test_a_channel_of_zeros_gets_zeros():
    w = torch.zeros(2, 3)
    assert torch.equal(weight_codes(w, weight_scale(w, "channel")), w)


def int8_weight(w, granularity, kept=()):
    aside = kept_scalars(w, kept)
    w = w.clone()
    for scalar in aside:
        w[scalar.row, scalar.column] = 0
    scale = weight_scale(w, granularity)
    return Int8Weight(weight_codes(w, scale).to(torch.int8), scale, aside)


def decoded(weight):
    """The weight in float64, kept scalars in their places."""
    full = weight.codes.double() * weight.scale.double()
    for scalar in weight.kept:
        full[scalar.row, scalar.column] = scalar.value.double()
    return full


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("activations", ["tensor", "token"])
@pytest.mark.parametrize("handled", [None, "massive", "largest"])
@pytest.mark.parametrize("kept", [[], [(5, 13)], [(5, 13), (2, 13), (5, 7)]])
def test_linear_is_exact_against_float64(granularity, activations, handled, kept):
    x = seeded(2, 9, 24)
    x[0, 3, 13] = 800.0  # two massive entries in one token, one of them in a kept column; one in another sequence
    x[0, 3, 2] = -500.0
    x[1, 8, 13] = 700.0
    w = seeded(12, 24, seed=1)
    weight = int8_weight(w, granularity, [Coordinate(layer=0, row=r, column=c) for r, c in kept])
    quantised = ActivationQuantiser(activations, handled, 50.0)(x)
    bias = seeded(12, seed=2)
    # X̂ from its parts, in float64
    x_hat = quantised.codes.double() * quantised.scale.double()
    x_hat[tuple(quantised.where)] = quantised.entries.double()
    expected = x_hat @ decoded(weight).T + bias.double()
    if handled == "massive":
        assert quantised.entries.tolist() == [-500.0, 800.0, 700.0]
    got = weight.linear(quantised, bias)
    assert got.shape == (2, 9, 12)
    torch.testing.assert_close(got.double(), expected, rtol=2e-6, atol=2e-6 * expected.abs().max().item())


def test_kept_scalars_count_neither_towards_the_scale_nor_as_a_code():
    w = torch.full((2, 4), 0.5)
    w[1, 2] = 90.0
    weight = int8_weight(w, "tensor", [Coordinate(layer=0, row=1, column=2)])
    assert weight.scale.item() == pytest.approx(0.5 / 127)
    assert weight.codes[1, 2].item() == 0
    torch.testing.assert_close(decoded(weight).float(), w)


def test_stored_is_the_side_table_or_the_decoded_integer():
    w = torch.tensor([[1.27, -0.634], [254.0, 3.0]])
    weight = int8_weight(w, "channel", [Coordinate(layer=0, row=1, column=0)])
    assert stored_scalar(weight, Coordinate(layer=0, row=1, column=0), torch.float32).item() == 254.0
    assert stored_scalar(weight, Coordinate(layer=0, row=0, column=1), torch.float32).item() == pytest.approx(-0.63)
