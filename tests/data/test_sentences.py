"""Sentences as they were written: parts, sides, and what is refused."""

import os

import pytest

from fewbits.data import check, data_table, load_pairs, load_sentences, registry
from fewbits.errors import FewbitsError

PARTS = {"train": ("A dog.\n Two  cats. \n", "Ein Hund.\nZwei Katzen.\n"), "valid": ("No.\n", "Nein.\n"),
         "test_2016": ("Yes!\n", "Ja!\n")}  # fmt: skip


def test_files_become_pairs_of_each_part(study) -> None:
    study.sentences("toys", PARTS)
    found = load_sentences("toys")
    assert found.parts == {
        "train": (("A dog.", "Ein Hund."), ("Two  cats.", "Zwei Katzen.")),
        "valid": (("No.", "Nein."),),
        "test_2016": (("Yes!", "Ja!"),),
    }
    assert found.tests == ("test_2016",)
    assert check("toys").ok
    assert found.hashes.keys() == {f"toys/{part}.{side}" for part in PARTS for side in ("source", "target")}
    row = data_table().set_index("name").loc["toys"]
    assert (row["language"], row["tokens"]) == ("English to German", 2)


@pytest.mark.parametrize(
    ("source", "message"), [("A dog.\n", r"1 lines and 2 translations"), ("A dog.\n \n", "sentence 2 is empty")]
)
def test_lines_that_do_not_match_are_refused(study, source: str, message: str) -> None:
    study.sentences("toys", PARTS | {"train": (source, PARTS["train"][1])})
    with pytest.raises(FewbitsError, match=message):
        load_sentences("toys")


def test_a_part_with_one_side_is_no_valid_registry(study) -> None:
    study.sentences("toys", PARTS)
    study.entries["toys"]["files"].pop()
    study.write()
    with pytest.raises(FewbitsError, match="one file for each side of each part"):
        registry.entries()


def test_a_damaged_file_is_refused(study) -> None:
    study.sentences("toys", PARTS)
    study.put("toys/valid.source", b"Nope.\n")
    with pytest.raises(FewbitsError, match=r"toys/valid.source of the data set|is not the file toys/valid.source"):
        load_sentences("toys")


def test_each_kind_of_data_is_read_by_its_own_name(study) -> None:
    study.sentences("toys", PARTS)
    with pytest.raises(FewbitsError, match="sentences as they were written"):
        load_pairs("toys")
    study.splits("text", "a b", "a", "b")
    with pytest.raises(FewbitsError, match=r"Sentences as they were written are in: toys"):
        load_sentences("text")


def test_of_twenty_verses_one_is_for_the_test_and_one_for_validation(study) -> None:
    rows = [(1, 1, n, f"God said {'a' * n}.", f"Dieu dit « {'b' * n} ».") for n in range(1, 46)]
    study.verses([*rows, (2, 1, 1, "word " * 16, "mot"), (19, 1, 1, "Blessed.", "Heureux.")])
    parts = load_sentences("verses").parts
    pairs = [(french, english) for *_, english, french in rows]
    kept = sorted([pair for part in parts.values() for pair in part], key=lambda pair: len(pair[0]))
    assert kept == pairs  # the title of a psalm and the long verse are left out; signs and case stay
    assert parts["test"] == tuple(pairs[::20])
    assert parts["valid"] == tuple(pairs[1::20])
    assert {part: len(found) for part, found in parts.items()} == {"train": 39, "valid": 3, "test": 3}


@pytest.mark.shared_data
@pytest.mark.skipif(not os.environ.get("FEWBITS_DATA"), reason="FEWBITS_DATA is not set")
@pytest.mark.parametrize("name", ["multi30k-en-de", "multi30k-en-fr", "newstest2014-en-de", "newstest2014-en-fr"])
def test_the_numbers_of_the_registry_are_those_of_the_files(name: str) -> None:
    entry, found = registry.sentence_files(name), load_sentences(name)
    assert {part: len(pairs) for part, pairs in found.parts.items()} == entry.pairs
    words = [sum(len(pair[side].split()) + 1 for pairs in found.parts.values() for pair in pairs) for side in (0, 1)]
    assert words == list(entry.tokens.values())
