"""Quantizers against a copy of the same size, k-means against scikit-learn's, and memory, in one run.

    python benchmarks/quantizers.py [--rounds 5]

Prints tables and stores them in benchmarks/results. 10^7 standard normal weights in float32, 10^4 rows of 10^3; one
thread; no gradient. Encode makes the codes, a call decodes them as well. All forms take turns with `out.copy_(w)`, with
`out` there already, so that whatever else the machine does falls on all; times are medians. The bound is in copies.

Memory: how far the resident peak of one call in a fresh process lies above what is resident before it, over the bytes
of the weights; the result is part of it. The kernel counts (VmHWM, VmRSS), so that this runs on Linux only.

k-means: 16 numbers for all weights, `Codebook(4)` against `KMeans(16, n_init=1)` of scikit-learn, from three seeds. The
inertia is the sum of squared errors in float64, each weight at its nearest number.
"""

import argparse
import functools
import json
import multiprocessing
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor
from torch.utils.benchmark import timer

from fewbits import atomic
from fewbits.evaluation.timing import take_turns
from fewbits.quantizers import parse
from fewbits.study.provenance import processor

ROWS, COLUMNS = 10**4, 10**3
SEEDS = 3

#: Each quantizer and how many copies it may take; None where nobody asked.
BOUNDS: dict[str, int | None] = {
    "Binary()": None,
    "Binary(Scale.MEAN_ABSOLUTE)": None,
    "Binary(Scale.MEAN_ABSOLUTE, granularity=PerRow())": None,
    "Ternary()": None,
    "TWN()": 30,
    "TWN(PerRow())": 30,
    "LeastSquaresTernary()": None,
    "LeastSquaresTernary(PerRow())": None,
    "Uniform(8)": 20,
    "Uniform(4, PerRow())": 20,
    "Uniform(8, symmetric=False)": None,
    "Uniform(4, PerRow(), symmetric=False)": None,
    "Uniform(4, PerRow(), range=LeastError(16))": None,
    "Uniform(4, range=Percentile(99.9))": None,
    "MidRise(4)": None,
    "Balanced(4)": None,
    "TTQ()": None,
    "Logarithmic(4)": None,
    "Logarithmic(4, granularity=PerRow())": None,
    "Fixed(0, 7)": None,
    "BinaryCodes(2)": 200,
    "BinaryCodes(3)": None,
    "BinaryCodes(2, Solver.GREEDY)": None,
    "BinaryCodes(2, granularity=PerTensor())": None,
    "Codebook(4)": None,
    "Codebook(4, granularity=PerRow())": None,
}
MOST_MEMORY = 4  #: times the bytes of the weights

Row = dict[str, Any]


def weights() -> Tensor:
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))


def resident(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


@torch.no_grad()
def peak(text: str) -> int:
    torch.set_num_threads(1)
    quantizer, weight = parse(text), weights()
    quantizer(weight[:4])  # loads what is loaded at the first call
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is what is resident now
    before = resident("VmRSS")
    quantizer(weight)
    return resident("VmHWM") - before


@torch.no_grad()
def times(rounds: int) -> list[Row]:
    weight = weights()
    out = torch.empty_like(weight)
    forms: dict[str, Callable[[], object]] = {"copy": functools.partial(out.copy_, weight)}
    for text in BOUNDS:
        forms |= {f"encode {text}": functools.partial(parse(text).encode, weight)}
        forms |= {f"call {text}": functools.partial(parse(text), weight)}
    seconds = take_turns(forms, rounds)
    rows: list[Row] = [{"quantizer": "copy", "call ms": round(1e3 * seconds["copy"], 2), "call / copy": 1.0}]
    for text, bound in BOUNDS.items():
        row: Row = {"quantizer": text}
        for part in ("encode", "call"):
            row[f"{part} ms"] = round(1e3 * seconds[f"{part} {text}"], 1)
            row[f"{part} / copy"] = round(seconds[f"{part} {text}"] / seconds["copy"], 1)
        within = [part for part in ("encode", "call") if bound and row[f"{part} / copy"] <= bound]
        rows.append(row | {"bound": bound, "within": " and ".join(within) or ("neither" if bound else "")})
    return rows


def memory() -> list[Row]:
    nbytes = 4 * ROWS * COLUMNS
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as fresh:
        ratios = [round(found / nbytes, 2) for found in fresh.imap(peak, BOUNDS)]
    return [
        {"quantizer": text, "peak / weights": ratio, "bound": MOST_MEMORY, "holds": ratio <= MOST_MEMORY}
        for text, ratio in zip(BOUNDS, ratios, strict=True)
    ]


def k_means() -> list[Row]:
    weight = weights()
    column = weight.numpy().reshape(-1, 1)
    rows: list[Row] = []
    for seed in range(SEEDS):
        start = timer()
        theirs = KMeans(16, n_init=1, random_state=seed).fit(column)
        middle = timer()
        ours = parse("Codebook(4)").encode(weight).tables["codebook"][0]
        its, own = middle - start, timer() - middle
        row: Row = {"seed of scikit-learn": seed, "its s": round(its, 2), "s": round(own, 2)}
        row["faster"] = round(its / own, 1)
        row |= {"its inertia": inertia(theirs.cluster_centers_[:, 0], column), "inertia": inertia(ours.numpy(), column)}
        rows.append(row | {"holds": row["inertia"] <= row["its inertia"] and row["faster"] > 1})
    return rows


def inertia(centres: NDArray[np.floating], column: NDArray[np.float32]) -> float:
    ordered = np.sort(centres.astype(np.float64))
    nearest = ordered[np.searchsorted((ordered[1:] + ordered[:-1]) / 2, column[:, 0])]
    return round(float(((column[:, 0] - nearest) ** 2).sum()), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    about = {"machine": processor(), "threads": 1, "torch": torch.__version__, "scikit-learn": sklearn.__version__}
    about |= {"rounds": rounds, "weights": ROWS * COLUMNS, "load before": round(os.getloadavg()[0], 2)}
    tables: dict[str, list[Row]] = {}
    for title, table in (("time", lambda: times(rounds)), ("k-means", k_means), ("memory", memory)):
        print(title)
        tables[title] = table()
        print(" | ".join(tables[title][-1]))
        for row in tables[title]:
            print(" | ".join(str(row.get(name, "")) for name in tables[title][-1]), flush=True)
    path = Path(__file__).parent / "results" / "quantizers.json"
    atomic.write(path, json.dumps(about | tables, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
