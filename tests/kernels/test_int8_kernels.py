import subprocess
import sys
from itertools import product

import pytest
import torch

from superweight.kernels import int8, int8_fused
from superweight.kernels.activations import ActivationQuantiser, encode, round_trip, scale_of
from superweight.kernels.int8 import Int8Weight, KeptScalar, weight_codes, weight_scale

UNIT = 2.0**-24  # half the spacing of float32 numbers just above 1
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

MASSIVE = {  # sequence, token, channel: two in one token, one of them in the column of a kept scalar
    (0, 3, 13): 800.0,
    (0, 3, 2): -500.0,
    (1, 8, 13): 700.0,
}
CROWD = {(0, 4, channel): 300.0 + channel for channel in range(3, 3 + int8_fused.SLOTS + 2)}


def layer(
    device="cpu", *, seed=0, planted=MASSIVE, kept=(), granularity="channel", dtype=torch.float32, shape=(43, 29)
):
    """An input `(2, 9, in)` with massive entries, and a weight `(out, in)` with scalars kept aside."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 9, shape[1], generator=generator)
    for place, value in planted.items():
        x[place] = value
    w = torch.randn(shape, generator=generator)
    aside = tuple(KeptScalar(row, column, w[row, column].clone().to(device)) for row, column in kept)
    for scalar in aside:
        w[scalar.row, scalar.column] = 0
    w = w.to(device)
    scale = weight_scale(w, granularity)
    return x.to(device, dtype), Int8Weight(weight_codes(w, scale).to(torch.int8), scale, aside)


def in_float64(x, weight, bias=None):
    """X̂·Ŵᵀ + bias of quantised activations, and a bound on what float32 arithmetic adds to it.

    With u = 2⁻²⁴: the integer product P takes 3 roundings (to float32, times each scale); a correction d·Ŵ[:, c] takes
    the roundings of d = a − â (one on â, one on d) and two products; a kept scalar's term two. Each of the m terms
    added rounds the running sum, which is at most the sum S of all magnitudes. So |error| ≤ (4 + m)·u·(S + Σ|â·Ŵ|) to
    first order, and second-order terms are below a thousandth of it.
    """
    rows, tokens, inputs = x.codes.shape
    scale = x.scale.double().expand(rows, tokens, 1).cpu()
    codes = (x.codes.double().cpu() * scale).view(-1, inputs)
    exact = codes.clone()
    row = (x.where[0] * tokens + x.where[1]).cpu()
    exact[row, x.where[2].cpu()] = x.entries.double().cpu()
    integers = weight.codes.double().cpu() * weight.scale.double().cpu()
    full = integers.clone()
    for scalar in weight.kept:
        full[scalar.row, scalar.column] = scalar.value.double().cpu()
    expected, magnitude = exact @ full.T, (codes @ integers.T).abs()
    corrected = exact != codes
    magnitude += ((exact - codes).abs() + codes.abs() * corrected) @ integers.abs().T
    magnitude += exact.abs() @ (full - integers).abs().T
    most = int(corrected.sum(1).max()) + len(weight.kept)
    if bias is not None:
        expected, magnitude, most = expected + bias.double().cpu(), magnitude + bias.double().cpu().abs(), most + 1
    return expected, 1.001 * (4 + most) * UNIT * magnitude


def assert_within(got, expected, bound):
    assert (got.double().cpu().view_as(expected) - expected).abs().le(bound).all()


def test_needs_torch_alone():
    blocked = "import sys; sys.modules.update(dict.fromkeys(('pydantic', 'transformers', 'pandas', 'triton')))"
    code = f"{blocked}; import superweight.kernels.int8; assert 'superweight.cards' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("kept", [(), ((5, 13),), ((5, 13), (2, 13), (5, 7))])
@pytest.mark.parametrize("handled", [None, "massive", "largest"])
def test_product_of_random_layers_is_float64s_but_for_rounding(handled, kept):
    for seed, weights, activations in product(range(5), ("tensor", "channel"), ("tensor", "token")):
        x, weight = layer(seed=seed, kept=kept, granularity=weights)
        quantised = ActivationQuantiser(activations, handled, 50.0)(x)
        bias = torch.randn(43, generator=torch.Generator().manual_seed(seed))
        if handled == "massive":
            assert quantised.entries.tolist() == [-500.0, 800.0, 700.0]
        assert_within(weight.linear(quantised, bias), *in_float64(quantised, weight, bias))


def test_the_bound_sees_a_lost_correction():
    x, weight = layer(kept=((5, 13),))
    quantised = ActivationQuantiser("token", "massive", 50.0)(x)
    expected, bound = in_float64(quantised, weight)
    without = weight.linear(ActivationQuantiser("token")(x)).double().view_as(expected)
    lost = Int8Weight(weight.codes, weight.scale).linear(quantised).double().view_as(expected)
    assert ((without - expected).abs() > 1000 * bound)[3].any()  # token 3 holds two massive entries
    assert ((lost - expected).abs() > 1000 * bound)[[3, 17], 5].all()  # a kept scalar and a massive entry meet


def test_pieces_give_the_same_bits(monkeypatch):
    x, weight = layer(kept=((5, 13),))
    x = x.repeat(1, 40, 1)  # 720 rows, of which a piece is at least 64
    quantised = ActivationQuantiser("token", "massive", 5.0)(x)
    assert quantised.entries.numel() > 100
    whole = weight.linear(quantised)
    monkeypatch.setitem(int8._ACCUMULATOR_BYTES, "cpu", 1)
    assert torch.equal(weight.linear(quantised), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_cast_at_the_end(dtype):
    x, weight = layer()
    quantised = ActivationQuantiser("token", "massive", 50.0)(x)
    assert torch.equal(weight.linear(quantised, dtype=dtype), weight.linear(quantised).to(dtype))
    assert torch.equal(int8.linear(x, weight, ActivationQuantiser("token", "massive", 50.0)), weight.linear(quantised))


@pytest.mark.parametrize("granularity", ["tensor", "token"])
@pytest.mark.parametrize("handled", [None, "massive", "largest"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_simulation_decodes_to_the_bits_of_the_codes(granularity, handled, dtype):
    x, _ = layer(dtype=dtype, planted={**MASSIVE, **CROWD})
    x[1, 2] = 0
    x[1, 3] = x[1, 3] * 1e-40  # below the smallest normal float32, where a step has few bits
    quantiser = ActivationQuantiser(granularity, handled, 20.0)
    simulated, decoded = quantiser.simulate(x), quantiser(x).dequantised()
    assert torch.equal(simulated.view(torch.int32), decoded.view(torch.int32))


def test_a_scale_is_the_correctly_rounded_quotient():
    largest = torch.rand(1000, generator=torch.Generator().manual_seed(5)) * 10
    assert torch.equal(scale_of(largest), (largest.double() / 127).float())


def test_compiled_or_not_the_bits_are_the_same(monkeypatch):
    """On a machine without a compiler both are eager."""
    x, _ = layer()
    scale = scale_of(x.abs().amax(-1, keepdim=True))
    expected = encode.__wrapped__(x, scale), round_trip.__wrapped__(x, scale)
    monkeypatch.setenv("SUPERWEIGHT_COMPILE", "1")
    assert torch.equal(encode(x, scale), expected[0])
    assert torch.equal(round_trip(x, scale), expected[1])


def test_nothing_on_a_cpu_is_left_to_the_fused_kernels():
    assert not int8_fused.covers(torch.ones(20, 8), ActivationQuantiser("token", "massive"))


def check_fused(device, dtype, handled, kept, granularity, planted, accumulator_bytes):
    """The fused kernels against the CPU's codes and float64."""
    x, weight = layer(device, dtype=dtype, kept=kept, granularity=granularity, planted=planted)
    x = x.repeat(1, 20, 1)  # 360 rows
    quantiser = ActivationQuantiser("token", handled, 20.0)
    expected = quantiser(x.cpu())
    rows = int8_fused.quantise(x, quantiser)
    assert torch.equal(rows.codes[:360, :29].cpu(), expected.codes.flatten(0, 1))
    assert torch.equal(rows.scale.cpu(), expected.scale.flatten())
    bias = torch.randn(43, generator=torch.Generator().manual_seed(6)).to(device)
    scalars = [(scalar.row, scalar.column, scalar.value) for scalar in weight.kept]
    got = int8_fused.linear(
        x, weight.codes, weight.scale, scalars, quantiser, bias, torch.float32, accumulator_bytes=accumulator_bytes
    )
    assert_within(got, *in_float64(expected, weight, bias))


