import os
from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.data import Vocabulary, coverage, load_corpus
from fewbits.errors import FewbitsError


@given(st.lists(st.sampled_from(["a", "b", "c", "ć", "Z", "<unk>", "<eos>"])))
def test_words_stand_by_frequency_then_by_code_point(tokens: list[str]) -> None:
    words = Vocabulary.ranked(Counter(tokens)).words
    assert words[:2] == ("<unk>", "<eos>")
    assert set(words) == {*tokens, "<unk>", "<eos>"}
    ranks = [(-tokens.count(word), word) for word in words[2:]]
    assert ranks == sorted(ranks)


def test_the_order_of_the_text_does_not_matter() -> None:
    assert Vocabulary.ranked({"x": 1, "y": 1}) == Vocabulary.ranked({"y": 1, "x": 1})


def test_encode_and_decode() -> None:
    vocabulary = Vocabulary(("<unk>", "<eos>", "the", "cat"))
    ids = vocabulary.encode(["cat", "sat", "<eos>"])
    assert ids.dtype == torch.int32
    assert ids.tolist() == [3, 0, 1]
    assert vocabulary.words[vocabulary.unk] == "<unk>"
    assert vocabulary.words[vocabulary.eos] == "<eos>"
    assert vocabulary.decode(ids) == ["cat", "<unk>", "<eos>"]


@pytest.mark.parametrize("size", [-1, 2, 5])
def test_a_size_that_cannot_be_is_refused_with_both_numbers(size: int) -> None:
    with pytest.raises(FewbitsError, match=rf"{size} words.*4 types"):
        Vocabulary(("<unk>", "<eos>", "a", "b")).limited(size)


# --- coverage --------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=200),
    st.sampled_from([torch.int32, torch.int64]),
    st.integers(0, 20),
)
def test_coverage_against_brute_force(words: list[int], dtype: torch.dtype, twentieths: int) -> None:
    share = Fraction(twentieths, 20)
    types = set(words)
    size = round(share * len(types))
    covered, left = 0, list(words)
    for _ in range(size):
        best = max(set(left), key=left.count)
        covered += left.count(best)
        left = [word for word in left if word != best]
    assert coverage(torch.tensor(words, dtype=dtype), float(share)) == pytest.approx(covered / len(words), rel=1e-6)


def test_coverage_has_exact_ends_and_ignores_the_shape() -> None:
    tokens = torch.tensor([5, 5, 5, 9, 2, 3, 4, 5])
    assert coverage(tokens, 0) == 0
    assert coverage(tokens, 1) == 1
    assert coverage(tokens) == 0.5 == coverage(tokens.view(2, 4))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(FewbitsError, match="from 0 to 1"):
        coverage(torch.tensor([1]), share)


@pytest.mark.parametrize("tokens", [torch.tensor([]), torch.empty(0, dtype=torch.int32), torch.tensor([1, -1])])
def test_coverage_of_no_word_numbers_is_refused(tokens: torch.Tensor) -> None:
    with pytest.raises(FewbitsError, match="coverage needs word numbers"):
        coverage(tokens)


@pytest.mark.shared_data
@pytest.mark.skipif(not os.environ.get("FEWBITS_DATA"), reason="set FEWBITS_DATA to the folder of the reference data")
def test_a_fifth_of_the_types_of_ptb() -> None:
    corpus = load_corpus("ptb")
    counts = sorted(Counter(corpus.vocabulary.decode(corpus.train)).values(), reverse=True)
    assert coverage(corpus.train) == pytest.approx(sum(counts[:2000]) / sum(counts), rel=1e-6)
    assert round(100 * coverage(corpus.train), 1) == 86.9
