"""The document's four rows: small archives of fairseq's own, translated as fairseq did (``tests/models/fairseq``)."""

import collections
import functools
import io
import json
import math
import os
import random
import shutil
import tarfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml

from fewbits.classifiers import MaxShift
from fewbits.data import Sentences, load_sentences, registry
from fewbits.errors import FewbitsError
from fewbits.evaluation.search import Beam, beam_search
from fewbits.evaluation.translation import bleu
from fewbits.experiments import published_translators
from fewbits.experiments.published_translators import (
    ROWS,
    Filled,
    Row,
    archive_of,
    moses_tokens,
    tokenised_bleu,
    translate_archive,
)
from fewbits.models import padded
from fewbits.models.fairseq import FairseqModel, load_fairseq

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "tests" / "models" / "fairseq"
STORED = json.loads((SMALL / "hypotheses.json").read_text(encoding="utf-8"))
ROW = Row("small", "small.tar.bz2", "xx", "yy")
CHECKPOINTS = ["separate", "joined-2018", "fconv"]


def fairseqs(name: str) -> list[str]:
    """What fairseq wrote with its defaults, as it scores it."""
    best = [one[0]["words"].removesuffix("</s>") for one in STORED["models"][name.removesuffix("-2018")]["default"]]
    return [f"{words} ".replace("@@ ", "").strip() for words in best]


def pairs(name: str = "separate") -> tuple[tuple[str, str], ...]:
    """Every other reference is what fairseq wrote, the others have another first word and a dash; all end in a sign."""
    written = [words if n % 2 else f"{words.replace(' ', '-', 1)} quux" for n, words in enumerate(fairseqs(name))]
    return tuple(zip(STORED["sentences"], [f"{words}." for words in written], strict=True))


@pytest.fixture(autouse=True)
def small_test(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Sentences:
        assert name == "newstest2014-xx-yy"
        return Sentences(name, {"test_2014": pairs()}, {})

    monkeypatch.setattr(published_translators, "load_sentences", load)


def folder(tmp_path: Path, name: str = "separate") -> Path:
    """The files of an archive, in a folder of it."""
    made = tmp_path / "archive" / "wmt.xx-yy"
    made.mkdir(parents=True)
    joined = name.startswith("joined")
    for file, found in (
        ("model.pt", f"{name}.pt"),
        ("bpecodes", "codes"),
        ("dict.xx.txt", "joined.txt" if joined else "separate.xx.txt"),
        ("dict.yy.txt", "joined.txt" if joined else "separate.yy.txt"),
    ):
        shutil.copy(SMALL / found, made / file)
    return made.parent


def packed(source: Path, target: Path) -> Path:
    with tarfile.open(target, "w:bz2") as file:
        file.add(source, source.name)
    return target


def counted(tokens: Sequence[str], references: Sequence[str]) -> float:
    """BLEU by its definition: clipped precisions of the corpus and the penalty of brevity."""
    logarithms = []
    for n in range(1, 5):
        right = total = 0
        for line, reference in zip(tokens, references, strict=True):
            ours, theirs = (
                collections.Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
                for words in (line.split(), reference.split())
            )
            right += sum((ours & theirs).values())
            total += sum(ours.values())
        logarithms.append(math.log(right / total))
    lengths = [sum(len(line.split()) for line in lines) for lines in (tokens, references)]
    return 100 * math.exp(sum(logarithms) / 4 + min(0, 1 - lengths[1] / lengths[0]))


# --- what an archive says ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_beam_search_writes_what_fairseq_wrote(tmp_path: Path, name: str) -> None:
    filled = translate_archive(ROW, folder(tmp_path, name), device="cpu")
    assert list(filled.searches) == ["greedy", "beam_softmax", "beam_max_shift"]
    assert list(filled.searches["beam_softmax"].tokens) == fairseqs(name)
    greedy = filled.searches["greedy"]
    for searched in filled.searches.values():
        assert searched.same == sum(a == b for a, b in zip(searched.tokens, greedy.tokens, strict=True))
        assert searched.texts == searched.tokens  # words of this language have no signs
        assert searched.detokenised == bleu(searched.texts, [reference for _, reference in pairs()])
    assert greedy.same == len(pairs()) > filled.searches["beam_softmax"].same


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published_translators, "load_sentences", lambda name: Sentences(name, {"test_2014": pairs()}, {}))
        return translate_archive(ROW, folder(tmp_path_factory.mktemp("archive")), device="cpu")


