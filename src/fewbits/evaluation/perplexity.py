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


def hidden_states(
    model: LanguageModel, tokens: Tensor, *, first: int, streams: int = 20, length: int = 70
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield hidden states (n, H) and the words (n,) that they predict, until each of the N tokens was predicted once.

    The text is cut into ``streams`` consecutive parts that are read side by side with the state carried along; each
    part starts from a zero state and the token before it, the first from ``first`` (``<eos>``). So ``streams`` − 1
    tokens see one word of context instead of many. Put the model into ``eval()`` before, see :func:`evaluating`.

    Args:
        model: the language model.
        tokens: (N,) token numbers.
        first: the token that the text follows.
        streams: parts read side by side.
        length: tokens a call; changes speed and memory, not the result.

    Raises:
        FewbitsError: If there are no tokens.
    """
    if not len(tokens):
        raise FewbitsError("the text has no tokens, so there is nothing to predict; give at least one.")
    device = next(model.parameters()).device
    streams = max(1, min(streams, len(tokens)))
    steps = -(-len(tokens) // streams)
    padding = steps * streams - len(tokens)
    inputs = torch.cat([tokens.new_tensor([first]), tokens[:-1], tokens.new_zeros(padding)]).view(streams, steps).t()
    targets = torch.cat([tokens, tokens.new_full((padding,), -1)]).view(streams, steps).t()
    state = None
    for start in range(0, steps, length):
        words, goal = (part[start : start + length].to(device, torch.long) for part in (inputs, targets))
        with torch.no_grad():
            hidden, state = model(words, state)
        yield hidden[goal >= 0], goal[goal >= 0]


def mean_nll(model: LanguageModel, tokens: Tensor, *, first: int, streams: int = 20, length: int = 70) -> float:
    """Return the mean −log p of all N tokens in nats, each predicted once as :func:`hidden_states` reads them.

    The model is put into ``eval()`` and back: dropout is off and quantizers are deterministic here.

    Raises:
        FewbitsError: If there are no tokens.
    """
    total = 0.0
    with evaluating(model), torch.no_grad():
        for hidden, goal in hidden_states(model, tokens, first=first, streams=streams, length=length):
            total += model.classifier.nll(hidden, goal).double().sum().item()
    return total / len(tokens)


def accuracy(model: LanguageModel, tokens: Tensor, *, first: int, streams: int = 20, length: int = 70) -> float:
    """Return the share of tokens that get the highest score, from 0 to 1; the model is put into ``eval()`` and back.

    Raises:
        FewbitsError: If there are no tokens.
    """
    right = 0
    with evaluating(model), torch.no_grad():
        for hidden, goal in hidden_states(model, tokens, first=first, streams=streams, length=length):
            right += int((model.classifier.topk(hidden, 1)[1].squeeze(-1) == goal).sum())
    return right / len(tokens)


def fit_temperature(model: LanguageModel, tokens: Tensor, *, first: int) -> float:
    """Fit the temperature of a classifier without a scale, one that has ``fit_temperature``, to a text; return it.

    The text is that of validation, never the one that is tested. The model is put into ``eval()`` and back.

    Raises:
        FewbitsError: If there are no tokens, or a score is not finite.
    """
    with evaluating(model):
        hidden, target = zip(*hidden_states(model, tokens, first=first), strict=True)
    found: float = model.classifier.fit_temperature(torch.cat(hidden), torch.cat(target))  # type: ignore[operator]
    return found


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
