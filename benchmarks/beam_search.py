"""Beam search of this package against Hugging Face's `generate` on one model with the same weights, in one run.

    python benchmarks/beam_search.py [--rounds 5]

The model is a Transformer of the size that the translation experiments train (d = 128, 4 + 4 layers) with random
weights. 200 sentences have the lengths of Multi30k's test_2016 in pieces; they are translated in batches of 100, those
of about one length together, beam 5. So that each form does the same work, a translation has 17 words, of which only
the last may be its end. It is not forced: `generate` counts a forced end as certain, fairseq and this package do not.
Beside it stand the same search over max-shift scores, and over a ConvS2S of the same size, folded. All forms take
turns; threads are torch's default. Hypotheses and scores are compared with those of `generate`.

The limit is what a machine that only multiplied would do: the operations of all matrix products that the Transformer
needs for the sentences, each alone and so without padding, at the rate of a large product of matrices in the same run.
The search is ours, which reads the first word once a sentence. Prints a table and stores it in benchmarks/results.
"""

import argparse
import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from marian import as_marian
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fewbits import atomic
from fewbits.classifiers import Constant, Softmax
from fewbits.evaluation.search import Beam, Hypothesis
from fewbits.evaluation.timing import take_turns
from fewbits.experiments.transformer_translation.decoding import hypotheses, max_shift
from fewbits.models import ConvSeq2Seq, Sharing, Transformer, padded
from fewbits.study.provenance import processor

PAD, EOS, WORDS = 0, 1, 6_000
SIZE, LAYERS, HEADS, WIDE = 128, 4, 4, 256
#: Pieces of the sentences of test_2016, the end included: quantiles at 5 %, 15 %, … 95 %, of 6,000 pieces.
LENGTHS = (9, 11, 12, 13, 14, 15, 16, 18, 20, 25)
SENTENCES, ROWS, BEAM, LENGTH = 200, 100, 5, 17
SIDE = 1_024  #: of the product that gives the rate


def transformer() -> Transformer:
    torch.manual_seed(0)
    layers = {"encoder_layers": LAYERS, "decoder_layers": LAYERS, "heads": HEADS, "feed_forward": WIDE}
    model = Transformer(WORDS, Softmax(SIZE, WORDS), sos=PAD, eos=EOS, sharing=Sharing.ALL, **layers)
    without_padding(model)
    return model.eval()


def convs2s() -> ConvSeq2Seq:
    torch.manual_seed(0)
    convolutions = ((SIZE, 3),) * LAYERS
    sides = {"encoder": convolutions, "decoder": convolutions}
    model = ConvSeq2Seq(WORDS, Softmax(SIZE, WORDS), sos=PAD, eos=EOS, embedding_size=SIZE, **sides)
    model.fold()
    without_padding(model)
    return model.eval()


@torch.no_grad()
def without_padding(model: Transformer | ConvSeq2Seq) -> None:
    """Forbid the word that `generate` takes for padding."""
    model.classifier.get_submodule("output").bias[PAD] = -torch.inf  # type: ignore[index, operator]


def sentences() -> list[Tensor]:
    """Sentences of the lengths, drawn words, shortest first."""
    source = torch.Generator().manual_seed(0)
    lengths = sorted(LENGTHS * (SENTENCES // len(LENGTHS)))
    end = torch.tensor([EOS])
    return [torch.cat([torch.randint(2, WORDS, (length - 1,), generator=source), end]) for length in lengths]


def searched(model: Transformer | ConvSeq2Seq, classifier: Any, sources: Sequence[Tensor]) -> list[Hypothesis]:
    beam = Beam(BEAM, LENGTH, min_length=LENGTH - 1)
    return [best for best, *_ in hypotheses(model, classifier, sources, beam, sos=PAD, eos=EOS)]


def generated(model: Any, sources: Sequence[Tensor], **settings: Any) -> list[Any]:
    batches = [padded(sources[first : first + ROWS]) for first in range(0, len(sources), ROWS)]
    return [
        model.generate(
            input_ids=source.clamp_min(PAD), attention_mask=(source >= 0).long(), num_beams=BEAM, do_sample=False,
            early_stopping=True, length_penalty=1.0, min_new_tokens=LENGTH - 1, max_new_tokens=LENGTH, **settings,
        )
        for source in batches
    ]  # fmt: skip


def compared(model: Transformer, copied: Any, sources: Sequence[Tensor]) -> dict[str, Any]:
    """How many hypotheses are those of `generate`, and the largest difference of scores."""
    ours = searched(model, model.classifier, sources)
    theirs = generated(copied, sources, return_dict_in_generate=True, output_scores=True)
    lines = [tuple(line[1:]) for batch in theirs for line in batch.sequences.tolist()]
    scores = torch.cat([batch.sequences_scores for batch in theirs])
    same = sum((*one.words, *[EOS] * one.ended) == line for one, line in zip(ours, lines, strict=True))
    largest = (torch.tensor([one.score() for one in ours]) - scores).abs().max().item()
    different = len({one.words for one in ours})
    return {"same hypotheses": same, "largest difference of scores": largest, "different hypotheses": different}


def operations(model: Transformer, sources: Sequence[Tensor]) -> float:
    """Floating-point operations of all matrix products for a sentence in the mean, without padding."""
    total = 0
    counted = Counter(map(len, sources))
    for source in {len(source): source for source in sources}.values():
        # The counter does not see into the fused attention.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            searched(model, model.classifier, [source])
        total += counted[len(source)] * counter.get_total_flops()
    return total / len(sources)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    transformers.logging.set_verbosity_error()
    ours, convolutional, sources = transformer(), convs2s(), sentences()
    copied, b0, square = as_marian(ours, 64), max_shift(ours.classifier, Constant(0.0)), torch.randn(SIDE, SIDE)  # type: ignore[arg-type]
    found = compared(ours, copied, sources)
    forms: dict[str, Callable[[], object]] = {
        "Hugging Face generate": functools.partial(generated, copied, sources),
        "Transformer, softmax": functools.partial(searched, ours, ours.classifier, sources),
        "Transformer, max-shift": functools.partial(searched, ours, b0, sources),
        "ConvS2S, softmax": functools.partial(searched, convolutional, convolutional.classifier, sources),
        "product": functools.partial(torch.mm, square, square),
    }
    load = round(os.getloadavg()[0], 2)
    seconds = take_turns(forms, rounds)
    needed, rate = operations(ours, sources), 2 * SIDE**3 / seconds.pop("product")
    rows = [
        {
            "search": name,
            "sentences/s": round(len(sources) / taken, 1),
            "times generate": round(seconds["Hugging Face generate"] / taken, 2),
        }
        for name, taken in seconds.items()
    ]
    rows.append({"search": "limit of the Transformer", "sentences/s": round(rate / needed, 1)})
    rows[-1]["times generate"] = round(rate / needed / len(sources) * seconds["Hugging Face generate"], 2)
    for row in rows:
        print(" | ".join(map(str, row.values())))
    about = {"machine": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    about |= {"transformers": transformers.__version__, "rounds": rounds, "load before": load, "sentences": SENTENCES}
    about |= found | {"Mflop a sentence": round(needed / 1e6, 1), "Gflop/s of a product": round(rate / 1e9, 1)}
    print(about)
    path = Path(__file__).parent / "results" / "beam_search.json"
    atomic.write(path, json.dumps(about | {"searches": rows}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