def test_tokenised_bleu_is_that_of_its_definition(filled: Filled) -> None:
    references = [reference.replace("-", " @-@ ").replace(".", " .") for _, reference in pairs()]
    assert list(filled.references) == references
    assert filled.reference_words == sum(len(line.split()) for line in references)
    for searched in filled.searches.values():
        assert searched.tokenised == pytest.approx(counted(searched.tokens, references), rel=1e-12)
    assert 0 < filled.searches["beam_softmax"].tokenised < 100
    assert filled.searches["beam_softmax"].tokenised != filled.searches["beam_softmax"].detokenised.score


def test_tokenised_bleu_is_zero_without_a_match_of_four_words() -> None:
    assert tokenised_bleu(["a b c d"], ["a b c e"]) == 0


def test_what_max_shift_keeps_is_a_share_of_beam_search(filled: Filled) -> None:
    softmax, max_shift = filled.searches["beam_softmax"], filled.searches["beam_max_shift"]
    assert filled.kept_tokenised == pytest.approx(100 * max_shift.tokenised / softmax.tokenised)
    assert filled.kept_detokenised == pytest.approx(100 * max_shift.detokenised.score / softmax.detokenised.score)
    nothing = {"beam_softmax": replace(softmax, tokenised=0.0), "beam_max_shift": max_shift}
    assert Filled(ROW, filled.references, nothing).kept_tokenised is None


@pytest.mark.parametrize(("search", "width"), [("greedy", 1), ("beam_max_shift", 5)])
def test_the_other_searches_have_the_same_rules(filled: Filled, tmp_path: Path, search: str, width: int) -> None:
    files = folder(tmp_path) / "wmt.xx-yy"
    loaded = load_fairseq(*(files / name for name in ("model.pt", "dict.xx.txt", "dict.yy.txt")))
    classifier = MaxShift(loaded.model.classifier.hidden_size, len(loaded.target))
    classifier.output = loaded.model.classifier.get_submodule("output")  # type: ignore[assignment]
    beam = Beam(width, 201, excluded=(1,), min_length=1, force_end=True)
    source = padded([loaded.source.encode(line) for line in STORED["lines"]])
    found = beam_search(loaded.model, classifier, source, sos=2, eos=2, beam=beam)
    lines = [f"{loaded.target.decode(one.words)} ".replace("@@ ", "").strip() for one, *_ in found]
    assert list(filled.searches[search].tokens) == lines


def test_an_archive_says_what_its_folder_says(filled: Filled, tmp_path: Path) -> None:
    archive = packed(folder(tmp_path), tmp_path / ROW.file)
    assert translate_archive(ROW, archive, device="cpu") == filled


def test_an_archive_is_found_in_a_folder_packed_or_not(tmp_path: Path) -> None:
    assert archive_of(ROW, str(tmp_path)) is None
    (tmp_path / "small").mkdir()
    assert archive_of(ROW, str(tmp_path)) == tmp_path / "small"
    (tmp_path / ROW.file).touch()
    assert archive_of(ROW, str(tmp_path)) == tmp_path / ROW.file


def test_an_archive_is_fetched_once_from_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    (tmp_path / "home").mkdir()
    content = packed(folder(tmp_path), tmp_path / "home" / ROW.file).read_bytes()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "home"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        path = archive_of(ROW, address)
        assert path is not None
        assert path.read_bytes() == content
        (tmp_path / "home" / ROW.file).unlink()
        assert archive_of(ROW, address) == path
        with pytest.raises(
            FewbitsError, match=r"127\.0\.0\.1:\d+/other was not fetched.*\n.*folder where you have other"
        ):
            archive_of(replace(ROW, file="other"), address)
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        server.shutdown()


