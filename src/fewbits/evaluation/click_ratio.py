"""Click ratio: how many words a user of a keyboard that suggests words could click instead of typing (S10 to S12)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fewbits.data.vocabulary import Vocabulary
from fewbits.errors import FewbitsError
from fewbits.evaluation.perplexity import evaluating, hidden_states
from fewbits.evaluation.ranking import nested_ranks
from fewbits.kernels.precision import at_least_float32
from fewbits.models.language_model import LanguageModel

SUGGESTIONS = 3  #: words that a keyboard shows, unless stated

_SCORES = 2**24  #: numbers in work at a time, 64 MiB of float32
_WINDOW = 1_400  #: words read at a time, however many streams: products with few rows are slow


class Keyboard:
    """The words of a vocabulary that can be suggested, and where those with a common beginning stand.

    A word is a token with a letter or a digit, case as in the corpus. ``<unk>``, ``<eos>`` and punctuation are never
    suggested. After j typed letters only words that begin with these letters are left.

    >>> keyboard = Keyboard(("<unk>", "<eos>", "the", ",", "that", "a"))
    >>> scores = torch.tensor([9.0, 8.0, 1.0, 7.0, 2.0, 3.0])
    >>> keyboard.suggest(scores, k=2), keyboard.suggest(scores, typed="th", k=2)
    (['a', 'that'], ['that', 'the'])
    >>> keyboard.ranks(scores[None], torch.tensor([2])).tolist()        # "the": after no letter, t, th, and so on
    [[2, 1, 1, 1, 1]]

    Raises:
        FewbitsError: If no word can be suggested.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.is_word = torch.tensor([any(map(str.isalnum, word)) for word in words])  #: (V,), <unk> among them
        self.is_word[Vocabulary.eos] = False
        shown = self.is_word.clone()
        shown[Vocabulary.unk] = False
        self.order = torch.tensor(sorted(shown.nonzero().flatten().tolist(), key=self.words.__getitem__))
        if not len(self.order):
            raise FewbitsError(f"none of the {len(self.words):,} tokens has a letter or a digit; nothing to suggest.")
        self.never = (~shown).nonzero().flatten()
        self.letters = torch.tensor([len(word) for word in words])  #: (V,)
        self.alike = self._alike()

    def _alike(self) -> Tensor:
        """Return (V, 2, longest + 1): the run of ``order`` with the first j letters of each word; 0 for the others.

        From the last letter on, the run is that before it: a word that is typed is not suggested any more.
        """
        spelled = [self.words[number] for number in self.order.tolist()]
        shared = torch.tensor([_shared(*pair) for pair in pairwise(spelled)])
        places = torch.arange(len(spelled), dtype=torch.int32)
        lengths = self.letters[self.order]
        runs = torch.zeros(len(self.words), 2, int(lengths.max()) + 1, dtype=torch.int32)
        for typed in range(runs.shape[2]):
            starts = torch.cat([torch.tensor([True]), shared < typed])
            run = starts.cumsum(0) - 1
            begin = places[starts]
            end = torch.cat([begin[1:], torch.tensor([len(spelled)], dtype=torch.int32)])
            found = torch.stack([begin[run], end[run]], dim=1)
            before = runs[self.order, :, max(typed - 1, 0)]
            runs[self.order, :, typed] = torch.where((typed < lengths)[:, None], found, before)
        return runs

    def suggest(self, scores: Tensor, typed: str = "", k: int = SUGGESTIONS) -> list[str]:
        """Return the k words of the highest scores (V,) that begin with ``typed``, best first; fewer if there are.

        Raises:
            FewbitsError: If k is below 1, or more than the words that can be suggested.
        """
        _check_suggestions(k, len(self.order))
        fitting = [number for number in self.order.tolist() if self.words[number].startswith(typed)]
        best = sorted(fitting, key=lambda number: -scores[number].item())
        return [self.words[number] for number in best[:k]]

    def ranks(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return how many other words stand before the target after j = 0, 1, … typed letters, (n, longest + 1), int32.

        A word with the same score stands before it too. From the last letter on, the rank is that before it.

        Args:
            scores: (n, V).
            target: (n,) words that can be suggested.

        Raises:
            FewbitsError: If the score of a target is NaN or infinite, or a target cannot be suggested.
        """
        target = target.to(torch.long).cpu()
        runs = self.alike[target]
        if (runs[:, 1, 0] == 0).any():
            raise FewbitsError("a target is <unk>, <eos> or punctuation, which is never suggested; leave it out.")
        own = scores.gather(1, target.to(scores.device)[:, None])
        if not own.isfinite().all():
            raise FewbitsError("the score of a word that occurs is NaN or infinite. Did training diverge?")
        scores = at_least_float32(scores).cpu()
        return nested_ranks(scores, target, runs, self.order, self.letters[target], self.never)


def _shared(one: str, other: str) -> int:
    """Return how many letters two different words begin with alike."""
    alike = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(alike, min(len(one), len(other)))


@dataclass(frozen=True, eq=False)
class Clicks:
    """What could be clicked in a text: for every word of the vocabulary that occurs its ranks among the suggestions."""

    target: Tensor  #: (n,) the words that occur and are in the vocabulary, in the order of :func:`hidden_states`
    ranks: Tensor  #: (n, longest + 1), int32: of :meth:`Keyboard.ranks`
    letters: Tensor  #: (n,) of each of them
    unknown: int  #: words that are not in the vocabulary and so never clicked
    most: int  #: words that can be suggested

    @property
    def words(self) -> int:
        """All words that occur, unknown ones among them."""
        return len(self.target) + self.unknown

    def ratio(self, k: int = SUGGESTIONS, typed: int = 0) -> float:
        """Return the share of all words that can be clicked among k suggestions after at most ``typed`` letters.

        Raises:
            FewbitsError: If k is below 1, or more than the words that can be suggested.
        """
        _check_suggestions(k, self.most)
        typed = min(typed, self.ranks.shape[1] - 1)
        return int((self.ranks[:, typed] < k).sum()) / self.words

    def savings(self, k: int = SUGGESTIONS) -> float:
        """Return the share of keystrokes saved in the words of the vocabulary: a click is one stroke, a letter as well.

        A word of L letters that is among the suggestions after j letters costs min(L, j + 1) strokes instead of L.

        Raises:
            FewbitsError: As :meth:`ratio`.
        """
        _check_suggestions(k, self.most)
        shown = self.ranks < k
        first = shown.int().argmax(1)
        strokes = torch.where(shown.any(1), torch.minimum(first + 1, self.letters), self.letters)
        return 1 - int(strokes.sum()) / int(self.letters.sum())


def _check_suggestions(k: int, most: int) -> None:
    if not 1 <= k <= most:
        raise FewbitsError(f"{k:,} suggestions, but only {most:,} words can be suggested; give 1 to {most:,}.")


def clicks(
    model: LanguageModel, tokens: Tensor, keyboard: Keyboard, *, first: int = Vocabulary.eos, streams: int = 20
) -> Clicks:
    """Return what could be clicked in a text (N,), each word suggested from those before it.

    The text is read as :func:`~fewbits.evaluation.perplexity.hidden_states` does; the scores are those of the model's
    classifier, in parts of bounded memory. What is kept of a word is its ranks, four bytes for each letter of the
    longest word. The model is put into ``eval()`` and back.

    Raises:
        FewbitsError: If there are no tokens, or no words, or none of the vocabulary, or the score of a word that
            occurs is not finite.
    """
    if (size := model.classifier.vocabulary_size) != len(keyboard.words):
        raise FewbitsError(f"the model knows {size:,} words, the keyboard {len(keyboard.words):,}; give it the same.")
    rows = max(1, _SCORES // size)
    length = -(-_WINDOW // streams)
    found: list[Tensor] = []
    targets: list[Tensor] = []
    unknown = 0
    with evaluating(model), torch.no_grad():
        for hidden, goal in hidden_states(model, tokens, first=first, streams=streams, length=length):
            asked = keyboard.is_word[goal.cpu()]
            unknown += int((asked & (goal.cpu() == Vocabulary.unk)).sum())
            known = (asked & (goal.cpu() != Vocabulary.unk)).to(goal.device)
            for some, words in zip(hidden[known].split(rows), goal[known].split(rows), strict=True):
                found.append(keyboard.ranks(model.classifier.ranking(some), words))
                targets.append(words.cpu())
    target = torch.cat(targets) if targets else torch.empty(0, dtype=torch.long)
    if not len(target):
        raise FewbitsError(
            f"the text has {unknown:,} words and none of them is in the vocabulary of {size:,}; "
            "take another text, or a larger vocabulary."
        )
    return Clicks(target, torch.cat(found), keyboard.letters[target], unknown, len(keyboard.order))
