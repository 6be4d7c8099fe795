"""The tutorial's trainer, one pair a step, against the batched one, to the same training loss, in one run.

    FEWBITS_DATA=... python benchmarks/translation_trainers.py [--rounds 3]

Both trainers take turns on the tutorial's pairs and model (softmax); times are medians of wall time a pair. How many
pairs each has to read is taken from the full records of the same seed: the tutorial's 75,000, and the epochs after
which the batched trainer's loss is at or below the tutorial's last one. Prints a table and stores it in
benchmarks/results.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import torch

from fewbits import atomic
from fewbits.classifiers import Softmax
from fewbits.evaluation.timing import take_turns
from fewbits.experiments import seq2seq_translation
from fewbits.experiments.seq2seq_translation import Seq2SeqTranslation
from fewbits.experiments.seq2seq_translation.texts import split_texts
from fewbits.models.seq2seq import Seq2Seq
from fewbits.study import records
from fewbits.study.profiles import Profile
from fewbits.study.provenance import processor
from fewbits.training.loop import Trainer
from fewbits.training.translation import Translation

STEPS = {"tutorial": 300, "batched": 40}  #: timed at once


def epoch(run: Seq2SeqTranslation, steps: int) -> Callable[[], object]:
    """What trains a model for ``steps`` random batches more, with the settings of ``run``."""
    torch.manual_seed(run.seed)
    text = split_texts(run.corpus, run.pairs, run.test_size, run.seed)
    source, target = text.corpus.source, text.corpus.target
    classifier = Softmax(run.hidden_size, len(target))
    model = Seq2Seq(len(source), classifier, sos=target.sos, eos=target.eos, max_length=text.longest)
    pairs = text.numbers(text.training)
    task = Translation(model, pairs, pairs[:1], batch_size=run.batch_size, steps=steps)
    once = run.training.model_copy(update={"epochs": 1})
    return lambda: Trainer(task, once, device="cpu", progress=False).fit()


def pairs_read() -> dict[str, int]:
    """Pairs that each trainer reads to the last training loss of the tutorial's schedule, from the full records."""
    found = records.full_records("seq2seq_translation")
    (tutorial,) = (each.result for each in found if each.result.config["arms"] == ["softmax"])
    batched = next(
        each.result
        for each in found
        if each.result.config["steps"] is None and each.result.config["seed"] == tutorial.config["seed"]
    )
    last = tutorial.history[-1]["softmax_train_loss"]
    epochs = next(row["epoch"] for row in batched.history if row["softmax_train_loss"] <= last)
    read = tutorial.config["steps"] * tutorial.config["training"]["epochs"]
    return {"tutorial": read, "batched": int(epochs) * int(batched.metrics["training_pairs"] or 0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(min(2, torch.get_num_threads()))
    runs = seq2seq_translation.runs(Profile.FULL)
    chosen = {"tutorial": next(run for run in runs if run.steps), "batched": runs[0]}
    forms = {name: epoch(run, STEPS[name]) for name, run in chosen.items()}
    load = round(os.getloadavg()[0], 2)
    seconds = take_turns(forms, rounds)
    rows = {}
    for name, read in pairs_read().items():
        pair = seconds[name] / STEPS[name] / chosen[name].batch_size
        rows[name] = {"ms a pair": round(1e3 * pair, 3), "pairs": read, "seconds to the same loss": round(pair * read)}
        print(name, rows[name])
    ratio = rows["tutorial"]["seconds to the same loss"] / rows["batched"]["seconds to the same loss"]
    print(f"batched is {ratio:.1f} times faster to the same loss")
    about = {"machine": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__, "rounds": rounds}
    table = about | {"load before": load, "trainers": rows, "times faster to the same loss": round(ratio, 1)}
    path = Path(__file__).parent / "results" / "translation_trainers.json"
    atomic.write(path, json.dumps(table, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
