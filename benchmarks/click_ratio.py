"""Counting clicks against the bare output product, and training of a ternary model against a float one, in one run.

    python benchmarks/click_ratio.py [--rounds 5]

Clicks are counted of 2,000 words with a full output layer of 200 units, and for the first with an adaptive softmax as
well: ranks after every typed letter, all of it from hidden states on. The limit is the product of these states with the
output matrix alone, into memory that is there. Words are drawn letter by letter, so that they begin alike as words do.
Freed memory is kept, as in every run of the study: without it the counting takes a fifth longer, for new pages. Peak
memory is that of a process of its own that counts once. Prints a table and stores it in benchmarks/results.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fewbits import atomic
from fewbits.classifiers import AdaptiveSoftmax, Softmax
from fewbits.evaluation.click_ratio import Keyboard, clicks
from fewbits.evaluation.timing import take_turns
from fewbits.experiments.click_ratio import CUTOFFS
from fewbits.models import LanguageModel, RecurrentBody
from fewbits.quantize import quantize
from fewbits.quantizers import TWN, PerGate
from fewbits.study.allocator import keep_freed_memory
from fewbits.study.provenance import processor

HIDDEN, WORDS, PART = 200, 2_000, 160
VOCABULARIES = (10_000, 50_000, 100_000)
LARGEST = 200_000  #: words of which clicks are counted, without a training
ASKED = {VOCABULARIES[-1]: ">= 0.6, <= 2048 MiB", LARGEST: "bounded memory"}
BATCH, LENGTH = 32, 35


class Given(nn.Module):
    """Reads nothing: the hidden states are there before."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden, self.at = nn.Parameter(hidden), 0

    def forward(self, words: Tensor, state: object = None) -> tuple[Tensor, None]:
        first, self.at = self.at, (self.at + len(words)) % len(self.hidden)
        return self.hidden[first : first + len(words), None], None


def spelled(size: int) -> tuple[str, ...]:
    """Words of three to eleven letters, some letters much more frequent than others."""
    random = torch.Generator().manual_seed(0)
    frequent = 1 / torch.arange(1, 27).double()
    words: dict[str, None] = {}
    while len(words) < size - 2:
        drawn = torch.multinomial(frequent, 11, generator=random).tolist()
        length = int(torch.randint(3, 12, (1,), generator=random))
        words["".join(chr(97 + letter) for letter in drawn[:length])] = None
    return ("<unk>", "<eos>", *words)


def zipf(size: int) -> Tensor:
    return (1e7 / torch.arange(1, size + 1).double()).long()


def text(size: int, number: int) -> Tensor:
    """Words as frequent as words are, none of them <unk> or <eos>."""
    random = torch.Generator().manual_seed(1)
    return torch.multinomial(zipf(size)[2:].double(), number, replacement=True, generator=random) + 2


def counting(size: int, adaptive: bool = False) -> tuple[LanguageModel, Tensor, Keyboard]:
    torch.manual_seed(0)
    cutoffs = [end for end in CUTOFFS if end < size]
    classifier = AdaptiveSoftmax(HIDDEN, zipf(size), cutoffs) if adaptive else Softmax(HIDDEN, size)
    return LanguageModel(Given(torch.randn(WORDS, HIDDEN)), classifier), text(size, WORDS), Keyboard(spelled(size))


@torch.no_grad()
def evaluation(size: int, rounds: int) -> dict[str, float | int | str]:
    full, words, keyboard = counting(size)
    narrow = counting(size, adaptive=True)[0]
    states, weight = full.body.hidden, full.classifier.output.weight  # type: ignore[union-attr]
    room = torch.empty(PART, size)

    def product() -> None:
        for part in states.split(PART):  # type: ignore[operator, union-attr]
            torch.mm(part, weight.T, out=room[: len(part)])  # type: ignore[union-attr, arg-type]

    forms: dict[str, Callable[[], object]] = {
        "product": product,
        "clicks": lambda: clicks(full, words, keyboard, streams=1),
        "adaptive": lambda: clicks(narrow, words, keyboard, streams=1),
    }
    seconds = take_turns(forms, rounds)
    operations = 2 * WORDS * HIDDEN * size
    return {
        "words of the vocabulary": size,
        "product, words a second": round(WORDS / seconds["product"]),
        "product GFLOP/s": round(operations / seconds["product"] / 1e9, 1),
        "clicks, words a second": round(WORDS / seconds["clicks"]),
        "clicks / product": round(seconds["product"] / seconds["clicks"], 3),
        "clicks with adaptive softmax / product": round(seconds["product"] / seconds["adaptive"], 3),
        "peak memory MiB": peak(size),
        "asked": ASKED.get(size, ""),
    }


def peak(size: int) -> int:
    """Return the peak memory in MiB of a new process that counts once."""
    call = [sys.executable, __file__, "--count", str(size)]
    return int(subprocess.run(call, capture_output=True, text=True, check=True).stdout)


def training(size: int, rounds: int) -> dict[str, float | int | str]:
    words = text(size, BATCH * (LENGTH + 1)).view(LENGTH + 1, BATCH)
    forms: dict[str, Callable[[], object]] = {}
    for arm in ("float", "twn"):
        torch.manual_seed(0)
        cutoffs = [end for end in CUTOFFS if end < size]
        body = RecurrentBody(size, HIDDEN, HIDDEN, 1)
        model = LanguageModel(body, AdaptiveSoftmax(HIDDEN, zipf(size), cutoffs))
        if arm == "twn":
            quantize(model, {"rnn.weight_*": TWN(PerGate())})
        optimizer = torch.optim.Adam(model.parameters(), fused=True)

        def step(model: LanguageModel = model, optimizer: torch.optim.Optimizer = optimizer) -> None:
            loss, _ = model.loss(words[:-1], words[1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        forms[arm] = step
    seconds = take_turns(forms, rounds)
    return {
        "words of the vocabulary": size,
        "float, words a second": round(BATCH * LENGTH / seconds["float"]),
        "TWN, words a second": round(BATCH * LENGTH / seconds["twn"]),
        "TWN / float": round(seconds["float"] / seconds["twn"], 3),
        "asked": ">= 0.9",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, help="only count clicks with so many words, and print the peak memory")
    options = parser.parse_args()
    keep_freed_memory()
    if options.count:
        model, words, keyboard = counting(options.count)
        clicks(model, words, keyboard, streams=1)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        return
    load = round(os.getloadavg()[0], 2)
    about = {"machine": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    tables = {
        "evaluation": [evaluation(size, options.rounds) for size in (*VOCABULARIES, LARGEST)],
        "training": [training(size, options.rounds) for size in VOCABULARIES],
    }
    for rows in tables.values():
        print(" | ".join(rows[0]))
        for row in rows:
            print(" | ".join(map(str, row.values())))
    path = Path(__file__).parent / "results" / "click_ratio.json"
    about |= {"rounds": options.rounds, "load before": load}
    atomic.write(path, json.dumps(about | tables, indent=1) + "\n")


if __name__ == "__main__":
    main()
