"""W8A8 in integers against the bf16 product: time, its parts, and the error against float64."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

import measuring
from gpu_sections import Findings, Setting
from superweight.kernels import int8, int8_fused
from superweight.kernels.activations import ActivationQuantiser, Quantised
from superweight.kernels.int8 import Int8Weight, KeptScalar

SHAPES = {  # inputs, outputs
    "7B up": (4096, 11008),
    "7B down": (11008, 4096),
    "Mistral up": (4096, 14336),
    "13B up": (5120, 13824),
}
TOKENS = (512, 2048, 8192)
SMALL_SHAPES = {"small": (192, 512), "odd": (100, 301)}
SMALL_TOKENS = (33, 128)

MASSIVE = 3000.0  # beside entries of about 1: far beyond 100 times their mean
UNIT = 2.0**-24  # of rounding, float32
WHOLE = 1 << 40  # bytes of sums at a time: all of them


@dataclass(frozen=True)
class Problem:
    """A layer and its input, with two massive entries and a kept super weight in the column of one of them."""

    x: torch.Tensor  # (tokens, in), bfloat16
    matrix: torch.Tensor  # (out, in), bfloat16
    weight: Int8Weight
    quantiser: ActivationQuantiser

    @property
    def massive_rows(self) -> tuple[int, int]:
        """The tokens with a massive entry."""
        return 0, len(self.x) // 2


def problem(tokens: int, inputs: int, outputs: int, device: str, seed: int = 0) -> Problem:
    """A random layer of that size."""
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.randn(tokens, inputs, generator=generator, device=device).bfloat16()
    matrix = torch.randn(outputs, inputs, generator=generator, device=device).mul_(0.02).bfloat16()
    x[0, inputs // 3], x[tokens // 2, inputs // 3] = MASSIVE, -MASSIVE
    row, column = outputs // 5, inputs // 3
    kept = KeptScalar(row, column, matrix.new_tensor(1.5))
    matrix[row, column] = 0
    scale = int8.weight_scale(matrix, "channel")
    weight = Int8Weight(int8.weight_codes(matrix, scale).to(torch.int8), scale, (kept,))
    matrix[row, column] = kept.value
    return Problem(x, matrix, weight, ActivationQuantiser("token", "massive"))


def section(setting: Setting) -> Findings:
    """Every shape at every number of tokens."""
    findings = Findings(figures={"layers": []})
    times, parts = [], []
    for name, (inputs, outputs) in (SMALL_SHAPES if setting.small else SHAPES).items():
        for tokens in SMALL_TOKENS if setting.small else TOKENS:
            one = problem(tokens, inputs, outputs, setting.device)
            found = _measure(one, setting)
            label = {"layer": name, "in": inputs, "out": outputs, "tokens": tokens}
            findings.figures["layers"].append({**label, **found})
            times.append({**label, **_row(found)})
            parts.append({**label, **_parts_row(found)})
            findings.checks[f"{name}, {tokens} tokens: within float32 rounding of float64"] = (
                found["error in bounds"] <= 1
            )
    findings.add_table(times)
    findings.add_table(parts)
    return findings


def _measure(one: Problem, setting: Setting) -> dict[str, Any]:
    tokens, inputs, outputs = *one.x.shape, len(one.matrix)
    inner = 1 if setting.small else max(2, 16384 // tokens)
    took = measuring.in_turn(
        {name: _times(call, inner) for name, call in {**_ways(one), **_parts(one)}.items()},
        repeats=3 if setting.small else 7,
        warmup=2,
        device=setting.device,
    )
    seconds = {name: statistics.median(each) / inner for name, each in took.items()}
    operations = 2 * tokens * inputs * outputs
    return {
        "seconds": seconds,
        "times bf16": {name: measuring.ratio(took, name, "bf16") for name in seconds if name != "bf16"},
        "share of int8 peak": {
            name: operations / seconds[name] / setting.ceilings["int8"] for name in ("W8A8", "multiply")
        },
        "bf16 share of peak": operations / seconds["bf16"] / setting.ceilings["bf16"],
        **accuracy(one),
    }


def _ways(one: Problem) -> dict[str, Callable[[], Any]]:
    """The whole layer, in several ways."""
    ways: dict[str, Callable[[], Any]] = {
        "bf16": lambda: functional.linear(one.x, one.matrix),
        "W8A8": lambda: int8.linear(one.x, one.weight, one.quantiser, None, torch.bfloat16),
        "eager": lambda: one.weight.linear(one.quantiser(one.x), None, torch.bfloat16),
    }
    if int8_fused.covers(one.x, one.quantiser):
        naive = ActivationQuantiser("token")
        ways["not handled"] = lambda: int8.linear(one.x, one.weight, naive, None, torch.bfloat16)
        ways["in one piece"] = lambda: _fused(one, WHOLE)
        ways["half pieces"] = lambda: _fused(one, int8_fused.ACCUMULATOR_BYTES // 2)
    return ways


def _fused(one: Problem, accumulator_bytes: int) -> torch.Tensor:
    kept = [(each.row, each.column, each.value) for each in one.weight.kept]
    codes, scale = one.weight.codes, one.weight.scale
    return int8_fused.linear(
        one.x, codes, scale, kept, one.quantiser, None, torch.bfloat16, accumulator_bytes=accumulator_bytes
    )


def _parts(one: Problem) -> dict[str, Callable[[], Any]]:
    """Quantise, multiply, finish: each alone, on all rows at once."""
    if not int8_fused.covers(one.x, one.quantiser):
        codes = one.quantiser(one.x).codes[0]
        return {
            "quantise": lambda: one.quantiser(one.x),
            "multiply": lambda: int8.int8_matmul(codes, one.weight.codes),
        }
    rows = int8_fused.quantise(one.x, one.quantiser)
    count, weights = len(one.x), one.weight.codes
    sums = torch.empty(count, len(weights), dtype=torch.int32, device=one.x.device)
    result = torch.empty(count, len(weights), dtype=torch.bfloat16, device=one.x.device)
    return {
        "quantise": lambda: int8_fused.quantise(one.x, one.quantiser),
        "multiply": lambda: int8_fused.multiply(rows, weights, sums, 0, count),
        "finish": lambda: int8_fused.finish(rows, weights, one.weight.scale, None, result, sums, 0, count),
    }


def _times(call: Callable[[], Any], inner: int) -> Callable[[], None]:
    """So many calls in a row, so that launching overlaps with running, as in a model."""

    def run() -> None:
        for _ in range(inner):
            call()

    return run


def accuracy(one: Problem, rows: int = 48) -> dict[str, float]:
    """The result's error on a sample of rows, which holds the massive ones.

    Returns:
        `error`: the largest against float64 arithmetic on the same quantised numbers, over the largest output;
        `error in bounds`: the largest over what float32 rounding can amount to there;
        `quantisation`: root mean square against the unquantised product in float64, over that of the product.
    """
    sample = torch.tensor(sorted({*one.massive_rows, *range(0, len(one.x), max(1, len(one.x) // rows))}))
    sample = sample.to(one.x.device)
    got = int8.linear(one.x, one.weight, one.quantiser, None, torch.float32)[sample].double()
    expected, bound = _reference(one.quantiser(one.x), one.weight, sample)
    plain = one.x[sample].double() @ one.matrix.double().T
    return {
        "error": float((got - expected).abs().max() / expected.abs().max()),
        "error in bounds": float(((got - expected).abs() / bound.clamp(min=1e-300)).max()),  # 0 of 0 is 0
        "quantisation": float((got - plain).square().mean().sqrt() / plain.square().mean().sqrt()),
    }


def _reference(x: Quantised, weight: Int8Weight, sample: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """X̂·Ŵᵀ in float64 for some rows, and a bound on what float32 rounding adds.

    Whatever is added is no larger than A = (|codes·scale| + |X̂|)·|Ŵ|ᵀ. A term takes at most four roundings, and each
    of m sums one more, so the error is at most (4 + m)·2⁻²⁴·A to first order; here m ≤ 2. Twice that leaves room for
    scales computed on another device.
    """
    rounded = x.codes[0].double() * x.scale[0].double()
    exact = rounded.clone()
    exact[x.where[1], x.where[2]] = x.entries.double()
    rounded, exact = rounded[sample], exact[sample]
    full = weight.codes.double() * weight.scale.double()
    for scalar in weight.kept:
        full[scalar.row, scalar.column] = scalar.value.double()
    return exact @ full.T, 2 * 6 * UNIT * ((rounded.abs() + exact.abs()) @ full.abs().T)


def _row(found: dict[str, Any]) -> dict[str, str]:
    times = {f"{name}/bf16": f"{value:.2f}" for name, value in found["times bf16"].items() if name not in _PARTS}
    return {
        **times,
        "of int8 peak": f"{found['share of int8 peak']['W8A8']:.0%}",
        "bf16 of peak": f"{found['bf16 share of peak']:.0%}",
        "max error": f"{found['error']:.1e}",
        "of its bound": f"{found['error in bounds']:.2f}",
        "quantisation": f"{found['quantisation']:.4f}",
    }


_PARTS = ("quantise", "multiply", "finish")


def _parts_row(found: dict[str, Any]) -> dict[str, str]:
    shares = {f"{name}/bf16": f"{found['times bf16'][name]:.2f}" for name in _PARTS if name in found["seconds"]}
    return {**shares, "product of int8 peak": f"{found['share of int8 peak']['multiply']:.0%}"}
