"""What is read from logits against the plain formulas in float64."""

import math

import pytest
import torch

from superweight.kernels.logits import Workspace, divergence_, first_of_largest, log_probabilities_

ROWS, VOCABULARY = 7, 200


@pytest.fixture(params=[1.0, 30.0], ids=["flat", "peaked"])
def logits(request):
    generator = torch.Generator().manual_seed(3)
    return [request.param * torch.randn(ROWS, VOCABULARY, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_log_probabilities_are_torchs_own_to_the_bit(rows):
    logits = 5 * torch.randn(rows, 5000, generator=torch.Generator().manual_seed(1))
    expected = torch.log_softmax(logits, -1)
    found = log_probabilities_(logits)
    assert torch.equal(found, expected)
    assert found.data_ptr() == logits.data_ptr()


def test_divergence(logits):
    theirs, ours = logits[0], logits[0] + logits[1]
    p, q = theirs.double().log_softmax(-1), ours.double().log_softmax(-1)
    found = divergence_(p.float(), q.float())
    assert found.tolist() == pytest.approx((p.exp() * (p - q)).sum(-1).tolist(), rel=2e-6)


def test_small_divergences_are_kept(logits):
    theirs, ours = logits[0], logits[0] + 1e-3 * logits[1]
    p, q = theirs.double().log_softmax(-1), ours.double().log_softmax(-1)
    found = divergence_(p.float(), q.float())
    assert found.tolist() == pytest.approx((p.exp() * (p - q)).sum(-1).tolist(), abs=1e-6)


def test_a_model_does_not_diverge_from_itself(logits):
    log_p = logits[0].log_softmax(-1)
    assert divergence_(log_p.clone(), log_p).tolist() == [0.0] * ROWS


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_broken_logits_give_an_infinite_divergence(logits, broken):
    spoilt = logits[0].clone()
    spoilt[2, 150] = broken
    for pair in ((spoilt, logits[0]), (logits[0], spoilt)):
        apart = divergence_(*(each.log_softmax(-1) for each in pair))
        assert [math.isinf(each) for each in apart.tolist()] == [row == 2 for row in range(ROWS)]


@pytest.mark.parametrize("count", [1, 63, 64, 200, 256])
def test_of_equal_largest_values_the_first_counts(count):
    values = torch.randint(0, 4, (50, count), generator=torch.Generator().manual_seed(1)).float()
    assert first_of_largest(values).tolist() == [row.index(max(row)) for row in values.tolist()]


def test_memory_is_used_again():
    memory, cpu = Workspace(), torch.device("cpu")
    first = memory.take("a", 3, 8, cpu)
    assert memory.take("a", 8, 2, cpu).data_ptr() == first.data_ptr()
    assert memory.take("b", 3, 8, cpu).data_ptr() != first.data_ptr()
    with torch.inference_mode():
        assert not memory.take("c", 4, 1, cpu).is_inference()
