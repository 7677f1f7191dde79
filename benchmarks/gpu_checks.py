"""Whether a device gives what a CPU gives, and what float64 gives: no times."""

import math
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import torch

from gpu_evaluation import SMALL, compare, mistral, multiple_choice
from gpu_sections import Findings, Setting
from gpu_w8a8 import accuracy, problem
from superweight.kernels import activations, compiling, int8, int8_fused, rounding
from superweight.kernels.activations import ActivationQuantiser


def section(setting: Setting) -> Findings:
    """All checks."""
    findings = Findings()
    for check in (odd_products, integer_paths, crowded_tokens, compiled_arithmetic, scoring):
        findings.checks.update(check(setting))
    findings.figures["fused arithmetic ran"] = compiling.how(setting.device)
    findings.figures["W8A8 ran"] = "in fused kernels" if _fused(setting) else "in plain torch"
    findings.add_table([{"what": name, "how": how} for name, how in findings.figures.items()])
    return findings


def odd_products(setting: Setting) -> dict[str, bool]:
    """`_int_mm` takes few shapes: the others are padded."""
    found = {}
    for m, k, n in ((1, 8, 8), (17, 24, 40), (3, 5, 7), (33, 133, 9), (129, 64, 250)):
        a, b = _integers(m, k, seed=m), _integers(n, k, seed=n)
        got = int8.int8_matmul(a.to(setting.device), b.to(setting.device)).cpu()
        found[f"integer product {m} × {k} × {n} is exact"] = torch.equal(got.long(), a.long() @ b.long().T)
    return found


def integer_paths(setting: Setting) -> dict[str, bool]:
    """Codes equal the CPU's, and the result is float64's but for float32 rounding, whatever is asked for."""
    found = {}
    for granularity, handled, tokens in product(("token", "tensor"), (None, "massive", "largest"), (1, 37)):
        one = replace(problem(tokens, 100, 301, setting.device), quantiser=ActivationQuantiser(granularity, handled))
        name = f"W8A8 per {granularity}, {handled or 'not'} handled, {tokens} tokens"
        ours, theirs = one.quantiser(one.x), one.quantiser(one.x.cpu())
        found[f"{name}: codes of the CPU"] = torch.equal(ours.codes.cpu(), theirs.codes)
        found[f"{name}: in bounds"] = accuracy(one)["error in bounds"] <= 1
        if int8_fused.covers(one.x, one.quantiser):
            rows = int8_fused.quantise(one.x, one.quantiser)
            same = torch.equal(rows.codes[:tokens, :100].cpu(), theirs.codes[0])
            same &= torch.equal(rows.scale.cpu(), theirs.scale.flatten())
            found[f"{name}: fused codes and scales of the CPU"] = same
    return found


def crowded_tokens(setting: Setting) -> dict[str, bool]:
    """More massive entries in a token than are noted; and NaN is not hidden."""
    one = problem(64, 2048, 96, setting.device)
    one.x[5, 7 : 7 + int8_fused.SLOTS + 3] = 900.0
    one.x[6, 7 : 7 + int8_fused.SLOTS] = -900.0
    count = one.quantiser(one.x).entries.numel()
    broken = one.x.clone()
    broken[9, 3] = math.nan
    lost = int8.linear(broken, one.weight, one.quantiser)
    return {
        "crowded tokens: all entries found": count == 2 + 2 * int8_fused.SLOTS + 3,
        "crowded tokens: in bounds": accuracy(one, rows=64)["error in bounds"] <= 1,
        "NaN stays NaN, in its token alone": bool(lost[9].isnan().all()) and bool(lost[:9].isfinite().all()),
    }


def compiled_arithmetic(setting: Setting) -> dict[str, bool]:
    """What is compiled for the device gives the bits of the CPU's eager arithmetic."""
    cases: dict[str, Callable[[str], torch.Tensor]] = {}
    for dtype, z in ((torch.bfloat16, 3.0),) if setting.small else product(_DTYPES, (math.inf, 9.0)):
        cases[f"rounding {dtype} at z = {z}"] = lambda device, dtype=dtype, z=z: _rounded(dtype, z, device)
    cases["activations encoded"] = lambda device: activations.encode(*_activations(device))
    cases["activations simulated"] = lambda device: activations.round_trip(*_activations(device))
    with _compiling("0"):
        expected = {name: case("cpu") for name, case in cases.items()}
    with _compiling("1"):
        return {f"{name}: bits of the CPU": _same(case(setting.device), expected[name]) for name, case in cases.items()}


def scoring(setting: Setting) -> dict[str, bool]:
    """A small model in float32 on the device: log-likelihoods of packed rows are those of plain ones."""
    model = mistral(setting.device, SMALL, torch.float32)
    windows = torch.randint(SMALL["vocab_size"], (2, 64), generator=torch.Generator().manual_seed(1))
    sets = {"small model": multiple_choice(6, SMALL["vocab_size"], shared=40)}
    return compare(model, replace(setting, small=True), sets, windows).checks


_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


class _compiling:  # noqa: N801  (a context manager)
    """Set whether fused functions are compiled."""

    def __init__(self, value: str) -> None:
        self.value, self.before = value, os.environ.get(compiling.VARIABLE)

    def __enter__(self) -> None:
        os.environ[compiling.VARIABLE] = self.value

    def __exit__(self, *_: Any) -> None:
        if self.before is None:
            del os.environ[compiling.VARIABLE]
        else:
            os.environ[compiling.VARIABLE] = self.before


def _rounded(dtype: torch.dtype, z: float, device: str) -> torch.Tensor:
    blocks = torch.randn(384, 128, generator=torch.Generator().manual_seed(3)).to(dtype)
    blocks[5, 9], blocks[7] = 90.0, 0.5  # an outlier, and a block whose ends meet
    blocks = blocks.to(device)
    rounding.round_(blocks, 4, z)
    return blocks


def _activations(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(2, 65, 96, generator=torch.Generator().manual_seed(4))
    x[0, 3] = 0
    return x.to(device), activations.scale_of(x.abs().amax(-1, keepdim=True)).to(device)


def _same(got: torch.Tensor, expected: torch.Tensor) -> bool:
    """Every bit, signs of zeros included."""
    return torch.equal(got.cpu().view(torch.uint8), expected.view(torch.uint8))


def _integers(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randint(-127, 128, (rows, columns), dtype=torch.int8, generator=torch.Generator().manual_seed(seed))


def _fused(setting: Setting) -> bool:
    return int8_fused.covers(torch.ones(1, 8, device=setting.device), ActivationQuantiser("token", "massive"))
