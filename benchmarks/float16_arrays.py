"""Software float16 against NumPy's own on arrays of 10^7, in one run.

    python benchmarks/float16_arrays.py [--rounds 15]

Prints a table and stores it in benchmarks/results. The two take turns, so that whatever else the machine does falls on
both; times are medians, in one thread, of standard normal operands. NumPy computes in float32 and converts; ours is
integer operations only. Beside them stands the memory limit: a copy that reads and writes as many bytes, between arrays
that are there already.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np

from fewbits import atomic
from fewbits.formats import float16
from fewbits.study.provenance import processor

COUNT = 10**7
Call = Callable[[], object]


def seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def copying(nbytes: int) -> Call:
    source = np.ones(nbytes // 2, np.uint8)
    target = np.zeros_like(source)
    return lambda: np.copyto(target, source)


def operations() -> dict[str, tuple[Call, Call, int]]:
    """By name: ours, NumPy's, and how many bytes are read and written for each number."""
    source = np.random.default_rng(0)
    x = source.standard_normal(COUNT, dtype=np.float32)
    u, v = x.astype(np.float16), source.standard_normal(COUNT, dtype=np.float32).astype(np.float16)
    w = np.abs(u)
    a, b, c = (numbers.view(np.uint16) for numbers in (u, v, w))
    return {
        "from_float32": (lambda: float16.from_float32(x), lambda: x.astype(np.float16), 6),
        "to_float32": (lambda: float16.to_float32(a), lambda: u.astype(np.float32), 6),
        "add": (lambda: float16.add(a, b), lambda: u + v, 6),
        "mul": (lambda: float16.mul(a, b), lambda: u * v, 6),
        "div": (lambda: float16.div(a, b), lambda: u / v, 6),
        "sqrt": (lambda: float16.sqrt(c), lambda: np.sqrt(w), 4),
    }


def compare(name: str, ours: Call, numpys: Call, nbytes: int, rounds: int) -> dict[str, float | str]:
    calls = {"ours": ours, "numpy": numpys, "copy": copying(nbytes * COUNT)}
    first = seconds(ours)
    times: dict[str, list[float]] = {kind: [] for kind in calls}
    for turn in range(rounds + 2):
        for kind in sorted(calls, reverse=bool(turn % 2)):
            times[kind].append(seconds(calls[kind]))
    median = {kind: statistics.median(taken[2:]) for kind, taken in times.items()}
    return {
        "operation": name,
        "ms": round(1e3 * median["ours"], 1),
        "NumPy ms": round(1e3 * median["numpy"], 1),
        "speed ratio": round(median["numpy"] / median["ours"], 2),
        "memory limit ms": round(1e3 * median["copy"], 1),
        "first call s": round(first, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    np.seterr(all="ignore")
    rows = [compare(name, *calls, rounds) for name, calls in operations().items()]
    print(" | ".join(rows[0]))
    for row in rows:
        print(" | ".join(map(str, row.values())))
    about = {"machine": processor(), "threads": 1, "numpy": np.__version__, "numba": numba.__version__}
    about |= {"rounds": rounds, "numbers": COUNT}
    path = Path(__file__).parent / "results" / "float16_arrays.json"
    atomic.write(
        path,
        json.dumps(about | {"rows": rows}, indent=1, ensure_ascii=False) + "\n",
    )


if __name__ == "__main__":
    main()
