"""Translations of the tests by each way of search, and what they are worth."""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from fewbits.classifiers import Classifier, MaxShift, Softmax
from fewbits.evaluation.normaliser import best_constant, gap_statistics
from fewbits.evaluation.perplexity import evaluating
from fewbits.evaluation.search import Beam, Hypothesis, Stop, beam_search, greedy
from fewbits.evaluation.translation import bleu, paired_bootstrap
from fewbits.experiments.seq2seq_translation.texts import TESTS, Texts
from fewbits.models.seq2seq import PADDING, Seq2Seq, padded

SEARCHES = ("greedy", "beam_max_shift", "beam_softmax")
BEAM = 5
EXAMPLES = 2  #: sentences whose translation and attention are kept
_ROWS = 250  #: sentences in work at a time

Written = dict[tuple[str, str], list[str]]  #: test and search: its translations


def translate(model: Seq2Seq, texts: Texts) -> tuple[Written, dict[str, float]]:
    """Return the translations of each test by each search, and the share of the beam's that equal the greedy ones.

    Beam search adds up the scores of max-shift with b = 0, or log-probabilities. A model that was trained through
    max-shift has no scale of its own; its log-probabilities are those at its temperature.
    """
    shown: Written = {}
    same: dict[str, float] = {}
    beam = Beam(BEAM, texts.longest, stop=Stop.NO_BETTER)
    max_shift, softmax = _scored(model.classifier, MaxShift), _scored(model.classifier, Softmax)
    ends = {"sos": model.sos, "eos": model.eos}
    for test in TESTS:
        found: dict[str, list[Hypothesis]] = {search: [] for search in SEARCHES}
        for source in texts.sources(getattr(texts, test)).split(_ROWS):
            found["greedy"] += greedy(model, model.classifier, source, **ends, max_length=texts.longest)
            found["beam_max_shift"] += _first(beam_search(model, max_shift, source, **ends, beam=beam))
            found["beam_softmax"] += _first(beam_search(model, softmax, source, **ends, beam=beam))
        for search, hypotheses in found.items():
            shown[test, search] = [" ".join(texts.corpus.target.decode(each.words)) for each in hypotheses]
        for search in SEARCHES[1:]:
            pairs = zip(found[search], found["greedy"], strict=True)
            same[f"{test}_{search}_same"] = sum(a.words == b.words for a, b in pairs) / len(found["greedy"])
    return shown, same


def score(written: dict[str, Written], texts: Texts) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Return BLEU and its interval for each arm, test and search, and paired tests of the arms and of the searches."""
    metrics: dict[str, Any] = {}
    arrays: dict[str, list[float]] = {}
    for test in TESTS:
        references = [" ".join(target) for _, target in getattr(texts, test)]
        metrics[f"{test}_pairs"] = len(references)
        for search in SEARCHES:
            for arm, shown in written.items():
                name = f"{arm}_{test}_{search}"
                found = bleu(shown[test, search], references)
                metrics |= {name: found.score, "bleu_signature": found.signature}
                arrays[f"{name}_interval"] = list(found.interval)
                if search != "greedy":
                    metrics[f"{name}_p"] = paired_bootstrap(
                        shown[test, "greedy"], shown[test, search], references
                    ).p_value
            if {"softmax", "max-shift"} <= written.keys():
                softmax, max_shift = (written[arm][test, search] for arm in ("softmax", "max-shift"))
                paired = paired_bootstrap(softmax, max_shift, references)
                metrics |= {f"{test}_{search}_p": paired.p_value, "paired_signature": paired.signature}
    return metrics, arrays


def gap(model: Seq2Seq, texts: Texts) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Return how log Σ exp z − max z is distributed over the words of ``outside``; b is fitted on validation pairs."""
    validation, outside = (_logits(model, texts, test) for test in ("validation", "outside"))
    return gap_statistics(outside, best_constant(validation))


def fit_temperature(classifier: MaxShift, model: Seq2Seq, texts: Texts) -> float:
    """Fit the temperature of a model without a scale to the validation pairs."""
    hidden, target = zip(*_read(model, texts, "validation"), strict=True)
    return classifier.fit_temperature(torch.cat(hidden), torch.cat(target))


def attention(model: Seq2Seq, texts: Texts, written: list[str]) -> list[list[float]]:
    """Return for the `longest` sentences the weights of their words, row by row of ``written`` and <eos>, one list."""
    maps = []
    for place in longest(texts):
        source, _ = texts.numbers([texts.outside[place]])[0]
        words = texts.corpus.target.encode(written[place].split())
        with evaluating(model), torch.no_grad():
            weights = model.attention(padded([source]), padded([words]))[0, :, : len(source)]
        maps.append(weights.flatten().tolist())
    return maps


def longest(texts: Texts) -> list[int]:
    """Return the places of the first of the longest source sentences of ``outside``."""
    return sorted(range(len(texts.outside)), key=lambda place: -len(texts.outside[place][0]))[:EXAMPLES]


@torch.no_grad()
def _logits(model: Seq2Seq, texts: Texts, test: str) -> Iterator[Tensor]:
    for hidden, _ in _read(model, texts, test):
        yield cast(nn.Linear, model.classifier.output)(hidden)


@torch.no_grad()
def _read(model: Seq2Seq, texts: Texts, test: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield hidden states (n, H) and the words (n,) they predict, each from the right words before it."""
    pairs = texts.numbers(getattr(texts, test))
    with evaluating(model):
        for first in range(0, len(pairs), _ROWS):
            source, target = map(padded, zip(*pairs[first : first + _ROWS], strict=True))
            yield model(source, target)[target != PADDING], target[target != PADDING]


def _first(found: list[list[Hypothesis]]) -> list[Hypothesis]:
    return [best for best, *_ in found]


def _scored(trained: Classifier, kind: type[Softmax] | type[MaxShift]) -> Classifier:
    """Return a classifier of another kind with the output matrix of ``trained``, at the temperature of ``trained``."""
    other = kind(trained.hidden_size, trained.vocabulary_size)
    temperature = trained.temperature if isinstance(trained, MaxShift) else 1.0
    output = {name: tensor / temperature for name, tensor in cast(nn.Linear, trained.output).state_dict().items()}
    other.output.load_state_dict(output)
    return other.to(next(iter(output.values())).device)
