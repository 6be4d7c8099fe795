"""Pieces of words: what is encoded comes back, and the most frequent pairs are merged."""

import re
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.data import Subwords
from fewbits.errors import FewbitsError

TEXTS = [
    "Ein Mann fährt Rad; zwei Männer fahren.", "A man rides a bike - two men ride.", "L'été, c'est l'été « ici » !",
    "the cat sat on the mat", "the hat", "that cat", "ﬁne – Ⅷ", "a  b\tc",
]  # fmt: skip
SUBWORDS = Subwords.train(TEXTS, 90)
KNOWN = "".join(sorted({character for text in TEXTS for character in text if not character.isspace()}))


@given(st.lists(st.text(KNOWN, min_size=1, max_size=12), max_size=6))
def test_what_is_encoded_comes_back(words: list[str]) -> None:
    text = " ".join(words)
    numbers = SUBWORDS.encode(text)
    assert numbers.dtype == torch.int64
    assert numbers[-1] == SUBWORDS.eos
    assert SUBWORDS.eos not in numbers[:-1]
    assert SUBWORDS.unk not in numbers
    assert SUBWORDS.decode(numbers) == text
    assert SUBWORDS.decode(torch.cat([numbers, torch.tensor([5, 6])])) == text  # what follows the end is not read


@pytest.mark.parametrize("text", TEXTS)
def test_only_runs_of_blanks_change(text: str) -> None:
    assert SUBWORDS.decode(SUBWORDS.encode(text)) == re.sub(" +", " ", text)


def test_the_first_merge_is_the_most_frequent_pair() -> None:
    texts = ["abab abab cd", "abab cd xab"]
    one = Subwords.train(texts, 3 + len("abcdx▁") + 1)  # <sos>, <eos>, <unk>, the characters, and one merge
    pairs = Counter(pair for text in texts for word in text.split() for pair in zip(f"▁{word}", word, strict=False))
    assert max(pairs.values()) == pairs["a", "b"]
    assert one.pieces("abab") == ["▁", "ab", "ab"]


def test_unknown_characters_are_seen() -> None:
    numbers = SUBWORDS.encode("the ☃")
    assert SUBWORDS.unk in numbers
    assert SUBWORDS.decode(numbers).split() == ["the", "⁇"]


def test_the_same_texts_give_the_same_pieces_and_a_model_can_be_kept() -> None:
    again = Subwords.train(iter(TEXTS), 90)
    assert again.model == SUBWORDS.model
    assert Subwords(again.model).pieces("the mat") == SUBWORDS.pieces("the mat")
    assert len(again) == 90
    assert SUBWORDS.encode("").tolist() == [SUBWORDS.eos]


@pytest.mark.parametrize("size", [5, 5_000])
def test_numbers_of_pieces_that_cannot_be_are_refused(size: int) -> None:
    with pytest.raises(FewbitsError, match=f"do not give {size:,} pieces"):
        Subwords.train(TEXTS, size)


@pytest.mark.parametrize("number", [-1, 90])
def test_numbers_outside_the_vocabulary_are_refused(number: int) -> None:
    with pytest.raises(FewbitsError, match="0 to 89"):
        SUBWORDS.decode([4, number])
