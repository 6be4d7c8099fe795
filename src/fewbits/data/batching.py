"""A long text as parallel columns, read window by window."""

from collections.abc import Iterator

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


def bptt_windows(batched: Tensor, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and targets, views of shape (length, batch), for truncated backpropagation through time.

    targets[t] = the token after inputs[t] in the same column. A window starts where the one before it ended, so the
    state can be carried, and every token but the first of a column is a target exactly once. The last window may be
    shorter. A loss that wants int64 targets needs ``.long()``.

    Raises:
        FewbitsError: If ``length`` is below 1.

    >>> import torch
    >>> [(x.tolist(), y.tolist()) for x, y in bptt_windows(torch.arange(4).view(4, 1), 2)]
    [([[0], [1]], [[1], [2]]), ([[2]], [[3]])]
    """
    if length < 1:
        raise FewbitsError(f"a window of {length} steps holds nothing. Choose a length of 1 or more.")
    for start in range(0, len(batched) - 1, length):
        stop = min(start + length, len(batched) - 1)
        yield batched[start:stop], batched[start + 1 : stop + 1]
