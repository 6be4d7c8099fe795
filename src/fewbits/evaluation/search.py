"""Greedy search and beam search over any decoder and any classifier.

Both add up a classifier's scores: log-probabilities for a softmax, z − max z − b for max-shift. A hypothesis ends with
<eos>, or is cut off at the longest length. Its words are those that the decoder read, <eos> counts in its length.

**Max-shift with a constant b makes beam search greedy.** A step scores z_y − max z − b ≤ −b, with equality at a word of
the highest z only. A hypothesis y of length n that loses D(y) ≥ 0 to these maxima in all has the score
(−b n − D(y)) / n^α, and D = 0 exactly for the greedy words where no maximum is shared. So the greedy hypothesis is the
best of all if b = 0, under any penalty α ≥ 0, or if α = 1, under any b; with another α a constant b rewards short
hypotheses (b > 0, α < 1) or long ones (α > 1). And beam search finds it: prefixes of one length compare by D alone, so
the greedy prefix leads the beam at every step, also where maxima are shared, because of how ties are broken here.
This needs a search that goes on until the greedy hypothesis has ended: not ``Stop.FIRST_FINISHED``. Where a maximum
is shared, another hypothesis with D = 0 that ended earlier may come first, with the same score. Words that are
forced at the longest length (``Beam.force_end``, as in fairseq) void the proof; else a hypothesis is cut off there.
"""

import bisect
import contextlib
import math
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from fewbits.classifiers.classifier import Classifier
from fewbits.errors import FewbitsError
from fewbits.evaluation.perplexity import evaluating

Batch = TypeVar("Batch", bound=Sized)
Source = TypeVar("Source", bound=Sized, contravariant=True)
State = TypeVar("State")


class Decoder(Protocol[Source, State]):
    """Reads words and gives what a classifier needs to score the next one; ``fewbits.models.Seq2Seq`` is one."""

    def start(self, source: Source, /) -> State:
        """Return the state before the first word, one row for each of the ``len(source)`` sentences."""

    def step(self, words: Tensor, state: State, /) -> tuple[Tensor, State]:
        """Read ``words`` (rows,); return hidden vectors (rows, H) and the new state."""

    def reorder(self, state: State, rows: Tensor, /) -> State:
        """Return the state of the given rows, in their order; a row may come several times or not at all."""


class Stop(StrEnum):
    """When beam search is done with a sentence; always at the longest length."""

    FIRST_FINISHED = "first finished"  #: as soon as ``beam`` hypotheses ended: fairseq's default, early stopping
    NO_BETTER = "no better"  #: when no live hypothesis can enter the ``n_best``, as long as no score is above 0
    LENGTH = "length"  #: at the longest length only; for scores that may be above 0


@dataclass(frozen=True)
class Beam:
    """How beam search works; fairseq's generator has these defaults and ``min_length`` 1, ``force_end`` true.

    Raises:
        FewbitsError: If a number is out of range.
    """

    beam: int = 5  #: live hypotheses, and hypotheses that are kept of those that ended
    max_length: int = 200  #: most words of a hypothesis, <eos> included
    length_penalty: float = 1.0  #: α: hypotheses compare by total / length^α
    stop: Stop = Stop.FIRST_FINISHED
    n_best: int = 1  #: hypotheses to return
    excluded: tuple[int, ...] = ()  #: words that are never written; a softmax is normalised with them all the same
    min_length: int = 0  #: fewest words before <eos>
    force_end: bool = False  #: whether the last word of the longest length can only be <eos>

    def __post_init__(self) -> None:
        if self.max_length < 1 or not 1 <= self.n_best <= self.beam or not 0 <= self.length_penalty < math.inf:
            raise FewbitsError(
                f"{self} cannot search: a beam, a length and n_best are 1 or more, n_best is at most the beam, and the "
                "length penalty is 0 or more."
            )
        if not 0 <= self.min_length < self.max_length:
            raise FewbitsError(
                f"{self} cannot search: the fewest words before the end, {self.min_length}, are 0 or more, and fewer "
                f"than the {self.max_length} of the longest length, which counts the end."
            )


@dataclass(frozen=True)
class Hypothesis:
    """A translation and what it scores."""

    words: tuple[int, ...]  #: without <eos>
    ended: bool  #: with <eos>, not cut off
    total: float  #: sum of the scores of its words, <eos> included

    @property
    def length(self) -> int:
        """Words, <eos> included."""
        return len(self.words) + self.ended

    def score(self, length_penalty: float = 1.0) -> float:
        """Return total / length^α."""
        return self.total / math.pow(self.length, length_penalty)


