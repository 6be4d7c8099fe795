"""Float32 matrix products by the faster of PyTorch's two libraries."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

_ALLOWED = "bf16"  #: oneDNN takes float32 products only where it may round their factors to bfloat16


@contextmanager
def large_products(wanted: bool = True) -> Iterator[None]:
    """While this is open, let oneDNN compute float32 products on the processor, where that costs no accuracy.

    PyTorch gives float32 products to MKL, which leaves AVX-512 unused on AMD's processors, and to oneDNN only with the
    permission to round. oneDNN makes use of it where a processor has tiles for bfloat16 (AMX), and computes in float32
    elsewhere. So the permission is given where a product shows that it is not used. Products as large as those with an
    output layer take about half the time then; many small ones, as in attention, take longer.
    """
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    if wanted and torch.backends.mkldnn.is_available() and _stays_float32():
        matmul.fp32_precision = _ALLOWED
    try:
        yield
    finally:
        matmul.fp32_precision = before


@cache
def _stays_float32() -> bool:
    """Tell whether products with the permission are as near to those in float64 as float32 is."""
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    random = torch.Generator().manual_seed(0)
    left, right = (torch.randn(512, 512, generator=random) for _ in range(2))
    exact = left.double() @ right.double()
    matmul.fp32_precision = _ALLOWED
    try:
        error = (left @ right - exact).abs().max() / exact.abs().max()
    finally:
        matmul.fp32_precision = before
    return bool(error < 1e-5)  # bfloat16 has 2e-3
