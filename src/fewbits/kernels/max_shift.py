"""The max-shift loss without storing the logits, and with a gradient of two words a row."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fewbits.errors import FewbitsError
from fewbits.kernels.precision import at_least_float32

#: Logits in work at a time: 8 MiB of float32, so that they are still in a cache when they are read.
_LOGITS_IN_WORK = 2**21
_ROWS_IN_WORK = 1024
#: Blocks are a multiple of this many words: rows that begin off a cache line make the product half as slow again.
_ALIGNED = 64


def max_shift_loss(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
    """Return the mean of max_w z_w − z_target over all rows, z = W h + b: the loss of max-shift with b = 0.

    One matrix product, made in blocks of words; each block is read once for its maxima and then overwritten. Let w* be
    the highest word of a row, the first one of a tie. The subgradient is (e_w* − e_target) / N: nothing where greedy
    decoding gives the target, else two words. So dL/dh = (W[w*] − W[target]) / N, and only the rows w* and target of
    dL/dW are not zero. That is the multiclass perceptron (Crammer and Singer 2003).

    Under autocast the product is taken in its type. The loss and the sums over rows are float32 for half-precision
    types. The gradient of ``weight`` is dense, as every optimizer takes it: filling it with zeros is little beside the
    product.

    Edge cases: no rows give NaN, as the mean of nothing. A score of NaN makes the loss NaN; a target of −inf below a
    finite maximum, or a maximum of +inf above a finite target, makes it inf; target and maximum both infinite and equal
    make it NaN. Gradients mean nothing where the loss is not finite.

    >>> hidden, weight = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 1.5]])
    >>> (hidden @ weight.T).tolist(), max_shift_loss(hidden, weight, None, torch.tensor([1])).item()
    ([[3.0, 2.0, 4.0]], 2.0)

    Args:
        hidden: h, (…, H).
        weight: W, (V, H), V ≥ 1.
        bias: b, (V,), or None.
        target: word numbers, (…), int64.

    Raises:
        FewbitsError: If shapes do not fit or a target is no word.
    """
    if hidden.dim() == 0 or weight.dim() != 2 or hidden.shape[-1] != weight.shape[1]:
        raise FewbitsError(f"hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)} must be (…, H) and (V, H).")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise FewbitsError(
            f"bias is {tuple(bias.shape)}; weight {tuple(weight.shape)} needs {tuple(weight.shape[:1])}."
        )
    _check_target(target, hidden.shape[:-1], len(weight))
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        cast = torch.get_autocast_dtype(kind)
        hidden, weight = hidden.to(cast), weight.to(cast)
        bias = None if bias is None else bias.to(cast)
    rows = hidden.reshape(-1, hidden.shape[-1])
    loss: Tensor = _FusedLoss.apply(rows, weight, bias, target.reshape(-1))
    return loss


def max_shift_loss_of_logits(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean of max_w z_w − z_target over all rows of given logits, (…, V), reading them once.

    Subgradient, types and edge cases are those of `max_shift_loss`; the highest word is looked for in the backward
    pass only.

    >>> max_shift_loss_of_logits(torch.tensor([[3.0, 2.0, 4.0], [1.0, 0.0, 0.0]]), torch.tensor([1, 0])).item()
    1.0

    Raises:
        FewbitsError: If shapes do not fit, there is no word, or a target is no word.
    """
    if logits.dim() == 0:
        raise FewbitsError("logits must be (…, V), they are a single number.")
    _check_target(target, logits.shape[:-1], logits.shape[-1])
    loss: Tensor = _LossOfLogits.apply(logits.reshape(-1, logits.shape[-1]), target.reshape(-1))
    return loss


