"""Training step of a quantized LSTM language model against the plain one, in one run.

    python benchmarks/quantized_lstm_step.py [--rounds 15]

Prints a table and stores it in benchmarks/results. The two models take turns, so that whatever else the machine
does falls on both; the ratio is that of the median step times. Two limits stand beside it: the rate of a large
matrix product in the same arithmetic, and the time that copying the quantized weights once takes.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from fewbits import atomic
from fewbits.classifiers import Softmax
from fewbits.models import LanguageModel, RecurrentBody
from fewbits.quantize import quantize
from fewbits.quantizers import TWN, PerGate
from fewbits.study.provenance import processor

VOCABULARY, BATCH, LENGTH = 10_000, 20, 35  # Penn Treebank as in Zaremba et al. 2014


def model(hidden: int, quantized: bool) -> LanguageModel:
    torch.manual_seed(0)
    made = LanguageModel(RecurrentBody(VOCABULARY, hidden, hidden, 2), Softmax(hidden, VOCABULARY))
    return quantize(made, {"rnn.weight_*": TWN(PerGate())}) if quantized else made


def step(trained: LanguageModel, optimizer: torch.optim.Optimizer, words: Tensor, bf16: bool) -> float:
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss, _ = trained.loss(words[:-1], words[1:])
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(trained.parameters(), 0.25)
    optimizer.step()
    return time.perf_counter() - start


def rate(bf16: bool) -> float:
    """GFLOP/s of a 2048³ matrix product, median of 7."""
    left, right = (torch.randn(2048, 2048, dtype=torch.bfloat16 if bf16 else torch.float32) for _ in range(2))
    times = []
    for _ in range(8):
        start = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / statistics.median(times[1:]) / 1e9


def copy_seconds(weights: int) -> float:
    source = torch.randn(weights)
    target = torch.empty_like(source)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        target.copy_(source)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def compare(hidden: int, bf16: bool, rounds: int) -> dict[str, float | int | str]:
    words = torch.randint(VOCABULARY, (LENGTH + 1, BATCH), generator=torch.Generator().manual_seed(0))
    models = {name: model(hidden, name == "twn") for name in ("plain", "twn")}
    optimizers = {name: torch.optim.SGD(m.parameters(), lr=0.1) for name, m in models.items()}
    times: dict[str, list[float]] = {"plain": [], "twn": []}
    for turn in range(rounds + 3):
        for name in sorted(models, reverse=bool(turn % 2)):
            times[name].append(step(models[name], optimizers[name], words, bf16))
    plain, twn = (statistics.median(times[name][3:]) for name in ("plain", "twn"))
    weights = 2 * 2 * 4 * hidden * hidden
    operations = 6 * BATCH * LENGTH * (weights + hidden * VOCABULARY)  # one product forward, two backward, 2 each
    return {
        "units": f"2×{hidden}",
        "arithmetic": "bf16" if bf16 else "float32",
        "plain ms": round(1e3 * plain, 1),
        "TWN ms": round(1e3 * twn, 1),
        "throughput ratio": round(plain / twn, 3),
        "plain GFLOP/s": round(operations / plain / 1e9, 1),
        "matrix product GFLOP/s": round(rate(bf16), 1),
        "copy of the weights ms": round(1e3 * copy_seconds(weights), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    rows = [compare(hidden, bf16, rounds) for hidden in (200, 650) for bf16 in (False, True)]
    print(" | ".join(rows[0]))
    for row in rows:
        print(" | ".join(map(str, row.values())))
    about = {"machine": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__, "rounds": rounds}
    path = Path(__file__).parent / "results" / "quantized_lstm_step.json"
    atomic.write(path, json.dumps(about | {"rows": rows}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
