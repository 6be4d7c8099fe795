"""The registry: what data there is, under which licence, and the hashes that it must have."""

from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from fewbits import project
from fewbits.data.selection import Selection
from fewbits.data.tokenization import Documents, Tokenization
from fewbits.errors import FewbitsError

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Split(StrEnum):
    """What a part of a corpus is for."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"


class Side(StrEnum):
    """The two languages of parallel text."""

    SOURCE = "source"  #: translated from
    TARGET = "target"  #: translated into


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageFormat(StrEnum):
    """How files hold images and labels."""

    ROWS = "rows"  #: values separated by commas, a line an image: its pixels and, last, its label
    IDX = "idx"  #: LeCun's: files of images and files of labels
    JPEG = "jpeg"  #: an npz file with ``jpeg`` (all images end to end), ``offsets`` (n + 1) and ``labels``


class Wheel(_Strict):
    """A file inside an installed distribution, a member of one that is a zip file, or rows of an SQLite database."""

    distribution: str  #: name on the package index
    archive: str  #: file, zip file or database, as the distribution lists it
    member: str | None = None  #: file in the zip
    query: str | None = None  #: its rows are the content: values separated by tabs, each row ended by a line feed

    @model_validator(mode="after")
    def _member_or_query(self) -> Self:
        if self.member is not None and self.query is not None:
            raise ValueError("give the member of a zip file or the query to a database, not both")
        return self


class DataFile(_Strict):
    """One file of a data set, or all the files that match one pattern."""

    path: str  #: below ``FEWBITS_DATA`` and below ``data`` in the cache; ``*`` matches many
    documents: Documents = Documents.FILE  #: what one document of a text is
    sha256: dict[str, Sha256]  #: accepted hashes of the unpacked content, by variant; none: not known, any is accepted
    split: Split | None = None  #: the split of the whole text; ``None``: by document
    part: str | None = None  #: of sentence files: what its sentences are for, and its name
    side: Side | None = None  #: of sentence files: the language that it holds
    wheel: Wheel | None = None
    url: str | None = None

    def variant(self, sha256: str) -> str | None:
        """Return the name of the accepted variant that has this hash, or ``None``."""
        return next((name for name, accepted in self.sha256.items() if accepted == sha256), None)


class Entry(_Strict):
    """One data set of ``data/registry.yaml``: what all kinds have."""

    title: str
    licence: str
    citation: str
    home: str  #: where it comes from, or that no home is certain and what to do
    files: Annotated[tuple[DataFile, ...], Field(min_length=1)]

    @property
    def downloadable(self) -> bool:
        """Whether every file has an address."""
        return all(file.url for file in self.files)

    @property
    def checkable(self) -> bool:
        """Whether the hash of every file is known."""
        return all(file.sha256 for file in self.files)

    @model_validator(mode="after")
    def _addresses_for_all_or_none(self) -> Self:
        if any(file.url for file in self.files) and not (self.downloadable and self.checkable):
            raise ValueError("give every file of a data set a url and its hash, or none a url")
        return self


class Text(Entry):
    """Text of either kind."""

    language: str
    tokenization: Tokenization


class RunningText(Text):
    """Text for a language model."""

    tokens: dict[Split, int] | None = None  #: with one ``<eos>`` a document; ``None``: not known
    types: int | None = None  #: of the training text, with ``<unk>`` and ``<eos>``; ``None``: not known


class ParallelText(Text):
    """Sentences and their translations."""

    selection: Selection
    minimum_count: int | None = None  #: rarer words are ``<unk>``; ``None``: all words, and no ``<unk>``
    pairs: int
    tokens: dict[Side, int]  #: with one ``<eos>`` a sentence
    vocabularies: dict[Side, int]  #: words, with ``<sos>``, ``<eos>`` and, if there is one, ``<unk>``

    @property
    def types(self) -> int:
        """The sizes of both vocabularies together."""
        return sum(self.vocabularies.values())


class SentenceFiles(Entry):
    """Sentences and their translations as they were written: line n of one file translates line n of another."""

    language: str
    pairs: Annotated[dict[str, int], Field(min_length=1)]  #: by part: ``train``, ``valid`` and tests of any name
    tokens: dict[Side, int]  #: words between white space of all parts, with one ``<eos>`` a sentence

    def file(self, part: str, side: Side) -> DataFile:
        """Return the file that holds one side of a part."""
        return next(file for file in self.files if (file.part, file.side) == (part, side))

    @model_validator(mode="after")
    def _both_sides_of_each_part(self) -> Self:
        wanted = sorted((part, side) for part in self.pairs for side in Side)
        if sorted((file.part or "", file.side or "") for file in self.files) != wanted:
            raise ValueError("give one file for each side of each part, with its part and side")
        return self


class LabelledImages(Entry):
    """Images of one size, each with the number of its class."""

    format: ImageFormat
    shape: tuple[int, int, int]  #: channels, height, width
    classes: int
    images: dict[Split, int]  #: the training images come first, validation's among them; then those of the test


_Entry = TypeVar("_Entry", bound=Entry)


def _kind(value: Any) -> str:
    return next((kind for field, kind in _FIELDS.items() if isinstance(value, dict) and field in value), "running")


_FIELDS = {
    "selection": "parallel",
    "pairs": "sentences",
    "format": "images",
}  # what each kind has and the others have not
_Registered = Annotated[
    Annotated[RunningText, Tag("running")]
    | Annotated[ParallelText, Tag("parallel")]
    | Annotated[SentenceFiles, Tag("sentences")]
    | Annotated[LabelledImages, Tag("images")],
    Discriminator(_kind),
]


def path() -> Path:
    """Return the path of the registry in the checkout."""
    return project.root() / "data" / "registry.yaml"


def entries() -> dict[str, RunningText | ParallelText | SentenceFiles | LabelledImages]:
    """Return all entries of the registry by name, in its order.

    Raises:
        FewbitsError: If the file is no valid registry; the message names the field.
    """
    try:
        return TypeAdapter(dict[str, _Registered]).validate_python(
            yaml.load(path().read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        )
    except (yaml.YAMLError, ValidationError) as error:
        raise FewbitsError(f"{path()} is no valid registry: {error}. Correct it, or restore it from git.") from error


def entry(name: str) -> RunningText | ParallelText | SentenceFiles | LabelledImages:
    """Return the entry of the data set ``name``.

    Raises:
        FewbitsError: If there is none; the message names near matches and all names.
    """
    known = entries()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise FewbitsError(f"there is no data set {name!r}. {hint}Known data sets: {', '.join(known)}.")
    return known[name]


def running_text(name: str) -> RunningText:
    """Return the entry of the running text ``name``.

    Raises:
        FewbitsError: If there is no such data set, or it is of another kind.
    """
    return _of_kind(name, RunningText, "Running text is")


def parallel_text(name: str) -> ParallelText:
    """Return the entry of the parallel text ``name``.

    Raises:
        FewbitsError: If there is no such data set, or it is of another kind.
    """
    return _of_kind(name, ParallelText, "Parallel text is")


def sentence_files(name: str) -> SentenceFiles:
    """Return the entry of the sentence files ``name``.

    Raises:
        FewbitsError: If there is no such data set, or it is of another kind.
    """
    return _of_kind(name, SentenceFiles, "Sentences as they were written are")


def labelled_images(name: str) -> LabelledImages:
    """Return the entry of the images ``name``.

    Raises:
        FewbitsError: If there is no such data set, or it is of another kind.
    """
    return _of_kind(name, LabelledImages, "Images are")


def _of_kind(name: str, kind: type[_Entry], asked: str) -> _Entry:
    found = entry(name)
    if isinstance(found, kind):
        return found
    is_a, read = {
        RunningText: ("is running text, without translations", "load_corpus"),
        ParallelText: ("is made of sentence pairs", "load_pairs"),
        SentenceFiles: ("is made of sentences as they were written", "load_sentences"),
        LabelledImages: ("holds images", "load_images"),
    }[type(found)]
    known = ", ".join(key for key, registered in entries().items() if isinstance(registered, kind)) or "none"
    raise FewbitsError(f"the data set {name!r} {is_a}. Read it with `{read}({name!r})`. {asked} in: {known}.")
