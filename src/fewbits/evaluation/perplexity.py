"""Perplexity over every token of a text."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.models.language_model import LanguageModel


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into ``eval()`` for a while; then give every module its own mode back, also after an error."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def mean_nll(model: LanguageModel, tokens: Tensor, *, first: int, streams: int = 20, length: int = 70) -> float:
    """Return the mean −log p of all N tokens in nats, each predicted once, from all tokens before it in its stream.

    The text is cut into ``streams`` consecutive parts that are read side by side with the state carried along; each
    part starts from a zero state and the token before it, the first from ``first`` (``<eos>``). So ``streams`` − 1
    tokens see one word of context instead of many. The model is put into ``eval()`` and back.

    Raises:
        FewbitsError: If there are no tokens.

    Args:
        model: the language model; dropout is off and quantizers are deterministic here.
        tokens: (N,) token numbers.
        first: the token that the text follows.
        streams: parts read side by side.
        length: tokens a call; changes speed and memory, not the result.
    """
    if not len(tokens):
        raise FewbitsError("the text has no tokens, so it has no perplexity; give at least one.")
    device = next(model.parameters()).device
    streams = max(1, min(streams, len(tokens)))
    steps = -(-len(tokens) // streams)
    padding = steps * streams - len(tokens)
    inputs = torch.cat([tokens.new_tensor([first]), tokens[:-1], tokens.new_zeros(padding)]).view(streams, steps).t()
    targets = torch.cat([tokens, tokens.new_full((padding,), -1)]).view(streams, steps).t()
    total, state = 0.0, None
    with evaluating(model), torch.no_grad():
        for start in range(0, steps, length):
            words, goal = (part[start : start + length].to(device, torch.long) for part in (inputs, targets))
            hidden, state = model(words, state)
            nll = model.classifier.nll(hidden, goal.clamp_min(0))
            total += nll[goal >= 0].double().sum().item()
    return total / len(tokens)


def perplexity(model: LanguageModel, tokens: Tensor, *, first: int, streams: int = 20) -> float:
    """Return exp of :func:`mean_nll`: the word-level perplexity of ``tokens``; infinity if float64 cannot hold it."""
    return exponential(mean_nll(model, tokens, first=first, streams=streams))


def exponential(nll: float) -> float:
    """Return exp(nll), infinity above about 709 nats, which a diverged model reaches."""
    return math.exp(nll) if nll < math.log(sys.float_info.max) else math.inf


def unigram_perplexity(train: Tensor, tokens: Tensor, vocabulary_size: int) -> float:
    """Return the perplexity of ``tokens`` under the word frequencies of ``train``, each count raised by one.

    p(w) = (count of w + 1) / (N + V): what a model that ignores all context can reach, the least a model must beat.
    """
    counts = torch.bincount(train.long(), minlength=vocabulary_size).double() + 1
    return math.exp(-(counts / counts.sum()).log()[tokens.long()].mean().item())
