"""Products by oneDNN: the same to float32 rounding, and only where they were asked for."""

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from superweight.kernels.onednn import differ, onednn_products

CPU = torch.device("cpu")
here = pytest.mark.skipif(not differ(torch.float32, CPU), reason="torch's own products are all there is here")


class _Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@here
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(5, 33), (2, 3, 33), (1, 33)])
@torch.inference_mode()
def test_products_are_those_of_float64(shape, bias):
    x, weight = torch.randn(shape), torch.randn(17, 33)
    added = torch.randn(17) if bias else None
    expected = functional.linear(x.double(), weight.double(), None if added is None else added.double())
    with onednn_products(torch.float32, CPU), _Seen() as seen:
        found = functional.linear(x, weight, added)
    assert any("mkldnn" in name for name in seen.names)
    bound = 33 * 2**-24 * (x.abs().double() @ weight.abs().double().T + (0 if added is None else added.abs()))
    assert bool(((found.double() - expected).abs() <= bound).all())


@here
def test_only_float32_products_without_gradients_are_handed_over():
    x, weight = torch.randn(4, 8), torch.randn(3, 8)
    with onednn_products(torch.float32, CPU), _Seen() as seen:
        functional.linear(x, weight)  # gradients may be wanted
        with torch.inference_mode():
            functional.linear(x.bfloat16(), weight.bfloat16())
            functional.linear(x[:0], weight)
            functional.linear(x, torch.randn(8, 3).T)
            with torch.autocast("cpu", torch.bfloat16):
                functional.linear(x, weight)
    assert not any("mkldnn" in name for name in seen.names)


def test_nothing_changes_for_other_dtypes_and_devices():
    assert not differ(torch.bfloat16, CPU)
    assert not differ(torch.float32, torch.device("meta"))
