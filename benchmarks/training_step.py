"""Training steps of the study's models: memory given back or kept, products by MKL or by oneDNN, in one run.

    python benchmarks/training_step.py [--rounds 15]

A step is the loss of a full run's batch and its gradients. Whether freed memory goes back to the system is a matter of
the whole process, so each choice has a process of its own, one after another; within it the two libraries take turns.
The limit is the product of the LSTM's output layer alone, in the faster library. Prints a table and stores it in
benchmarks/results.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fewbits import atomic
from fewbits.evaluation.timing import take_turns
from fewbits.experiments.lstm_perplexity import LstmPerplexity
from fewbits.experiments.transformer_translation import Architecture, TransformerTranslation
from fewbits.models import recurrent_language_model
from fewbits.study.allocator import keep_freed_memory
from fewbits.study.products import large_products
from fewbits.study.provenance import processor

WORDS, PIECES, SENTENCE = 10_000, 6_000, 15


def losses() -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """The models with the loss of a batch of random words."""
    torch.manual_seed(0)
    full = LstmPerplexity(arm="float")
    lstm = recurrent_language_model(WORDS, full.embedding_size, full.hidden_size, full.layers, full.cell, full.dropout)
    read, following = (torch.randint(WORDS, (full.length, full.batch_size)) for _ in range(2))
    found: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {"LSTM": (lstm, lambda: lstm.loss(read, following)[0])}
    for architecture in Architecture:
        run = TransformerTranslation(architecture=architecture)
        model = run.model(PIECES)
        source, target = (torch.randint(3, PIECES, (run.words // SENTENCE, SENTENCE)) for _ in range(2))

        def loss(model=model, source=source, target=target) -> Tensor:
            return model.classifier.loss(model(source, target), target)

        found[str(architecture)] = (model, loss)
    return found


def measured(kept: bool, rounds: int) -> dict[str, float]:
    """Return the seconds of each model and library in this process."""
    if kept:
        keep_freed_memory()

    def step(model: nn.Module, loss: Callable[[], Tensor], onednn: bool) -> Callable[[], None]:
        def form() -> None:
            with large_products(onednn):
                model.zero_grad()
                loss().backward()

        return form

    hidden, weight = torch.randn(700, 200), torch.randn(WORDS, 200)

    def product() -> None:
        with large_products():
            torch.mm(hidden, weight.T, out=room)

    room = torch.empty(len(hidden), WORDS)
    forms = {
        f"{name}, {library}": step(*parts, library == "oneDNN")
        for name, parts in losses().items()
        for library in ("MKL", "oneDNN")
    }
    return take_turns(forms | {"product": product}, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=("given back", "kept"), help="measure one choice, and print seconds as JSON")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measured(options.only == "kept", options.rounds)))
        return
    load = round(os.getloadavg()[0], 2)
    found = {}
    for choice in ("given back", "kept"):
        call = [sys.executable, __file__, "--only", choice, "--rounds", str(options.rounds)]
        found[choice] = json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
    product = found["kept"].pop("product")
    del found["given back"]["product"]
    rows = [
        {
            "model": name.split(", ")[0],
            "memory": choice,
            "products": name.split(", ")[1],
            "milliseconds a step": round(1000 * seconds, 1),
            "times as fast as PyTorch alone": round(found["given back"][f"{name.split(', ')[0]}, MKL"] / seconds, 2),
        }
        for choice, forms in found.items()
        for name, seconds in forms.items()
    ]
    print(" | ".join(rows[0]))
    for row in rows:
        print(" | ".join(map(str, row.values())))
    about = {"machine": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    about |= {"rounds": options.rounds, "load before": load}
    about |= {"output product GFLOP/s": round(2 * 700 * 200 * WORDS / product / 1e9)}
    path = Path(__file__).parent / "results" / "training_step.json"
    atomic.write(path, json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
