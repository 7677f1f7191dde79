"""Rounding a weight to INT4 on the device, beside copying it and beside the same arithmetic written plainly."""

import math
import os
import statistics
from collections.abc import Callable
from typing import Any

import torch

import measuring
from gpu_sections import Findings, Setting
from superweight.kernels import compiling, rounding

BITS, GROUP = 4, 128


def section(setting: Setting) -> Findings:
    """Round-to-nearest, and clip-and-restore at z = 9, of a 4096 × 14336 matrix in groups of 128."""
    rows, columns = (256, 1024) if setting.small else (4096, 14336)
    matrix = torch.randn(rows, columns, device=setting.device).mul_(0.02).bfloat16()
    blocks = matrix.view(-1, GROUP)
    before = os.environ.get(compiling.VARIABLE)
    os.environ[compiling.VARIABLE] = "0" if setting.small else "1"
    try:
        took = measuring.in_turn(_ways(blocks), repeats=3 if setting.small else 9, warmup=2, device=setting.device)
    finally:
        os.environ.pop(compiling.VARIABLE)
        if before is not None:
            os.environ[compiling.VARIABLE] = before
    return _findings(took, blocks, setting)


def plain(blocks: torch.Tensor, z: float) -> torch.Tensor:
    """What `rounding.round_` does, one operation after the other."""
    x = blocks.float()
    if math.isfinite(z):
        magnitude = x.abs()
        threshold = magnitude.mean(-1, keepdim=True) + z * magnitude.std(-1, keepdim=True)
        x = torch.maximum(torch.minimum(x, threshold), -threshold)
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    step = (high - low) / (2**BITS - 1)
    rounded = torch.round((x - low) / torch.where(step == 0, 1.0, step)) * step + low
    return torch.where(step == 0, x, rounded).to(blocks.dtype)


def _ways(blocks: torch.Tensor) -> dict[str, Callable[[], Any]]:
    scratch = blocks.clone()
    kept = blocks[3, 5].clone()

    def clip_and_restore() -> None:
        rounding.round_(scratch, BITS, 9.0)
        scratch[3, 5] = kept

    return {
        "clone": blocks.clone,
        "rounded": lambda: rounding.round_(scratch, BITS),
        "rounded, plainly": lambda: plain(blocks, math.inf),
        "clipped and restored": clip_and_restore,
        "clipped, plainly": lambda: plain(blocks, 9.0),
    }


def _findings(took: dict[str, list[float]], blocks: torch.Tensor, setting: Setting) -> Findings:
    moved = 2 * blocks.numel() * blocks.element_size()  # bytes that must be read and written
    found = {
        name: {
            "seconds": statistics.median(each),
            "times clone": measuring.ratio(took, name, "clone"),
            "share of copy bandwidth": moved / statistics.median(each) / setting.ceilings["copy"],
        }
        for name, each in took.items()
    }
    findings = Findings(figures={"ran": compiling.how(setting.device), "ways": found})
    ours = blocks.clone()
    rounding.round_(ours, BITS)
    apart = (ours.float() - plain(blocks, math.inf).float()).abs().max()
    step = (blocks.float().amax() - blocks.float().amin()) / (2**BITS - 1)
    findings.checks["rounds as the plain arithmetic does, but for ties"] = bool(apart <= 1.01 * step)
    findings.add_table(
        [
            {
                "way": name,
                "time/clone": f"{each['times clone']:.1f}",
                "of copy bandwidth": f"{each['share of copy bandwidth']:.0%}",
            }
            for name, each in found.items()
        ]
    )
    return findings