def test_padding_is_never_written(filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def likely_padding(*files: Path) -> FairseqModel:
        loaded = load_fairseq(*files)
        with torch.no_grad():
            loaded.model.classifier.get_submodule("output").bias[loaded.target.pad] = 9.0  # type: ignore[index]
        return loaded

    monkeypatch.setattr(published_translators, "load_fairseq", likely_padding)
    padding = translate_archive(ROW, folder(tmp_path), device="cpu")
    assert padding.searches["greedy"].tokens == filled.searches["greedy"].tokens  # it is left out, the order stays


def test_the_first_sentences_alone(filled: Filled, tmp_path: Path) -> None:
    few = translate_archive(ROW, folder(tmp_path), sentences=3, device="cpu")
    assert few.references == filled.references[:3]
    assert few.searches["beam_softmax"].tokens == filled.searches["beam_softmax"].tokens[:3]


# --- the rows ------------------------------------------------------------------------------------------------------


def test_rows_are_those_of_the_document() -> None:
    claims = yaml.safe_load((ROOT / "data" / "claims" / "max_shift.yaml").read_text(encoding="utf-8"))
    (published,) = [claim["published"] for claim in claims["claims"] if claim["id"] == "M10"]
    assert {one["name"].rpartition(" ")[0] for one in published} == {row.name for row in ROWS}
    for row in ROWS:
        assert registry.sentence_files(row.test).language.endswith("French" if row.target == "fr" else "German")
        assert row.name.lower().endswith(f"{row.source}-{row.target}")


def test_words_are_split_at_dashes_where_the_model_learned_them_so() -> None:
    sentence = "It’s a well-known “test” — so."
    assert moses_tokens([sentence], "en", dashes=True) == ["It &apos;s a well @-@ known “ test ” — so ."]
    assert moses_tokens([sentence], "en", dashes=False) == ["It &apos;s a well-known “ test ” — so ."]


@pytest.mark.shared_data
@pytest.mark.skipif(not os.environ.get("FEWBITS_DATA"), reason="FEWBITS_DATA is not set")
def test_the_french_references_have_as_many_words_as_fairseq_printed() -> None:
    row = ROWS[0]
    references = [target for _, target in load_sentences(row.test).parts["test_2014"]]
    assert sum(len(line.split()) for line in moses_tokens(references, "fr", row.dashes)) == row.printed_words


# --- what is no archive --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.pt", "bpecodes", "dict.xx.txt", "dict.yy.txt"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    files = folder(tmp_path)
    next(files.rglob(name)).unlink()
    with pytest.raises(FewbitsError, match=rf"archive has no {name}; small needs the files model.pt, bpecodes, dict"):
        translate_archive(ROW, files)


def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    files = folder(tmp_path)
    (files / "z").write_bytes(random.Random(0).randbytes(2_000_000))  # more than a block of bzip2, after the others
    whole = packed(files, tmp_path / "whole.tar.bz2").read_bytes()
    part = tmp_path / "part.tar.bz2"
    for size in (0, 3, len(whole) // 2, len(whole) - 20):
        part.write_bytes(whole[:size])
        with pytest.raises(FewbitsError, match=r"part.tar.bz2 is no archive .* or only a part of one"):
            translate_archive(ROW, part)


def test_an_archive_writes_nothing_beside_its_folder(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar.bz2", "w:bz2") as file:
        member = tarfile.TarInfo("../../model.pt")
        member.size = 1
        file.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(FewbitsError, match="outside"):
        translate_archive(ROW, tmp_path / "bad.tar.bz2")


def test_other_wrong_requests_are_refused(tmp_path: Path) -> None:
    files = folder(tmp_path)
    with pytest.raises(FewbitsError, match="no archive and no folder"):
        translate_archive(ROW, tmp_path / "nothing.tar.bz2")
    with pytest.raises(FewbitsError, match="sentences is 0"):
        translate_archive(ROW, files, sentences=0)
    with pytest.raises(FewbitsError, match="'tpu' is unknown"):
        translate_archive(ROW, files, device="tpu")
    shutil.copytree(files / "wmt.xx-yy", files / "other")
    with pytest.raises(FewbitsError, match="has 2 models"):
        translate_archive(ROW, files)