def _check_target(target: Tensor, shape: torch.Size, words: int) -> None:
    if words == 0:
        raise FewbitsError("there are no words; a loss needs at least one.")
    if target.shape != shape or target.dtype != torch.int64:
        raise FewbitsError(f"target is {tuple(target.shape)} of {target.dtype}; {tuple(shape)} of int64 is needed.")
    if target.numel() and not (int(target.min()) >= 0 and int(target.max()) < words):
        low, high = int(target.min()), int(target.max())
        raise FewbitsError(f"targets run from {low} to {high}; word numbers run from 0 to {words - 1}.")


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
        blocks = [slice(row, row + _ROWS_IN_WORK) for row in range(0, len(hidden), _ROWS_IN_WORK)]
        found = [_best_words(hidden[rows], weight, bias, target[rows]) for rows in blocks]
        best = torch.cat([target[:0], *(words for words, _ in found)])
        ctx.save_for_backward(hidden, weight, best, target)
        return torch.cat([at_least_float32(hidden).new_empty(0), *(margin for _, margin in found)]).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        hidden, weight, best, target = ctx.saved_tensors
        wrong = (best != target).nonzero().squeeze(1)
        ours, theirs = best[wrong], target[wrong]
        step = grad / max(len(hidden), 1)
        of_hidden = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            difference = at_least_float32(weight[ours]) - at_least_float32(weight[theirs])
            of_hidden = torch.zeros_like(hidden).index_copy_(0, wrong, (difference * step).to(hidden.dtype))
        words, places = torch.cat([ours, theirs]).unique(return_inverse=True)
        if ctx.needs_input_grad[1]:
            signed = at_least_float32(hidden[wrong]) * step
            summed = signed.new_zeros(len(words), hidden.shape[1]).index_add_(0, places, torch.cat([signed, -signed]))
            of_weight = _placed(summed.to(weight.dtype), words, weight)
        if ctx.needs_input_grad[2]:
            counts = torch.ones_like(ours)
            counts = torch.zeros_like(words).index_add_(0, places, torch.cat([counts, -counts]))
            of_bias = _placed((counts * step).to(weight.dtype), words, weight[:, 0])
        return of_hidden, of_weight, of_bias, None


class _LossOfLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(logits, target)
        own = logits.gather(1, target[:, None]).squeeze(1)
        return (at_least_float32(logits.amax(1)) - at_least_float32(own)).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, target = ctx.saved_tensors
        best = logits.argmax(1)
        wrong = (best != target).nonzero().squeeze(1)
        step = (grad / max(len(logits), 1)).to(logits.dtype)
        of_logits = torch.zeros_like(logits)
        of_logits[wrong, best[wrong]] = step
        of_logits[wrong, target[wrong]] = -step
        return of_logits, None


def _best_words(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the highest word of each row, the first one of a tie, and max z − z_target."""
    rows, words = len(hidden), len(weight)
    width = max(1, _LOGITS_IN_WORK // rows)
    width = min(words, width // _ALIGNED * _ALIGNED or width)
    space = hidden.new_empty(rows * width)
    best = torch.zeros_like(target)
    highest = hidden.new_full((rows,), -torch.inf)
    own = torch.empty_like(highest)
    for first in range(0, words, width):
        block = weight[first : first + width]
        logits = space[: rows * len(block)].view(rows, len(block))
        if bias is None:
            torch.mm(hidden, block.t(), out=logits)
        else:
            torch.addmm(bias[first : first + width], hidden, block.t(), out=logits)
        top = logits.amax(1)  # several times faster than max and argmax together, which few rows then need
        moved = (top > highest).nonzero().squeeze(1)
        best[moved] = first + logits[moved].argmax(1)
        highest = torch.maximum(highest, top)
        here = ((target >= first) & (target < first + len(block))).nonzero().squeeze(1)
        own[here] = logits[here, target[here] - first]
    return best, at_least_float32(highest) - at_least_float32(own)


def _placed(values: Tensor, words: Tensor, like: Tensor) -> Tensor:
    """Return a tensor like ``like`` that holds ``values`` in the rows ``words`` and zeros elsewhere."""
    return torch.zeros(like.shape, dtype=like.dtype, device=like.device).index_copy_(0, words, values)
