"""Switches that change what the same code computes: environment variables that libraries read, and torch's own."""

from __future__ import annotations

import os
from typing import Any

import torch

_PREFIXES = (
    "ATEN_",
    "BLIS_",
    "CUBLAS_",
    "CUDNN_",
    "DNNL_",
    "KMP_",
    "MKL_",
    "NCCL_",
    "NVIDIA_TF32",
    "ONEDNN_",
    "OPENBLAS_",
    "PYTORCH_",
    "ROCBLAS_",
    "SUPERWEIGHT_",
    "TORCHINDUCTOR_",
    "TORCH_",
    "TRITON_",
    "VECLIB_",
    "XLA_",
)
_NO_MATTER = (
    "SUPERWEIGHT_CACHE",  # a place
    "SUPERWEIGHT_PROGRESS",  # a place
    "TORCH_HOME",  # a place
    "TORCHINDUCTOR_CACHE_DIR",  # a place
    "TRITON_CACHE_DIR",  # a place
    "TRITON_HOME",  # a place
    "PYTORCH_ALLOC_CONF",  # where memory comes from
    "PYTORCH_CUDA_ALLOC_CONF",  # likewise
    "TORCH_LOGS",  # what is told
    "TORCH_SHOW_CPP_STACKTRACES",  # likewise
    "TORCH_CPP_LOG_LEVEL",  # likewise
    "ONEDNN_VERBOSE",  # likewise
    "DNNL_VERBOSE",  # likewise
    "MKL_VERBOSE",  # likewise
    "KMP_WARNINGS",  # likewise
    "KMP_DUPLICATE_LIB_OK",  # whether two OpenMP libraries may be there; some packages set it when they are imported
    "KMP_INIT_AT_FORK",  # likewise
    "KMP_AFFINITY",  # on which cores
    "KMP_BLOCKTIME",  # how long they stay awake
    "MKL_NUM_THREADS",  # the threads that torch uses are in the key themselves
    "OPENBLAS_NUM_THREADS",  # likewise
    "BLIS_NUM_THREADS",  # likewise
    "VECLIB_MAXIMUM_THREADS",  # likewise
)
"""Variables with those prefixes that no figure depends on; whatever is not listed here is part of every key."""


def arithmetic_switches() -> dict[str, str]:
    """Every switch that is set, by name."""
    return {**_variables(), **_torch()}


def _variables() -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if name.startswith(_PREFIXES)}
    return {name: found[name] for name in sorted(found) if name not in _NO_MATTER}


def _torch() -> dict[str, str]:
    """Of this process, however they were set."""
    backends: Any = torch.backends
    found = {
        "float32 products": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "oneDNN": backends.mkldnn.enabled,
        "default dtype": torch.get_default_dtype(),
        "denormals": torch.tensor(1e-40).mul(1.0).item() != 0.0,
    }
    if torch.cuda.is_available():
        found |= {
            "TF32 products": backends.cuda.matmul.allow_tf32,
            "TF32 convolutions": backends.cudnn.allow_tf32,
            "float16 sums": backends.cuda.matmul.allow_fp16_reduced_precision_reduction,
            "bfloat16 sums": backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
            "flash attention": backends.cuda.flash_sdp_enabled(),
            "memory-efficient attention": backends.cuda.mem_efficient_sdp_enabled(),
            "plain attention": backends.cuda.math_sdp_enabled(),
            "cuDNN attention": backends.cuda.cudnn_sdp_enabled(),
        }
    return {f"torch: {name}": str(value) for name, value in found.items()}
