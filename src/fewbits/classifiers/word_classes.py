"""Which words share a class: by frequency, or by the likeness of their vectors."""

import math
import warnings

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from fewbits.classifiers.word_order import most_frequent_first
from fewbits.errors import FewbitsError


def frequency_classes(counts: Tensor, classes: int | None = None) -> Tensor:
    """Return a class for each word, (V,) int64: words in the order of frequency, cut into classes of equal size.

    Equal size bounds the cost of every word: ⌈V / C⌉ outputs. Classes of equal mass (the frequency bins of Mikolov et
    al. 2011) cost the same V / C on average over text, Σ_c (1/C)·size_c, but their last class holds most of the
    vocabulary. The most frequent words are together, so that the targets of a batch fall into few classes.

    Args:
        counts: (V,) how often each word occurs; zeros are allowed and come last.
        classes: C, or None for ⌈√V⌉. The sizes differ by at most one.

    Raises:
        FewbitsError: If counts are not as said or C is not from 1 to V.

    >>> frequency_classes(torch.tensor([5, 1, 9, 0, 2]), classes=2).tolist()     # 9 5 2 | 1 0
    [0, 1, 0, 1, 0]
    """
    order = most_frequent_first(counts)
    number = _number_of_classes(classes, len(counts))
    assignment = torch.empty(len(counts), dtype=torch.int64, device=counts.device)
    assignment[order] = torch.arange(len(counts), device=counts.device) * number // len(counts)
    return assignment


def cluster_classes(vectors: Tensor, classes: int | None = None, *, seed: int = 0, iterations: int = 10) -> Tensor:
    """Return a class for each word, (V,) int64: clusters of its vectors (k-means), none above ⌈V / C⌉ words.

    k-means leaves clusters of very unequal size, and the cost of a word is the size of its class. So its centres are
    kept and words are given out anew: in rounds, each word asks for the nearest centre that has room, and a centre
    takes the nearest of those who ask. A class that nobody asks for stays empty, and its number is not used.

    Args:
        vectors: (V, D) one vector for each word, of an embedding for example.
        classes: C, or None for ⌈√V⌉.
        seed: of the choice of the first centres.
        iterations: of k-means.

    Raises:
        FewbitsError: If vectors are not finite in float32 or not as said, or C is not from 1 to V.

    >>> cluster_classes(torch.tensor([[0.0], [5.0], [0.1], [5.1], [0.2], [5.2]]), classes=2).tolist()
    [0, 1, 0, 1, 0, 1]
    """
    if vectors.dim() != 2 or not vectors.numel() or not bool(vectors.float().isfinite().all()):
        raise FewbitsError(
            f"vectors of shape {tuple(vectors.shape)} were given; one finite vector for each word, (V, D), is expected."
        )
    number = _number_of_classes(classes, len(vectors))
    points = vectors.detach().cpu().double().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster: it keeps its centre, and may get words below
        centres, _ = kmeans2(points, number, iter=iterations, minit="points", rng=np.random.default_rng(seed))
    return _balanced(points, centres, -(-len(points) // number)).to(vectors.device)


def _number_of_classes(classes: int | None, words: int) -> int:
    number = math.isqrt(words - 1) + 1 if classes is None else classes
    if not 1 <= number <= words:
        raise FewbitsError(f"{number} classes were asked for, but {words} words make 1 to {words}.")
    return number


def _balanced(points: np.ndarray, centres: np.ndarray, capacity: int) -> Tensor:
    """Give every point the nearest centre that has room."""
    distance = (centres**2).sum(1) - 2 * points @ centres.T  # less |point|², which no comparison here needs
    assignment, room = np.full(len(points), -1), np.full(len(centres), capacity)
    while len(waiting := np.flatnonzero(assignment < 0)):
        asked = distance[waiting].argmin(1)
        for centre in np.unique(asked):
            asking = waiting[asked == centre]
            nearest = asking[np.argsort(_from(points[asking], centres[centre]), kind="stable")][: room[centre]]
            assignment[nearest] = centre
            room[centre] -= len(nearest)
        distance[:, room == 0] = np.inf
    return torch.from_numpy(assignment)


def _from(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    squared: np.ndarray = ((points - centre) ** 2).sum(1)
    return squared
