from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.data import Vocabulary
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
