"""The claims of the five documents, as ``data/claims/*.yaml`` holds them: one file a document, one row a claim.

A row says what the document says, what is published beside it and how certain that is, what we compare, and how near is
near enough. It holds no verdict: :mod:`fewbits.study.verdicts` computes that from records.
"""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fewbits import project
from fewbits.errors import FewbitsError

DOCUMENTS = ("max_shift", "quant_noise", "seminar", "emnlp", "wage")  #: the files, in the order of the ledger

Scalar: TypeAlias = bool | int | float | str
#: Configuration key, ``start.corpus`` for one within another: the value it must have, or the list of accepted ones.
Conditions: TypeAlias = dict[str, Scalar | list[Scalar]]


class Kind(StrEnum):
    """What sort of statement a claim is."""

    VALUE = "value"  #: a number
    ORDER = "order"  #: one thing is better than another
    RATIO = "ratio"  #: one thing is so many times another
    SHAPE = "shape"  #: a course: how one thing changes with another (several orders that must all hold)
    METHOD = "method"  #: how something is done; we build it, and compare what shows that it is built right
    QUESTION = "question"  #: asked or left undone there; we state an expectation of our own and compare that


class Certainty(StrEnum):
    """How sure we are that a number was published so."""

    PRIMARY = "A"  #: read in the primary source
    SUBMISSION = "A-sub"  #: read in the submitted version; the final one may differ
    SECONDARY = "B"  #: read in a secondary source
    MEMORY = "M"  #: from memory, unverified: not to be quoted
    DOCUMENT = "doc"  #: only the document says so


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Published(_Row):
    """One published number, named within its row."""

    name: str
    value: float
    unit: str  #: empty for a pure number
    certainty: Certainty
    source: str  #: a key of ``data/published/README.md``

    def __str__(self) -> str:
        """Write name, number, unit and certainty mark."""
        return " ".join(filter(None, [self.name, f"{self.value:.15g}", self.unit, f"[{self.certainty}]"]))


class Selection(_Row):
    """The records of one side: those of one experiment that meet the conditions, and the metric to read from each."""

    name: str
    experiment: str
    where: Conditions
    metric: str
    minus: Conditions = {}  #: what other records differ in whose metric is subtracted, seed by seed; nothing if empty


class Within(_Row):
    """The mean of ``left`` is the ``target``, up to an absolute ``tolerance``.

    The target is the name of a published number, or a number where none is published but the claim itself says which:
    a format that is defined to the last bit has 0 mismatches.
    """

    operator: Literal["within"]
    left: Selection
    target: str | float
    tolerance: float = Field(ge=0)


class Less(_Row):
    """``left`` is less than ``right``; differences up to ``tolerance`` count as equality."""

    operator: Literal["less"]
    left: Selection
    right: Selection
    tolerance: float = Field(ge=0)


class Ratio(_Row):
    """``left / right`` is the quotient of the two published ``target`` numbers, up to the factor ``tolerance``."""

    operator: Literal["ratio"]
    left: Selection
    right: Selection
    target: tuple[str, str]
    tolerance: float = Field(ge=1)


class Difference(_Row):
    """``left - right``, paired by seed, is that of the two published ``target`` numbers, up to ``tolerance``."""

    operator: Literal["difference"]
    left: Selection
    right: Selection
    target: tuple[str, str]
    tolerance: float = Field(ge=0)


class Correlation(_Row):
    """The rank correlation of two metrics lies above a bound, over configurations with the means over their seeds."""

    operator: Literal["correlation"]
    name: str
    experiment: str
    where: Conditions
    metrics: tuple[str, str]
    above: float = Field(ge=-1, le=1)


Sided: TypeAlias = Within | Less | Ratio | Difference  #: a comparison of sides of equal runs
Comparison: TypeAlias = Annotated[Sided | Correlation, Field(discriminator="operator")]
_OPERATORS = {Kind.VALUE: (Within, Difference), Kind.ORDER: (Less,), Kind.RATIO: (Ratio,)}


class Claim(_Row):
    """One row of the ledger."""

    id: str = Field(pattern=r"^[MQSEW][1-9][0-9]?$")
    title: str
    kind: Kind
    statement: str  #: what the document says, complete
    published: list[Published] = []
    chapter: str | None  #: the notebook that treats it, or that will
    compares: str  #: what we compare, and from which records
    near_enough: str  #: how near is near enough, and why
    minimum_seeds: int = Field(default=3, ge=1)  #: 1 says that chance plays no part
    scale: Conditions = {}  #: what a record must meet to be at the document's own scale
    comparisons: list[Comparison] = []

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [number.name for number in self.published]
        if len(names) != len(set(names)):
            raise ValueError(f"{self.id}: two published numbers have the same name: {names}")
        for target in _targets(self.comparisons):
            if target not in names:
                raise ValueError(f"{self.id}: the target {target!r} is none of the published numbers {names}")
        operators = _OPERATORS.get(self.kind)
        if operators and self.comparisons and not any(isinstance(each, operators) for each in self.comparisons):
            needed = " or ".join(repr(operator.__name__.lower()) for operator in operators)
            raise ValueError(f"{self.id}: a claim of kind {self.kind} needs a comparison {needed}")
        return self


class Document(_Row):
    """One document and its claims, in its own order."""

    name: str
    title: str
    language: str
    claims: list[Claim]


def documents() -> list[Document]:
    """Return the five documents with their claims, in the order of the ledger.

    Raises:
        FewbitsError: If a file is missing, is no valid claims file, or an id appears twice.
    """
    found = [_read(project.root() / "data" / "claims" / f"{name}.yaml") for name in DOCUMENTS]
    ids = [claim.id for document in found for claim in document.claims]
    if twice := sorted({each for each in ids if ids.count(each) > 1}):
        raise FewbitsError(f"data/claims uses the id {', '.join(twice)} more than once. Give each claim its own id.")
    return found


def _targets(comparisons: list[Comparison]) -> Iterator[str]:
    for comparison in comparisons:
        if isinstance(comparison, Within):
            if isinstance(comparison.target, str):
                yield comparison.target
        elif isinstance(comparison, Ratio | Difference):
            yield from comparison.target


def _read(path: Path) -> Document:
    try:
        return Document.model_validate(yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))
    except OSError as error:
        raise FewbitsError(f"cannot read {path}: {error.strerror}. Restore it with `git checkout {path}`.") from error
    except (ValidationError, yaml.YAMLError) as error:
        raise FewbitsError(f"{path} is no valid claims file: {error}. Correct the entry named above.") from error
