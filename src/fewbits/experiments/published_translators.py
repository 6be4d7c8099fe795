"""The four translators of the document's table (M10) as fairseq published them, for whoever has their archives.

No planned run reads them: an archive is given by its path, and what it says is returned, not recorded.
"""

import contextlib
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fewbits import project
from fewbits.classifiers import Classifier, Constant, Softmax
from fewbits.data import load_sentences
from fewbits.errors import FewbitsError
from fewbits.evaluation.search import Hypothesis
from fewbits.evaluation.translation import Bleu, bleu
from fewbits.experiments.choice import check_counts
from fewbits.experiments.transformer_translation.decoding import BEAM, SEARCHES, fairseq_beam, hypotheses, max_shift
from fewbits.models.fairseq import FairseqModel, MosesBpe, load_fairseq, remove_bpe
from fewbits.study.run import resolve

_HOME = "https://dl.fbaipublicfiles.com/fairseq/models"
CODES = "bpecodes"
MODEL = "model.pt"
LONGEST = 201  #: words of a translation at most, the end included: fairseq's default
PART = "test_2014"


@dataclass(frozen=True)
class Row:
    """A row of the document's table: which archive, and how its text was made.

    Of two rows fairseq's authors printed how many words the references in their own file of the test have: in the
    README of its translation examples, and for ConvS2S into German in issue 124 of fairseq, beside a BLEU as in the
    document. Into German they are too few for all sentences of newstest2014, so that the document's row is of another
    choice of sentences than ours.
    """

    name: str  #: as in claim M10
    file: str  #: the archive's published name
    source: str  #: language
    target: str
    dashes: bool = True  #: whether words are split at dashes (``-a`` of Moses); Google's text for WMT16 was not
    printed_words: int | None = None  #: words of the references that fairseq printed

    @property
    def address(self) -> str:
        """Where the archive was published."""
        return f"{_HOME}/{self.file}"

    @property
    def test(self) -> str:
        """The name of the data set that is translated."""
        return f"newstest2014-{self.source}-{self.target}"


ROWS = (
    Row("ConvS2S WMT14 En-Fr", "wmt14.v2.en-fr.fconv-py.tar.bz2", "en", "fr", printed_words=82_787),
    Row("ConvS2S WMT14 En-De", "wmt14.en-de.fconv-py.tar.bz2", "en", "de", printed_words=59_297),
    Row("Transformer WMT14 En-Fr", "wmt14.en-fr.joined-dict.transformer.tar.bz2", "en", "fr"),
    Row("Transformer WMT16 En-De", "wmt16.en-de.joined-dict.transformer.tar.bz2", "en", "de", dashes=False),
)


@dataclass(frozen=True)
class Searched:
    """What one way of search wrote."""

    tokens: tuple[str, ...]  #: Moses tokens of each translation, BPE removed: what fairseq scores
    texts: tuple[str, ...]  #: the translations as one reads them
    tokenised: float  #: BLEU of ``tokens`` in percent: `tokenised_bleu`
    detokenised: Bleu  #: of ``texts``, against the references as they were written
    same: int  #: sentences with the words of greedy search


@dataclass(frozen=True)
class Filled:
    """A row with the numbers of an archive."""

    row: Row
    references: tuple[str, ...]  #: Moses tokens of each
    searches: dict[str, Searched]  #: by the names in ``SEARCHES``

    @property
    def reference_words(self) -> int:
        """How many tokens the references have, to compare with ``row.printed_words``."""
        return sum(len(line.split()) for line in self.references)

    @property
    def kept_tokenised(self) -> float | None:
        """BLEU of beam search with max-shift in percent of that with softmax; None where that is 0."""
        return self._kept(lambda searched: searched.tokenised)

    @property
    def kept_detokenised(self) -> float | None:
        """The same of the BLEU of detokenised text."""
        return self._kept(lambda searched: searched.detokenised.score)

    def _kept(self, score: Callable[[Searched], float]) -> float | None:
        whole = score(self.searches["beam_softmax"])
        return 100 * score(self.searches["beam_max_shift"]) / whole if whole else None


def archive_of(row: Row, place: str) -> Path | None:
    """Return the archive of a row, or None where a folder does not have it.

    Nobody knows the hash that a published archive must have. It is read without running what it names.

    Args:
        row: what the archive is.
        place: a folder, which holds it packed or unpacked, or an ``http`` address that ends before the file's name,
            from which it is fetched into the cache, once, whole or not at all.

    Raises:
        FewbitsError: If it cannot be fetched.
    """
    if not place.startswith(("http://", "https://")):
        named = [Path(place) / row.file, Path(place) / row.file.removesuffix(".tar.bz2")]
        return next((path for path in named if path.exists()), None)
    import pooch

    address = f"{place.rstrip('/')}/{row.file}"
    try:
        return Path(pooch.retrieve(address, None, row.file, project.cache() / "archives", progressbar=True))
    except (OSError, ValueError) as error:
        raise FewbitsError(
            f"{address} was not fetched: {error}\nCheck the network and the disk and run it again, or give the "
            f"folder where you have {row.file}."
        ) from error


