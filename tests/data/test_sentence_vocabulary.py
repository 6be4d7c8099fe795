import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.data import SentenceVocabulary
from fewbits.errors import FewbitsError

SENTENCES = st.lists(st.lists(st.sampled_from(["a", "b", "ć", "Z", "longer"])), max_size=8)


@given(SENTENCES, st.sampled_from([None, 1, 2, 3]))
def test_words_stand_by_frequency_then_by_code_point(sentences: list[list[str]], minimum: int | None) -> None:
    together = [word for sentence in sentences for word in sentence]
    words = SentenceVocabulary.of(sentences, minimum).words
    special = ("<sos>", "<eos>") if minimum is None else ("<sos>", "<eos>", "<unk>")
    assert words[: len(special)] == special
    assert set(words[len(special) :]) == {word for word in together if together.count(word) >= (minimum or 1)}
    ranks = [(-together.count(word), word) for word in words[len(special) :]]
    assert ranks == sorted(ranks)


@given(SENTENCES, st.data())
def test_decoding_undoes_encoding(sentences: list[list[str]], data: st.DataObject) -> None:
    vocabulary = SentenceVocabulary.of(sentences)
    for sentence in sentences:
        ids = vocabulary.encode(sentence)
        assert ids.dtype == torch.int64
        assert ids.shape == (len(sentence) + 1,)
        assert ids[-1] == vocabulary.eos
        after = data.draw(st.lists(st.integers(-3, 20)))
        assert vocabulary.decode([vocabulary.sos, *ids.tolist(), *after]) == sentence
        assert vocabulary.decode(ids) == vocabulary.decode(ids[:-1]) == sentence


def test_unknown_words_become_unk_where_there_is_one() -> None:
    vocabulary = SentenceVocabulary.of([["a", "a", "b"]], minimum_count=2)
    assert vocabulary.unk == 2
    assert vocabulary.encode(["b", "a", "Ω", "<eos>", "<unk>"]).tolist() == [2, 3, 2, 2, 2, 1]
    assert vocabulary.encode([]).tolist() == [1]
    assert len(vocabulary) == 4


def test_unknown_words_are_named_where_there_is_no_unk() -> None:
    vocabulary = SentenceVocabulary.of([["a", "b"]])
    assert vocabulary.unk is None
    with pytest.raises(FewbitsError, match=r"4 words, which has no <unk>: 'Ω', 'é', '<sos>'\."):
        vocabulary.encode(["a", "Ω", "é", "b", "<sos>"])


def test_words_written_like_the_special_ones_are_not_counted() -> None:
    text = [["<eos>", "<sos>", "<unk>", "a"]] * 3
    assert SentenceVocabulary.of(text).words == ("<sos>", "<eos>", "a")
    assert SentenceVocabulary.of(text, 1).words == ("<sos>", "<eos>", "<unk>", "a")


def test_a_text_in_place_of_tokens_is_refused() -> None:
    with pytest.raises(FewbitsError, match=r"'a b' is a text.*tokens\(text\)"):
        SentenceVocabulary.of([["a", "b"]]).encode("a b")


@pytest.mark.parametrize("number", [-1, 4])
def test_a_number_outside_the_vocabulary_is_refused(number: int) -> None:
    with pytest.raises(FewbitsError, match=rf"no word {number}: .*0 to 3"):
        SentenceVocabulary.of([["a", "b"]]).decode([2, number])
