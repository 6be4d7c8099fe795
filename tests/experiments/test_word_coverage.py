"""Coverage of a made-up text against counting by hand."""

from collections import Counter

import pytest
import torch

from fewbits.data import Corpus, Source, Vocabulary, data_hashes
from fewbits.experiments import word_coverage
from fewbits.experiments.word_coverage import SHARES, WordCoverage, runs
from fewbits.study.profiles import Profile
from fewbits.study.records import Result
from fewbits.study.run import run

TYPES = 200
UNK, EOS = 0, 1


def made_up(name: str) -> Corpus:
    """5,000 words by Zipf's law, <unk> and <eos> among them; the last words of the vocabulary never occur."""
    chance = 1 / torch.arange(1.0, TYPES - 9)
    words = torch.multinomial(chance, 5_000, replacement=True, generator=torch.Generator().manual_seed(5)).int()
    vocabulary = Vocabulary(("<unk>", "<eos>", *(f"w{number}" for number in range(2, TYPES))))
    other = torch.full((50,), 199, dtype=torch.int32)
    return Corpus(name, vocabulary, words, other, other, {"it": "ab"}, Source.CACHE)


@pytest.fixture
def result(monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setattr(word_coverage, "load_corpus", made_up)
    monkeypatch.setattr(word_coverage, "data_hashes", lambda name: {"it": "ab"})
    return run(WordCoverage(corpus="made-up"), Profile.SMOKE, device="cpu").result


def covered(words: list[int], share: float) -> float:
    counts = Counter(words)
    return sum(count for _, count in counts.most_common(round(share * len(counts)))) / len(words)


def test_a_fifth_of_the_types_is_counted_with_all_tokens_and_with_words_alone(result: Result) -> None:
    text = made_up("").train.tolist()
    words = [word for word in text if word not in (UNK, EOS)]
    assert len(words) < len(text)
    assert result.metrics == {
        "coverage_percent": pytest.approx(100 * covered(text, 0.2), rel=1e-12),
        "coverage_percent_of_words": pytest.approx(100 * covered(words, 0.2), rel=1e-12),
        "types": len(set(text)),
        "train_tokens": 5_000,
    }
    assert result.metrics["coverage_percent"] != result.metrics["coverage_percent_of_words"]
    assert len(set(text)) < TYPES, "words that do not occur are no types"


def test_the_curve_goes_from_nothing_to_all_of_the_training_text(result: Result) -> None:
    text = made_up("").train.tolist()
    assert list(SHARES) == [2 * place / 100 for place in range(51)]
    assert result.arrays == {"coverage": pytest.approx([covered(text, share) for share in SHARES], rel=1e-12)}
    curve = result.arrays["coverage"]
    assert (curve[0], curve[-1]) == (0, 1)
    assert result.metrics["coverage_percent"] == 100 * curve[10]


def test_full_reads_four_texts_and_the_other_profiles_the_news() -> None:
    assert [each.name for each in runs(Profile.FULL)] == ["ptb", "wikitext-2", "polish", "news"]
    for profile in (Profile.SMOKE, Profile.LAPTOP):
        assert [each.corpus for each in runs(profile)] == ["news"]


def test_the_hashes_are_those_of_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert word_coverage.data_hashes is data_hashes
    monkeypatch.setattr(word_coverage, "data_hashes", lambda name: {"file": name})
    assert WordCoverage(corpus="polish").data_hashes() == {"file": "polish"}


def test_counting_is_done_on_the_processor_whatever_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [WordCoverage().runs_on(asked) for asked in ("auto", "cpu", "cuda")] == ["cpu"] * 3
