"""Records: what a run produced, and where they are kept.

A record has two parts. ``result`` is reproducible (configuration, metrics, history, hash of the weights); tests compare
it. ``provenance`` says where it was made (commit, versions, device, wall time, peak memory).
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fewbits import atomic, project
from fewbits.errors import FewbitsError
from fewbits.study.profiles import Profile

if TYPE_CHECKING:
    import pandas as pd


Metric = float | int | str | bool | None  # None: diverged, or not measured


class Result(BaseModel):
    """The reproducible part of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: dict[str, Any]  #: the validated configuration, defaults included
    metrics: dict[str, Metric]  #: the numbers that tables and the ledger read
    history: list[dict[str, float | int]]  #: one row an evaluation
    arrays: dict[str, list[float]] = {}  #: what figures draw, for example the histogram of a weight
    texts: dict[str, list[str]] = {}  #: what readers look at, for example a few translations
    weights_sha256: str | None  #: of the trained weights, by name, in order


class Provenance(BaseModel):
    """Where and how a record was made; not part of what a rerun must reproduce."""

    model_config = ConfigDict(frozen=True, extra="allow")

    commit: str  #: of the study, when the process that ended the run began; ``+changes`` if ``src`` differed from it
    device: str  #: as the maker names it, for example ``AMD EPYC, 2 threads``
    wall_seconds: float  #: of the process that ended the run; what an interrupted one had spent before is not in it
    peak_memory_bytes: int  #: of that process so far, other runs in it included
    versions: dict[str, str]
    data: dict[str, str]  #: source of each data set that was read


class Record(BaseModel):
    """One run: its identity, its result and its provenance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str
    version: int
    profile: Profile
    name: str  #: readable, unique within an experiment and profile
    key: str  #: hash of configuration, device class, data hashes and experiment version
    result: Result
    provenance: Provenance


def published_folder() -> Path:
    """Return the folder of the ``full`` records that are kept in git."""
    return project.root() / "data" / "results"


def cached_folder() -> Path:
    """Return the folder of the ``laptop`` records, outside git."""
    return project.cache() / "results"


def save(record: Record, path: Path) -> None:
    """Write ``record`` to ``path`` as JSON, whole or not at all."""
    atomic.write(path, json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")


def load(path: Path) -> Record:
    """Read the record in ``path``.

    Raises:
        FewbitsError: If the file is no record; the message names it and says what to do.
    """
    try:
        return Record.model_validate_json(path.read_bytes())
    except (ValidationError, ValueError) as error:
        raise FewbitsError(f"{path} is no record of this study ({error}). Delete it and run again.") from error


def full_records(experiment: str | None = None) -> list[Record]:
    """Return the committed ``full`` records, of one experiment or of all, in the order of their names."""
    pattern = f"{experiment or '*'}/*.json"
    return [load(path) for path in sorted(published_folder().glob(pattern))]


def table(found: Iterable[Record]) -> "pd.DataFrame":
    """Return one row a record: profile, name, device, wall seconds, then its configuration and its metrics as columns.

    Nested configuration is left out. A name that is both a setting and a metric is ``name_metric`` as the latter.
    """
    import pandas as pd

    rows = []
    for record in found:
        settings = {k: v for k, v in record.result.config.items() if not isinstance(v, dict)}
        metrics = {f"{k}_metric" if k in settings else k: v for k, v in record.result.metrics.items()}
        about = {"profile": record.profile.value, "name": record.name, "device": record.provenance.device}
        rows.append(about | {"wall_seconds": record.provenance.wall_seconds} | settings | metrics)
    return pd.DataFrame(rows)
