"""The least precision in which probabilities and sums over many rows are computed."""

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Return ``values`` in float32 if they are narrower (half precision under autocast), else as they are.

    >>> [at_least_float32(torch.ones(1, dtype=d)).dtype for d in (torch.bfloat16, torch.float64)]
    [torch.float32, torch.float64]
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))
