import pytest
import torch

from superweight.kernels.activations import ActivationQuantiser


def quantise(x, granularity, **options):
    return ActivationQuantiser(granularity, **options)(torch.tensor(x))


def test_per_token_by_hand():
    # token 0: scale 1.27/127 = 0.01; token 1: scale 254/127 = 2, so 3 → 1.5 → 2 (half to even), 5 → 2.5 → 2
    x = quantise([[1.27, -0.634, 0.005], [254.0, 3.0, 5.0]], "token")
    assert x.codes.tolist() == [[[127, -63, 0], [127, 2, 2]]]
    assert x.scale.flatten().tolist() == pytest.approx([0.01, 2.0])
    torch.testing.assert_close(x.dequantised(), torch.tensor([[1.27, -0.63, 0.0], [254.0, 4.0, 4.0]]))


def test_per_tensor_is_per_sequence():
    x = quantise([[[127.0, 1.0]], [[1.27, 1.0]]], "tensor")
    assert x.codes.tolist() == [[[127, 1]], [[127, 100]]]
    assert x.scale.shape == (2, 1, 1)


def test_a_sequence_is_quantised_alike_in_any_batch():
    x = torch.randn(3, 10, 8, generator=torch.Generator().manual_seed(2)) * torch.tensor([1.0, 50.0, 3.0]).view(3, 1, 1)
    quantiser = ActivationQuantiser("tensor", "massive", 5.0)
    together = quantiser(x).dequantised()
    for index in range(3):
        assert torch.equal(quantiser(x[index]).dequantised(), together[index])


def test_zeros_stay_zeros():
    x = quantise([[0.0, 0.0]], "token")
    assert x.dequantised().tolist() == [[0.0, 0.0]]


def spike():
    """Ten channels of 1, 2, 3, 4 … and one entry of 5000."""
    x = torch.arange(1.0, 41.0).view(4, 10)
    x[2, 7] = -5000.0
    return x


def test_massive_entry_by_hand():
    # mean |x| = (sum of 1…40 − 28 + 5000)/40 = 5792/40 = 144.8; 30 times that is 4344
    x = ActivationQuantiser("tensor", "massive", 30.0)(spike())
    assert x.where.tolist() == [[0], [2], [7]]
    assert x.entries.tolist() == [-5000.0]
    # token 2 is 21 … 30 with −5000 for 28: sorted −5000, 21, 22, 23, 24, 25, …: lower middle of ten is the fifth, 24
    assert x.scale.item() == pytest.approx(40 / 127)
    assert x.codes[0, 2, 7].item() == round(24 / (40 / 127))
    assert x.dequantised()[2, 7].item() == -5000.0
    assert x.differences().item() == pytest.approx(-5000 - round(24 / (40 / 127)) * 40 / 127)


def test_nothing_is_massive_beyond_the_ratio():
    assert ActivationQuantiser("tensor", "massive", 35.0)(spike()).entries.numel() == 0


@pytest.mark.parametrize(
    # channel 7 is 8, 18, −5000, 38: sorted −5000, 8, 18, 38, lower middle 8
    # all 40: −5000 first, then 1 … 40 without 28: the twentieth of them is 19
    ("replacement", "stand_in"),
    [("token", 24.0), ("channel", 8.0), ("tensor", 19.0)],
)
def test_median_axes_by_hand(replacement, stand_in):
    x = ActivationQuantiser("tensor", "massive", 30.0, replacement)(spike())
    assert x.codes[0, 2, 7].item() == round(stand_in / (40 / 127))


def test_largest_is_one_entry_of_each_scale():
    tensor = ActivationQuantiser("tensor", "largest")(torch.stack([spike(), -spike()]))
    assert tensor.where.tolist() == [[0, 1], [2, 2], [7, 7]]
    token = ActivationQuantiser("token", "largest")(spike())
    assert token.where.tolist() == [[0, 0, 0, 0], [0, 1, 2, 3], [9, 9, 7, 9]]
    assert token.entries.tolist() == [10.0, 20.0, -5000.0, 40.0]
    assert torch.equal(token.dequantised()[:, 9][[0, 1, 3]], torch.tensor([10.0, 20.0, 40.0]))


def test_handling_shrinks_the_error_of_everything_else():
    x = spike()
    naive = ActivationQuantiser("tensor")(x).dequantised() - x
    handled = ActivationQuantiser("tensor", "massive", 30.0)(x).dequantised() - x
    assert naive.abs().max() > 15  # half a step of 5000/127 = 39.4
    assert handled.abs().max() <= 40 / 127 / 2 + 1e-5


def test_half_precision_and_no_tokens():
    assert ActivationQuantiser("token", "massive")(torch.ones(2, 3, dtype=torch.bfloat16)).codes.eq(127).all()
    assert ActivationQuantiser("token", "largest")(torch.ones(0, 3)).dequantised().shape == (0, 3)
