"""The tables that pages of the book can show, each computed at build time from the study itself."""

import dataclasses
import importlib
import inspect
import os
import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any

import pandas as pd

from fewbits import data
from fewbits.study import claims, ledger, records

#: what decides a result, and what renders this book
PACKAGES = ("torch", "numpy", "scipy", "pandas", "safetensors", "lightning-fabric", "papermill", "jupytext",
            "snakemake", "jupyter-book", "sphinx")  # fmt: skip


def ledger_table() -> pd.DataFrame:
    """Return every claim with its published value, the study's value and its verdict."""
    return ledger.ledger()


def judging() -> pd.DataFrame:
    """Return how each claim is judged: what is compared, how near is near enough, and with how many seeds."""
    rows = [
        (claim.id, claim.compares, claim.near_enough, claim.minimum_seeds)
        for document in claims.documents()
        for claim in document.claims
    ]
    return pd.DataFrame(rows, columns=["id", "what is compared", "near enough", "seeds"])


def verdicts() -> pd.DataFrame:
    """Return how many claims have which verdict."""
    counts = ledger.ledger()["verdict"].astype(str).value_counts()
    return counts.rename_axis("verdict").reset_index(name="claims")


def measured() -> pd.DataFrame:
    """Return the claims for which the study has a number of its own, decided or not."""
    rows = ledger.ledger()
    return rows.loc[rows["ours"] != "", ["id", "claim", "published", "ours", "verdict", "chapter"]]


def results(experiment: str) -> pd.DataFrame:
    """Return the metrics of the committed ``full`` records of an experiment, one row a run; hashes cut to 12 digits."""
    rows = [
        {"run": record.name} | {name: _short(value) for name, value in record.result.metrics.items()}
        for record in records.full_records(experiment)
    ]
    return pd.DataFrame(rows).dropna(axis=1, how="all")


def _short(value: records.Metric) -> records.Metric:
    return value[:12] if isinstance(value, str) and len(value) == 64 else value


def provenance() -> pd.DataFrame:
    """Return where and how every committed ``full`` record was made."""
    return pd.DataFrame([_made(record) for record in records.full_records()])


def _made(record: records.Record) -> dict[str, object]:
    made = record.provenance
    commit, plus, changes = made.commit.partition("+")
    return {
        "experiment": record.experiment,
        "run": record.name,
        "key": record.key[:12],
        "commit": commit[:12] + plus + changes,
        "device": made.device,
        "minutes": round(made.wall_seconds / 60, 1),
        "peak memory": f"{made.peak_memory_bytes / 2**20:.0f} MiB",
        "versions": ", ".join(f"{package} {version}" for package, version in made.versions.items()),
    }


def versions() -> pd.DataFrame:
    """Return the versions of the packages that this build used."""
    rows = [("Python", platform.python_version())] + [(name, metadata.version(name)) for name in PACKAGES]
    return pd.DataFrame(rows, columns=["package", "version"])


def machine() -> pd.DataFrame:
    """Return what the building machine says of itself."""
    rows = [("system", f"{platform.system()} {platform.release()}"), ("architecture", platform.machine()),
            ("processor cores", os.cpu_count())]  # fmt: skip
    return pd.DataFrame(rows, columns=["what", "value"])


def support() -> pd.DataFrame:
    """Return every quantizer and granularity with its options and the first sentence of its documentation."""
    quantizers = importlib.import_module("fewbits.quantizers")  # imports torch: only the page that asks pays for it
    public: list[Any] = [getattr(quantizers, name) for name in quantizers.__all__]
    rows = [
        {"name": kind.__name__, "options": _options(kind), "what it does": _summary(kind)}
        for kind in public
        if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    ]
    return pd.DataFrame(rows)


def quantizers() -> pd.DataFrame:
    """Return what each quantizer can do, by trying it."""
    matrix = importlib.import_module("study_quantizers")  # imports torch, as above
    table: pd.DataFrame = matrix.quantizer_matrix()
    return table


def _summary(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0].replace("``", "")


def _options(kind: type) -> str:
    return ", ".join(
        field.name if field.default is dataclasses.MISSING else f"{field.name}={field.default!r}"
        for field in dataclasses.fields(kind)
    )


FRAMES: dict[str, Callable[[], pd.DataFrame]] = {
    "ledger": ledger_table, "judging": judging, "verdicts": verdicts, "measured": measured, "provenance": provenance,
    "data": data.data_table, "versions": versions, "machine": machine, "support": support, "quantizers": quantizers,
}  # fmt: skip


def frame(name: str) -> pd.DataFrame:
    """Return the table ``name``; ``published:NAME`` has a paper's numbers, ``results:EXPERIMENT`` those of our records.

    Raises:
        KeyError: If there is no table of that name.
    """
    kind, _, argument = name.partition(":")
    if argument:
        return {"published": ledger.published, "results": results}[kind](argument)
    return FRAMES[kind]()