def translate_archive(row: Row, archive: Path, *, sentences: int | None = None, device: str = "auto") -> Filled:
    """Return what the model in ``archive`` makes of the test by each search, with fairseq's defaults.

    Greedy search is a beam of 1 with the rules of the others; beam search is of 5, with softmax, and with max-shift and
    b = 0. Sentences become tokens as fairseq's scripts make tests of them: ``’`` is ``'``, then Moses's tokenizer, but
    no other punctuation is normalised.

    Args:
        row: what the archive is.
        archive: the ``.tar.bz2`` itself, which is unpacked into a temporary folder, or a folder with its files.
        sentences: the first so many of the test; None is all.
        device: auto, cpu or cuda.

    Raises:
        FewbitsError: If the test, the archive or a file in it is missing or damaged, or the model is of another kind;
            or ``sentences`` is below 1.
    """
    check_counts(sentences=sentences)
    processor = resolve(device)
    pairs = load_sentences(row.test).parts[PART][:sentences]
    with _unpacked(archive, _names(row)) as folder:
        model, codes, source, target = _files(folder, row, archive)
        loaded = load_fairseq(model, source, target)
        text = MosesBpe(row.source, row.target, codes)
    loaded.model.to(processor)
    pieces = [text.pieces(line) for line in moses_tokens([source for source, _ in pairs], row.source, row.dashes)]
    written = _translations(loaded, pieces)
    references = [target for _, target in pairs]
    tokens = tuple(moses_tokens(references, row.target, row.dashes))
    searches = {
        search: _scored(loaded, text, found, written["greedy"], tokens, references) for search, found in written.items()
    }
    return Filled(row, tokens, searches)


def moses_tokens(sentences: Sequence[str], language: str, dashes: bool) -> list[str]:
    """Return the tokens of tests as ``prepare-wmt14en2fr.sh`` of fairseq makes them, with blanks between.

    Args:
        sentences: as they were written.
        language: such as ``en``.
        dashes: whether words are split at dashes, ``a-b`` being ``a @-@ b``.

    >>> moses_tokens(["L’avant-garde, enfin."], "fr", dashes=True)
    ['L&apos; avant @-@ garde , enfin .']
    """
    from sacremoses import MosesTokenizer

    tokenizer = MosesTokenizer(language)
    return [str(tokenizer.tokenize(line.replace("’", "'"), dashes, True)) for line in sentences]


def tokenised_bleu(tokens: Sequence[str], references: Sequence[str]) -> float:
    """Return the corpus BLEU of words between blanks in percent, without smoothing: that of ``fairseq-score``.

    >>> tokenised_bleu(["a b c d ,"], ["a b c d ."])
    66.87403049764218
    """
    from sacrebleu.metrics.bleu import BLEU

    found = BLEU(tokenize="none", smooth_method="none", force=True).corpus_score(tokens, [references])
    return float(found.score)


def _translations(loaded: FairseqModel, pieces: Sequence[str]) -> dict[str, list[Hypothesis]]:
    model, trained = loaded.model, cast(Softmax, loaded.model.classifier)
    sources = [loaded.source.encode(line) for line in pieces]
    ways: tuple[tuple[Classifier, int], ...] = (
        (trained, 1), (trained, BEAM), (max_shift(trained, Constant(0.0)), BEAM),
    )  # fmt: skip
    written = {}
    for search, (classifier, width) in zip(SEARCHES, ways, strict=True):
        beam = fairseq_beam(width, min(LONGEST, loaded.longest), excluded=loaded.excluded)
        found = hypotheses(model, classifier, sources, beam, sos=model.sos, eos=model.eos)
        written[search] = [best for best, *_ in found]
    return written


def _scored(
    loaded: FairseqModel,
    text: MosesBpe,
    found: Sequence[Hypothesis],
    greedy: Sequence[Hypothesis],
    tokens: Sequence[str],
    references: Sequence[str],
) -> Searched:
    pieces = [loaded.target.decode(one.words) for one in found]
    words, texts = tuple(map(remove_bpe, pieces)), tuple(map(text.decode, pieces))
    same = sum(one.words == other.words for one, other in zip(found, greedy, strict=True))
    return Searched(words, texts, tokenised_bleu(words, tokens), bleu(texts, references), same)


def _names(row: Row) -> tuple[str, ...]:
    """Return the names of the files that are read: model, codes, dictionaries of source and target."""
    return MODEL, CODES, f"dict.{row.source}.txt", f"dict.{row.target}.txt"


def _files(folder: Path, row: Row, archive: Path) -> list[Path]:
    models = sorted(folder.rglob(MODEL))
    if len(models) > 1:
        raise FewbitsError(f"{archive} has {len(models)} models; give the folder of one of them.")
    files = [models[0].with_name(name) for name in _names(row)] if models else []
    missing = [file.name for file in files if not file.is_file()] if files else [MODEL]
    if missing:
        raise FewbitsError(
            f"{archive} has no {', '.join(missing)}; {row.name} needs the files {', '.join(_names(row))} in one "
            f"folder, as {row.address} has them."
        )
    return files


@contextlib.contextmanager
def _unpacked(archive: Path, names: Sequence[str]) -> Iterator[Path]:
    """Give the folder itself, or a temporary one with the files of these names that the archive has."""
    if archive.is_dir():
        yield archive
        return
    if not archive.is_file():
        raise FewbitsError(
            f"there is no archive and no folder {archive}; give a published .tar.bz2, or what was in it."
        )
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(archive) as packed:
                for member in packed:
                    if member.isfile() and Path(member.name).name in names:
                        packed.extract(member, folder, filter="data")
        except (tarfile.TarError, EOFError, OSError) as problem:
            raise FewbitsError(
                f"{archive} is no archive that can be unpacked, or only a part of one ({problem}). Compare its size "
                "with that of the published file, and fetch it again; the disk may also be full."
            ) from problem
        yield Path(folder)
