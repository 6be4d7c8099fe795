"""Max-shift loss against softmax cross-entropy, from given logits and with the output layer, in one run.

    python benchmarks/max_shift_loss.py [--rounds 9]

Prints two tables and stores them in benchmarks/results. All forms of a row take turns, so that whatever else the
machine does falls on all; times are medians. N = 700 rows (a batch of 20 by 35 words), H = 256 hidden units.

Loss: forward, from given logits. The limit is reading the logits once: their sum.
Output layer: matrix product, loss, and their gradients. Fused is `fewbits.kernels.max_shift_loss`; naive is
`z.max() − z[y]` through autograd. The limit is the one matrix product that every form has to make.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fewbits import atomic
from fewbits.evaluation.timing import take_turns
from fewbits.kernels import max_shift_loss, max_shift_loss_of_logits
from fewbits.study.provenance import processor

ROWS, HIDDEN = 700, 256
VOCABULARIES = (10_000, 50_000, 100_000)

Row = dict[str, float | int]


def naive(logits: Tensor, target: Tensor) -> Tensor:
    return (logits.max(-1).values - logits.gather(-1, target[:, None]).squeeze(1)).mean()


def given_logits(vocabulary: int, rounds: int) -> Row:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(ROWS, vocabulary, generator=generator)
    target = torch.randint(vocabulary, (ROWS,), generator=generator)
    ms = take_turns(
        {
            "log_softmax + pick ms": lambda: -F.log_softmax(logits, -1).gather(-1, target[:, None]).mean(),
            "cross_entropy ms": lambda: F.cross_entropy(logits, target),
            "naive max-shift ms": lambda: naive(logits, target),
            "max-shift ms": lambda: max_shift_loss_of_logits(logits, target),
            "reading the logits once ms": lambda: logits.sum(),
        },
        rounds,
    )
    row: Row = {"V": vocabulary} | {name: round(1e3 * value, 2) for name, value in ms.items()}
    row["faster than log_softmax + pick"] = round(ms["log_softmax + pick ms"] / ms["max-shift ms"], 2)
    return row


def output_layer(vocabulary: int, rounds: int) -> Row:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(size, HIDDEN, generator=generator) / 16 for size in (ROWS, vocabulary))
    leaves = [leaf.requires_grad_() for leaf in (hidden, weight, torch.zeros(vocabulary))]
    target = torch.randint(vocabulary, (ROWS,), generator=generator)
    logits = torch.empty(ROWS, vocabulary)

    def step(loss: Callable[[], Tensor]) -> Callable[[], object]:
        def run() -> None:
            for leaf in leaves:
                leaf.grad = None
            loss().backward()

        return run

    def product() -> None:
        with torch.no_grad():
            torch.mm(hidden, weight.t(), out=logits)

    ms = take_turns(
        {
            "cross_entropy ms": step(lambda: F.cross_entropy(F.linear(*leaves), target)),
            "naive max-shift ms": step(lambda: naive(F.linear(*leaves), target)),
            "fused ms": step(lambda: max_shift_loss(*leaves, target)),
            "one matrix product ms": product,
        },
        rounds,
    )
    row: Row = {"V": vocabulary} | {name: round(1e3 * value, 1) for name, value in ms.items()}
    row["faster than cross_entropy"] = round(ms["cross_entropy ms"] / ms["fused ms"], 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(min(2, torch.get_num_threads()))
    about = {"machine": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__, "rounds": rounds}
    about |= {"N": ROWS, "H": HIDDEN, "load before": round(os.getloadavg()[0], 2)}
    tables: dict[str, list[Row]] = {}
    for title, measure in (
        ("loss, forward", given_logits),
        ("output layer and loss, forward and backward", output_layer),
    ):
        print(title)
        tables[title] = []
        for vocabulary in VOCABULARIES:
            row = measure(vocabulary, rounds)
            if not tables[title]:
                print(" | ".join(row))
            print(" | ".join(map(str, row.values())), flush=True)
            tables[title].append(row)
    path = Path(__file__).parent / "results" / "max_shift_loss.json"
    atomic.write(path, json.dumps(about | tables, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
