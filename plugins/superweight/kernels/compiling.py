"""The one place that decides whether arithmetic is compiled, and that says in words what was used.

A function marked `fused` gives the same bits compiled and not, so it may change from one to the other between two
calls. Compiling costs seconds and then saves a fraction of a nanosecond an element; hence by default a function runs
eagerly until it has seen so many elements that compiling it would have paid. The environment variable
`SUPERWEIGHT_COMPILE` says otherwise:

- `auto` (as when it is not set): compile a function once it has been given `WORTHWHILE` elements.
- `1`: compile at the first call.
- `0`: never compile.

Where there is no compiler, or it fails, everything runs eagerly for good.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import os
import shutil
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

VARIABLE = "SUPERWEIGHT_COMPILE"

WORTHWHILE = {"cpu": 1 << 31, "cuda": 1 << 37}
"""Elements after which a function is compiled, by the kind of device.

On two cores, compiling took about 2.5 s a function the first time and 0.5 s from the disk cache, and saved some 0.5 ns
an element and function: it pays after one to five thousand million elements. The embedded model has 10^8, so it does
not pay for it. A GPU's eager form is some sixty times faster; its figure follows from that and was not measured.
"""

_BACKENDS = {"cpu": "C++", "cuda": "Triton"}

_OPTIONS = {
    "cpp.enable_floating_point_contract_flag": "off",  # a·b + c rounds twice, as eagerly
    "cpp.dynamic_threads": True,  # one kernel for any number of threads
    "emulate_precision_casts": True,  # no fused multiply-add, and casts where the source has them
    "eager_numerics.division_rounding": True,  # x / y is rounded as IEEE 754 says
    "eager_numerics.disable_ftz": True,  # denormals stay
}

_notes: dict[str, str] = {}  # what was used last, by the kind of device
_compiled: set[str] = set()  # kinds of device on which something has run compiled


def fused(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function of tensors into few passes over them, lazily and where it pays.

    The function must give the same bits either way: elementwise IEEE arithmetic in float32 or wider, least and largest
    elements, and sums that are exact in any order. One graph is compiled for all sizes, and another for each dtype,
    number of dimensions and device kind, and for dimensions of one element; so call it with few of those. It may write
    to its arguments. It runs without gradients.

    Args:
        function: takes at least one tensor; the first says on what device it runs.

    Returns:
        A function of the same signature; its `__wrapped__` is the eager one.
    """
    compiled: dict[str, Callable[P, R] | None] = {}  # by the kind of device; None once compiling has failed
    seen: dict[str, int] = {}

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        kind = tensors[0].device.type
        if kind not in compiled or os.environ.get(VARIABLE) == "0":
            seen[kind] = seen.get(kind, 0) + sum(tensor.numel() for tensor in tensors)
            reason = _why_eager(kind, seen[kind])
            if reason:
                _notes[kind] = f"eager: {reason}"
                with torch.no_grad():
                    return function(*args, **kwargs)
            compiled[kind] = _compile(function)
        with torch.no_grad():
            graph = compiled[kind]
            if graph is not None:
                try:
                    result = graph(*args, **kwargs)
                except torch.OutOfMemoryError:
                    raise
                except Exception as error:  # whatever the compiler raises; a mistake of the caller's is raised below
                    compiled[kind] = None
                    _notes[kind] = f"eager: compiling {function.__name__} failed ({_first_line(error)})"
                else:
                    _notes[kind] = f"compiled by inductor ({_BACKENDS[kind]})"
                    _compiled.add(kind)
                    return result
            return function(*args, **kwargs)

    return call


def how(kind: str = "cpu") -> str:
    """What the last fused function on a kind of device (`cpu`, `cuda`) used: `compiled by inductor (C++)`,
    `compiled by inductor (Triton)`, or `eager: ` and why.
    """
    return _notes.get(kind, "eager: nothing has run yet")


def compiled(kind: str = "cpu") -> bool:
    """Whether fused functions run compiled on a kind of device: one has, and nothing forbids it now."""
    return kind in _compiled and os.environ.get(VARIABLE) != "0"


def compiler(kind: str) -> str | None:
    """Why nothing can be compiled for a kind of device; None where it seems that it can be."""
    if kind not in _BACKENDS:
        return f"there is no compiler for {kind} here"
    if kind == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    return None if any(map(shutil.which, names)) else "no C++ compiler was found"


def _why_eager(kind: str, elements: int) -> str:
    """Why a function that has been given so many elements is not compiled; empty if it is to be."""
    wanted = os.environ.get(VARIABLE, "auto")
    if wanted not in ("0", "1", "auto"):
        raise ValueError(f"{VARIABLE} is {wanted!r}: expected 0, 1 or auto")
    if wanted == "0":
        return f"{VARIABLE}=0"
    missing = compiler(kind)
    if missing:
        return missing
    if wanted == "auto" and elements < WORTHWHILE[kind]:
        return "compiling does not pay for so little work"
    return ""


def _compile(function: Callable[P, R]) -> Callable[P, R]:
    from torch._inductor import list_options  # seconds, so not before it is needed

    known = set(list_options())
    options: dict[str, Any] = {name: value for name, value in _OPTIONS.items() if name in known}
    more: dict[str, Any] = {}
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        more["recompile_limit"] = 64  # a graph for each dtype in and out and so on; else eight
    compiled: Callable[P, R] = torch.compile(function, fullgraph=True, dynamic=True, options=options, **more)
    return compiled


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
