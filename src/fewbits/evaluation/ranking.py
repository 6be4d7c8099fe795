"""Ranks of a word among those that begin alike, after each letter of it, in a compiled loop over the scores."""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def nested_ranks(scores: Tensor, target: Tensor, runs: Tensor, order: Tensor, letters: Tensor, never: Tensor) -> Tensor:
    """Return how many other words have the target's score or more, (n, longest + 1), int32: among all, then by run.

    Each row of scores is read once, and once more where its words have the target's first letter; every thread that
    torch uses takes a part of the rows.

    Args:
        scores: (n, V) on the processor, float32 or float64.
        target: (n,) words.
        runs: (n, 2, longest + 1): the run of ``order``, begin and end, that is left after j letters, each within the
            one before.
        order: the words that count.
        letters: (n,) of each target; after the last one nothing changes.
        never: the words that do not count.
    """
    ranks = np.empty((len(target), runs.shape[2]), np.int32)
    per_row = [ranks, *(tensor.numpy() for tensor in (scores, target, runs, letters))]
    parts = torch.get_num_threads()
    cut = [np.array_split(rows, parts) for rows in per_row]
    with ThreadPoolExecutor(parts) as pool:
        for _ in pool.map(_count, *cut, *([words.numpy()] * parts for words in (order, never))):
            pass
    return torch.from_numpy(ranks)


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def _count(
    ranks: NDArray[np.int32],
    scores: NDArray[np.floating],
    target: NDArray[np.int64],
    runs: NDArray[np.int32],
    letters: NDArray[np.int64],
    order: NDArray[np.int64],
    never: NDArray[np.int64],
) -> None:
    for row in range(len(target)):
        own, ahead = scores[row, target[row]], np.int32(-1)  # the word itself does not count
        for score in scores[row]:
            ahead += np.int32(score >= own)
        for word in never:
            ahead -= np.int32(scores[row, word] >= own)
        ranks[row, 0], last = ahead, max(letters[row] - 1, 0)
        ahead, begin, end = np.int32(-1), runs[row, 0, last], runs[row, 0, last]
        for typed in range(last, 0, -1):  # from the innermost run outward, so that no score is looked at twice
            for place in range(runs[row, 0, typed], begin):
                ahead += np.int32(scores[row, order[place]] >= own)
            for place in range(end, runs[row, 1, typed]):
                ahead += np.int32(scores[row, order[place]] >= own)
            begin, end = runs[row, 0, typed], runs[row, 1, typed]
            ranks[row, typed] = ahead
        ranks[row, last:] = ranks[row, last]
