"""The versions and the machine that figures depend on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = ("torch", "transformers", "safetensors", "lm-eval", "datasets", "optimum", "pytest-superweight")


def environment(device: torch.device) -> dict[str, str]:
    """Library versions and the device, for the evidence and for cell keys."""
    found = dict(versions())
    found["device"] = _device_name(device)
    found["device class"] = device_class(device)
    if device.type == "cuda":
        found["cuda"] = str(torch.version.cuda)
    else:
        found["threads"] = str(torch.get_num_threads())
    return found


def versions() -> dict[str, str]:
    """Versions of the libraries that figures depend on, those that are installed."""
    return {name: value for name in _PACKAGES if (value := _version(name))}


def default_device(worker: int = 0) -> str:
    """CUDA where there is one; the worker's own, in turn, where there are several."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count > 1:
        return f"cuda:{worker % count}"
    return "cuda" if count else "cpu"


def share_cores(processes: int) -> None:
    """Leave each of several busy processes its share of the cores, since threads that outnumber them only wait."""
    if processes > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))


def device_class(device: torch.device) -> str:
    """What figures are comparable within: the CPU's instruction set, or the GPU's name."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"{device.type} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_name()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