@pytest.mark.gpu
@on_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("handled", [None, "massive"])
@pytest.mark.parametrize("kept", [(), ((5, 13), (2, 13))])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("accumulator_bytes", [1, 1 << 25])
def test_fused_kernels_on_cuda(dtype, handled, kept, granularity, accumulator_bytes):
    assert int8_fused.covers(torch.ones(20, 8, device="cuda"), ActivationQuantiser("token", "massive"))
    for planted in ({}, MASSIVE, {**MASSIVE, **CROWD}):
        check_fused("cuda", dtype, handled, kept, granularity, planted, accumulator_bytes)


@pytest.mark.gpu
@on_cuda
def test_fused_kernels_do_not_hide_nan():
    x, weight = layer("cuda")
    x[1, 4, 5] = torch.nan
    y = int8.linear(x, weight, ActivationQuantiser("token", "massive"))
    assert y[1, 4].isnan().all()
    assert y[0].isfinite().all()


@pytest.mark.gpu
@on_cuda
def test_compiled_on_cuda_gives_the_bits_of_the_cpu(monkeypatch):
    x, _ = layer()
    scale = scale_of(x.abs().amax(-1, keepdim=True))
    expected = encode.__wrapped__(x, scale), round_trip.__wrapped__(x, scale)
    monkeypatch.setenv("SUPERWEIGHT_COMPILE", "1")
    assert torch.equal(encode(x.cuda(), scale.cuda()).cpu(), expected[0])
    assert torch.equal(round_trip(x.cuda(), scale.cuda()).cpu(), expected[1])
