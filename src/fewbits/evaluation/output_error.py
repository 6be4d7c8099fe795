"""What a layer puts out wrongly when its weights are quantized, and the least of it that ternary weights allow."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.evaluation.perplexity import evaluating

Matrix = NDArray[np.float64]


def input_moments(
    model: nn.Module, layers: Iterable[str], images: Tensor, *, batch_size: int = 50
) -> dict[str, Tensor]:
    """Return C = mean of x xᵀ for each convolution: x are the P = I · kh · kw inputs that a filter is multiplied with.

    The mean is over all places of all ``images`` (N, C, H, W), padding included. What a filter w puts out has the mean
    square wᵀ C w, so that C holds all that is needed for output errors, and its diagonal, the mean square of the input
    of each weight, is the importance of Hwang and Sung (2014). The model is put into ``eval()`` and back.

    Args:
        model: in which the layers are.
        layers: names of ``nn.Conv2d`` in one group.
        images: what the model reads.
        batch_size: images a call; changes speed and memory, not the result but by rounding.

    Returns:
        (P, P), float64, for each layer by name.
    """
    sums: dict[str, Tensor] = {}
    places = dict.fromkeys(layers, 0)
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(partial(_gather, name=name, sums=sums, places=places))
        for name in places
    ]
    device = next(model.parameters()).device
    try:
        with evaluating(model), torch.no_grad():
            for batch in images.split(batch_size):
                model(batch.to(device))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: sums[name] / places[name] for name in places}


def _gather(layer: nn.Conv2d, inputs: Any, *, name: str, sums: dict[str, Tensor], places: dict[str, int]) -> None:
    geometry: tuple[Any, ...] = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    patches = F.unfold(inputs[0], *geometry).transpose(1, 2).flatten(0, 1)
    product = (patches.T @ patches).double()
    sums[name] = sums[name] + product if name in sums else product
    places[name] += len(patches)


def relative_error(weight: Tensor, quantized: Tensor, moments: Tensor | None = None) -> float:
    """Return Σ (w − q)ᵀ C (w − q) / Σ wᵀ C w over the filters: the share of the output's mean square that is wrong.

    Args:
        weight: (O, …), P numbers a filter.
        quantized: the same shape.
        moments: C, (P, P), of :func:`input_moments`, or a diagonal one as its P numbers; None is the identity, for the
            error of the weights themselves.

    Raises:
        FewbitsError: If the weights put out nothing but 0.

    >>> relative_error(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 3.0]]))                       # 1 / 25
    0.04
    """
    rows = _rows(weight)
    wrong, matrix = rows - _rows(quantized), _matrix(rows, moments)
    return float(np.sum(wrong @ matrix * wrong)) / _energy(rows, matrix)


def least_ternary_error(weight: Tensor, moments: Tensor | None = None) -> float:
    """Return the least :func:`relative_error` of −H, 0, +H over all thresholds on ``|w|``, each with its best H.

    Brute force: weights enter in the order of their size, one at a time. With signs t and E(a, b) = Σ aᵀ C b the best H
    is E(t, w) / E(t, t), and the error is 1 − E(t, w)² / (E(t, t) · E(w, w)). Where C is diagonal no ternary weights
    are better (w is kept where ``|w|`` > H / 2); else some that no threshold gives could be.

    Args:
        weight: as for :func:`relative_error`.
        moments: as for :func:`relative_error`.

    Raises:
        FewbitsError: If the weights put out nothing but 0.

    >>> round(least_ternary_error(torch.tensor([[3.0, 4.0, 0.0]])), 9)                  # H = 3.5: 2 · 0.5² / 25
    0.02
    """
    rows = _rows(weight)
    matrix = _matrix(rows, moments)
    towards, signs = rows @ matrix, np.sign(rows)
    seen = np.zeros_like(rows)  # t C
    along = across = most = 0.0  # E(t, w), E(t, t), and the most of E(t, w)² / E(t, t) so far
    for place in np.argsort(-np.abs(rows), axis=None, kind="stable"):
        row, column = divmod(int(place), rows.shape[1])
        sign = signs[row, column]
        along += sign * towards[row, column]
        across += sign * (2 * seen[row, column] + sign * matrix[column, column])
        seen[row] += sign * matrix[column]
        if across > 0:
            most = max(most, along * along / across)
    return float(1 - most / _energy(rows, matrix))


def _rows(filters: Tensor) -> Matrix:
    return filters.detach().double().flatten(1).cpu().numpy()


def _matrix(rows: Matrix, moments: Tensor | None) -> Matrix:
    if moments is None:
        return np.eye(rows.shape[1])
    found: Matrix = moments.double().cpu().numpy()
    return found if found.ndim == 2 else np.diag(found)


def _energy(rows: Matrix, matrix: Matrix) -> float:
    energy = float(np.sum(rows @ matrix * rows))
    if not energy > 0:
        raise FewbitsError("these weights put out nothing but 0, so no share of it is wrong; look at the inputs.")
    return energy
