"""A long text as parallel columns."""

from torch import Tensor

from fewbits.errors import FewbitsError


def contiguous(tokens: Tensor, batch_size: int) -> Tensor:
    """Return ``tokens`` (n,) as (steps, batch): column b is the b-th of ``batch_size`` equal stretches of the text.

    steps = n // batch_size; the n % batch_size tokens at the end are dropped. The type of the numbers is kept.

    Raises:
        FewbitsError: If ``batch_size`` is below 1, or a column would have fewer than two tokens, so nothing to predict.

    >>> import torch
    >>> contiguous(torch.arange(7), 2).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    if batch_size < 1 or len(tokens) < 2 * batch_size:
        raise FewbitsError(
            f"{len(tokens):,} tokens cannot be cut into {batch_size} columns of two tokens or more. "
            f"Choose a batch size from 1 to {len(tokens) // 2:,}."
        )
    steps = len(tokens) // batch_size
    return tokens[: steps * batch_size].view(batch_size, steps).t().contiguous()