@torch.no_grad()
def greedy(
    decoder: Decoder[Batch, State], classifier: Classifier, source: Batch, *, sos: int, eos: int, max_length: int
) -> list[Hypothesis]:
    """Return for each sentence of ``source`` the hypothesis whose every word is the best next one.

    Of equal scores the lowest word number is taken. Modules are put into ``eval()`` and back.

    Args:
        decoder: gives the hidden vectors.
        classifier: scores them.
        source: what ``decoder.start`` reads.
        sos: the word that is read first.
        eos: the word that ends a hypothesis.
        max_length: most words of a hypothesis, <eos> included.

    Raises:
        FewbitsError: If ``max_length`` is below 1, or a best score is NaN or infinite.
    """
    if max_length < 1:
        raise FewbitsError(f"a longest length of {max_length} words holds nothing; it is 1 or more.")
    with _evaluating(decoder, classifier):
        state, rows, device = decoder.start(source), len(source), _device(classifier)
        words = torch.full((rows,), sos, device=device)
        totals, open_ = torch.zeros(rows, dtype=torch.float64, device=device), torch.ones_like(words, dtype=torch.bool)
        read = []
        for _ in range(max_length):
            hidden, state = decoder.step(words, state)
            scores = classifier.scores(hidden)
            words = scores.argmax(-1)
            totals = (totals + scores.gather(-1, words[:, None])[:, 0]).where(open_, totals)
            read.append(words)
            open_ = open_ & (words != eos)
            if not open_.any():
                break
    _check(totals.isfinite())
    lines = torch.stack(read, dim=1).tolist()
    return [_hypothesis(line, eos, total) for line, total in zip(lines, totals.tolist(), strict=True)]


@torch.no_grad()
def beam_search(
    decoder: Decoder[Batch, State], classifier: Classifier, source: Batch, *, sos: int, eos: int, beam: Beam
) -> list[list[Hypothesis]]:
    """Return for each sentence of ``source`` its ``n_best`` hypotheses, best first.

    At each step the 2·``beam`` best continuations of all live hypotheses are ranked by their totals. Those among the
    first ``beam`` that end are finished, the first ``beam`` that go on stay alive (fairseq). At the longest length
    the first ``beam`` are finished whether they end or not. A beam of 1 with ``Stop.FIRST_FINISHED`` is greedy search.

    Ties go to the continuation of the hypothesis that was ahead, then to the better word, then to the lower word
    number; among finished hypotheses to the one that finished first. Totals are float64. A score of −∞ rules a word
    out. Fewer than ``n_best`` are returned where there are not as many. A sentence is computed alone or beside others
    with the same result, as far as decoder and classifier do so. Modules are put into ``eval()`` and back.

    Args:
        decoder: gives the hidden vectors.
        classifier: scores them.
        source: what ``decoder.start`` reads.
        sos: the word that is read first.
        eos: the word that ends a hypothesis.
        beam: the settings.

    Raises:
        FewbitsError: If a score is NaN or +∞, or all words of a sentence are ruled out.
    """
    with _evaluating(decoder, classifier):
        state, device = decoder.start(source), _device(classifier)
        finished: list[list[Hypothesis]] = [[] for _ in range(len(source))]
        numbers = list(range(len(source)))  # of the sentences that are still searched
        words = torch.full((len(source),), sos, device=device)
        totals = torch.zeros(len(source), 1, dtype=torch.float64, device=device)
        history = words.new_empty(len(source), 1, 0)
        for length in range(1, beam.max_length + 1):
            hidden, state = decoder.step(words, state)
            scores = _ruled(classifier.scores(hidden), eos, beam, length)
            ranked = _continuations(scores, totals, history, 2 * beam.beam)
            _finish(ranked, [finished[number] for number in numbers], eos, beam, length)
            ranked, width = _alive(ranked, eos, beam.beam)
            searching = [
                place
                for place, best in enumerate(ranked.totals[:, 0].tolist() if width else [])
                if not _done(finished[numbers[place]], best, beam)
            ]
            if length == beam.max_length or not searching:
                break
            kept = torch.tensor(searching, device=device)
            numbers = [numbers[place] for place in searching]
            rows = (kept[:, None] * totals.shape[1] + ranked.parents[kept]).flatten()
            state = decoder.reorder(state, rows)
            totals, history = ranked.totals[kept], ranked.history[kept]
            words = history[..., -1].flatten()
    if not all(finished):
        raise FewbitsError(
            f"all words of sentence {finished.index([])} are ruled out: every score is −∞. Look at the classifier."
        )
    return [hypotheses[: beam.n_best] for hypotheses in finished]


def _ruled(scores: Tensor, eos: int, beam: Beam, length: int) -> Tensor:
    """Return the scores of the word at ``length`` with −∞ for those that the settings rule out."""
    ruled_out = [*beam.excluded, *([eos] if length <= beam.min_length else [])]
    if beam.force_end and length == beam.max_length:
        ruled_out = [word for word in range(scores.shape[-1]) if word != eos]
    return scores.index_fill(-1, torch.tensor(ruled_out, device=scores.device), -math.inf) if ruled_out else scores


