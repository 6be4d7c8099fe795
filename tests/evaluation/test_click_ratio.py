"""Click ratio against a reference that sorts all words for every token and typed letter."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewbits.classifiers import Softmax
from fewbits.data.vocabulary import EOS, UNK, Vocabulary
from fewbits.errors import FewbitsError
from fewbits.evaluation import click_ratio
from fewbits.evaluation.click_ratio import Clicks, Keyboard, clicks
from fewbits.models import LanguageModel, recurrent_language_model

WORDS = (UNK, EOS, "a", ",", "an", "ant", "b", "--", "be", "żółw", "żaba", "A", "3", "bee", "'s")


def slowly(words: tuple[str, ...], scores: list[float], target: int, typed: int) -> int:
    """Words that can be suggested, begin like the target and have its score or more."""
    beginning = words[target][: min(typed, len(words[target]) - 1)]
    return sum(
        scores[number] >= scores[target]
        for number, word in enumerate(words)
        if number not in (target, Vocabulary.unk, Vocabulary.eos)
        and any(letter.isalnum() for letter in word)
        and word.startswith(beginning)
    )


def suggestable(words: tuple[str, ...]) -> list[int]:
    return [n for n, word in enumerate(words) if n > 1 and any(letter.isalnum() for letter in word)]


@given(
    words=st.lists(st.text("aąbc'-1", min_size=1, max_size=5), min_size=1, max_size=30, unique=True),
    seed=st.integers(0, 2**31),
    levels=st.integers(1, 40),
)
@settings(deadline=None, max_examples=150)
def test_ranks_are_those_of_the_slow_reference(words: list[str], seed: int, levels: int) -> None:
    every = (UNK, EOS, *words)
    targets = suggestable(every)
    if not targets:
        with pytest.raises(FewbitsError, match="nothing to suggest"):
            Keyboard(every)
        return
    random = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (len(targets), len(every)), generator=random).float()  # ties, then few
    found = Keyboard(every).ranks(scores, torch.tensor(targets))
    longest = max(len(every[number]) for number in targets)
    assert found.shape == (len(targets), longest + 1)
    for row, target in enumerate(targets):
        assert found[row].tolist() == [slowly(every, scores[row].tolist(), target, j) for j in range(longest + 1)]


def test_suggestions_are_the_words_that_ranks_call_clickable() -> None:
    keyboard, random = Keyboard(WORDS), torch.Generator().manual_seed(1)
    targets = suggestable(WORDS)
    for _ in range(20):
        scores = torch.randn(len(WORDS), generator=random)
        ranks = keyboard.ranks(scores.repeat(len(targets), 1), torch.tensor(targets))
        for row, target in enumerate(targets):
            word = WORDS[target]
            for typed in range(len(word)):
                for k in (1, 3):
                    assert (word in keyboard.suggest(scores, word[:typed], k)) == (ranks[row, typed] < k)


def test_ranks_in_a_narrow_type_are_exact() -> None:
    every = (UNK, EOS, *(f"w{number}" for number in range(3_000)))
    scores = torch.arange(3_002, 0, -1, dtype=torch.float32)[None]
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        narrow = scores.to(dtype)
        expected = int((narrow[0, 2:] >= narrow[0, -1]).sum()) - 1
        assert Keyboard(every).ranks(narrow, torch.tensor([3_001]))[0, 0] == expected


def test_threads_share_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = torch.tensor(suggestable(WORDS))
    scores = torch.randn(len(targets), len(WORDS), generator=torch.Generator().manual_seed(4))
    alone = [Keyboard(WORDS).ranks(row[None], target[None]) for row, target in zip(scores, targets, strict=True)]
    for threads in (1, 3, 2 * len(targets)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert torch.equal(Keyboard(WORDS).ranks(scores, targets), torch.cat(alone))


class Told(nn.Module):
    """Reads nothing: the hidden state is the word before."""

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("nothing", nn.Parameter(torch.zeros(1)))

    def forward(self, words: Tensor, state: object = None) -> tuple[Tensor, Tensor]:
        return torch.eye(len(WORDS))[words], self.nothing


def told(scores: Tensor) -> LanguageModel:
    """A model that gives row w of the scores after word w."""
    classifier = Softmax(len(WORDS), len(WORDS))
    with torch.no_grad():
        classifier.output.weight.copy_(scores.T)
        classifier.output.bias.zero_()
    return LanguageModel(Told(), classifier)


def numbers(*words: str) -> Tensor:
    return torch.tensor([WORDS.index(word) for word in words], dtype=torch.int32)


def test_what_counts_as_a_word() -> None:
    text = numbers("a", ",", UNK, "bee", EOS, "--", "żaba", UNK, "3")
    found = clicks(told(torch.zeros(len(WORDS), len(WORDS))), text, Keyboard(WORDS))
    assert (found.words, found.unknown) == (6, 2)
    assert sorted(WORDS[number] for number in found.target.tolist()) == ["3", "a", "bee", "żaba"]


def test_click_ratio_and_savings_by_hand() -> None:
    scores = torch.zeros(len(WORDS), len(WORDS))
    order = ["a", "an", "ant", "b", "be", "bee", "żółw", "żaba", "A", "3", "'s"]
    for place, word in enumerate(order):
        scores[:, WORDS.index(word)] = -float(place)
    scores[:, [0, 1]] = 50.0  # <unk> and <eos> first, and never shown
    found = clicks(told(scores), numbers("ant", "be", "żaba", UNK), Keyboard(WORDS), streams=1)
    # ant: rank 2 at once. be: rank 4, of b, be, bee 1. żaba: rank 7, after ż 1.
    assert [found.ratio(1, typed) for typed in range(4)] == [0, 0, 1 / 4, 1 / 4]  # żaba after ża
    assert [found.ratio(3, typed) for typed in range(4)] == [1 / 4, 3 / 4, 3 / 4, 3 / 4]
    assert found.ratio(3, typed=99) == 3 / 4
    # with three: 1 stroke for ant, 2 for be (which has 2 letters), 2 for żaba; with one: 3, 2 and 3
    assert found.savings(3) == pytest.approx(1 - 5 / 9)
    assert found.savings(1) == pytest.approx(1 - 8 / 9)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    torch.manual_seed(0)
    return recurrent_language_model(len(WORDS), 6, 8, 1)


def test_text_in_parts_of_any_size_gives_the_same(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    text = torch.randint(len(WORDS), (500,), generator=torch.Generator().manual_seed(2), dtype=torch.int32)
    keyboard = Keyboard(WORDS)
    whole = clicks(model, text, keyboard)
    monkeypatch.setattr(click_ratio, "_SCORES", 3 * len(WORDS))
    parts = clicks(model, text, keyboard)
    assert torch.equal(whole.ranks, parts.ranks)
    assert whole.words == parts.words == sum(number != 1 and WORDS[number] not in (",", "--") for number in text)


def test_a_text_in_streams_is_as_many_texts(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    text = torch.randint(len(WORDS), (500,), generator=torch.Generator().manual_seed(4), dtype=torch.int32)
    before = [Vocabulary.eos, *text[9::10].tolist()]
    keyboard = Keyboard(WORDS)
    parts = [clicks(model, part, keyboard, first=before[at], streams=1) for at, part in enumerate(text.split(10))]
    monkeypatch.setattr(click_ratio, "_WINDOW", 150)  # of three words in each stream
    found = clicks(model, text, keyboard, streams=50)
    expected = torch.cat([torch.cat([part.target[:, None], part.ranks], 1) for part in parts]).tolist()
    assert sorted(torch.cat([found.target[:, None], found.ranks], 1).tolist()) == sorted(expected)


def test_ranks_never_rise_and_more_suggestions_never_hurt(model: LanguageModel) -> None:
    text = torch.randint(len(WORDS), (500,), generator=torch.Generator().manual_seed(3), dtype=torch.int32)
    found = clicks(model, text, Keyboard(WORDS))
    assert (found.ranks.diff(dim=1) <= 0).all()
    ratios = [found.ratio(k) for k in range(1, len(suggestable(WORDS)) + 1)]
    assert ratios == sorted(ratios)
    assert found.ratio(len(suggestable(WORDS))) == pytest.approx(len(found.target) / found.words)
    assert 0 <= found.savings(1) <= found.savings(3) < 1


def test_the_model_keeps_its_mode(model: LanguageModel) -> None:
    model.train()
    clicks(model, numbers("a", "b"), Keyboard(WORDS))
    assert model.training


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda m, k: clicks(m, torch.empty(0, dtype=torch.int32), k), "no tokens"),
        (lambda m, k: clicks(m, numbers(UNK, ",", EOS, UNK), k), "2 words and none of them"),
        (lambda m, k: clicks(m, numbers(",", EOS), k), "0 words and none of them"),
        (lambda m, k: clicks(m, numbers("a"), Keyboard(WORDS[:5])), "the model knows 15 words, the keyboard 5"),
        (lambda m, k: clicks(m, numbers("a"), k).ratio(0), "0 suggestions"),
        (lambda m, k: clicks(m, numbers("a"), k).ratio(12), "12 suggestions, but only 11"),
        (lambda m, k: clicks(m, numbers("a"), k).savings(12), "12 suggestions, but only 11"),
        (lambda m, k: k.suggest(torch.zeros(len(WORDS)), k=12), "12 suggestions, but only 11"),
        (lambda m, k: k.ranks(torch.zeros(1, len(WORDS)), torch.tensor([0])), "never suggested"),
        (lambda m, k: k.ranks(torch.zeros(1, len(WORDS)), torch.tensor([3])), "never suggested"),
        (lambda m, k: k.ranks(torch.full((1, len(WORDS)), math.nan), torch.tensor([2])), "NaN"),
        (lambda m, k: Keyboard((UNK, EOS, ",")), "nothing to suggest"),
    ],
)
def test_bad_input_is_refused(model: LanguageModel, act: Callable[..., object], says: str) -> None:
    with pytest.raises(FewbitsError, match=says):
        act(model, Keyboard(WORDS))


def test_counts_of_clicks() -> None:
    none = Clicks(torch.tensor([2]), torch.tensor([[9, 9]], dtype=torch.int32), torch.tensor([1]), 3, most=11)
    assert (none.ratio(3), none.savings(3), none.words) == (0, 0, 4)