@dataclass(frozen=True)
class _Ranked:
    """Continuations of each sentence, best first: (sentences, n) and their words (sentences, n, length)."""

    totals: Tensor
    parents: Tensor
    history: Tensor


def _continuations(scores: Tensor, totals: Tensor, history: Tensor, number: int) -> _Ranked:
    """Return the ``number`` best of all hypotheses with one more word; all of them if there are fewer."""
    # No hypothesis can have more than ``number`` continuations among the best.
    values, words = _best(scores, min(number, scores.shape[-1]))
    sums = (totals.reshape(-1, 1) + values).view(len(totals), -1)
    sums, places = _best(sums, min(number, sums.shape[-1]))
    _check(sums[:, 0] < math.inf)
    parents = places // words.shape[-1]
    words = words.view(len(totals), -1).gather(1, places)
    past = history.gather(1, parents[..., None].expand(-1, -1, history.shape[-1]))
    return _Ranked(sums, parents, torch.cat([past, words[..., None]], dim=-1))


def _best(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return the highest ``number`` of each row and their places; of equal ones the lower places, in order."""
    # Which of equal values topk takes is not specified: where the first one left out is equal, the row is sorted.
    values, places = scores.topk(min(number + 1, scores.shape[-1]), dim=-1)
    shared = (values[:, number:] == values[:, number - 1 : number]).any(-1)
    values, places = values[:, :number], places[:, :number]
    if shared.any():
        ordered, by_value = scores[shared].sort(dim=-1, descending=True, stable=True)
        values[shared], places[shared] = ordered[:, :number], by_value[:, :number]
    places, order = places.sort(dim=-1)
    values, by_value = values.gather(1, order).sort(dim=-1, descending=True, stable=True)
    return values, places.gather(1, by_value)


def _alive(ranked: _Ranked, eos: int, beam: int) -> tuple[_Ranked, int]:
    """Return the first continuations that do not end, as many in each sentence, at most ``beam``."""
    ends = ranked.history[..., -1] == eos
    width = min(beam, int((~ends).sum(1).min()))
    order = ends.int().argsort(dim=1, stable=True)[:, :width]
    past = order[..., None].expand(-1, -1, ranked.history.shape[-1])
    alive = _Ranked(ranked.totals.gather(1, order), ranked.parents.gather(1, order), ranked.history.gather(1, past))
    return alive, width


def _finish(ranked: _Ranked, finished: list[list[Hypothesis]], eos: int, beam: Beam, length: int) -> None:
    """Put the best continuations that end, or all at the longest length, among the finished of their sentence."""
    totals, history = ranked.totals[:, : beam.beam], ranked.history[:, : beam.beam]
    ends = (history[..., -1] == eos) | (length == beam.max_length)
    ends &= totals > -math.inf
    for place, rank in ends.nonzero().tolist():
        if beam.stop is Stop.FIRST_FINISHED and len(finished[place]) == beam.beam:
            continue  # the search is over, and a later one of the same step is not looked at (fairseq)
        ended = _hypothesis(history[place, rank].tolist(), eos, totals[place, rank].item())
        bisect.insort(finished[place], ended, key=lambda one: -one.score(beam.length_penalty))
        del finished[place][beam.beam :]


def _done(finished: list[Hypothesis], best_live: float, beam: Beam) -> bool:
    match beam.stop:
        case Stop.FIRST_FINISHED:
            return len(finished) == beam.beam
        case Stop.NO_BETTER:  # a total cannot rise, and the longest length divides a negative one most
            bound = best_live / math.pow(beam.max_length, beam.length_penalty)
            return len(finished) >= beam.n_best and finished[beam.n_best - 1].score(beam.length_penalty) >= bound
        case Stop.LENGTH:
            return False


def _hypothesis(line: list[int], eos: int, total: float) -> Hypothesis:
    ended = eos in line
    return Hypothesis(tuple(line[: line.index(eos)] if ended else line), ended, total)


def _check(sound: Tensor) -> None:
    if not sound.all():
        raise FewbitsError(
            f"{int((~sound).sum())} of {len(sound)} sentences have a best score that is NaN or infinite. Look at the "
            "weights of the model, which may have diverged, and at the classifier."
        )


def _device(classifier: nn.Module) -> torch.device | None:
    return next((parameter.device for parameter in classifier.parameters()), None)


@contextlib.contextmanager
def _evaluating(*parts: object) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for part in parts:
            if isinstance(part, nn.Module):
                stack.enter_context(evaluating(part))
        yield
