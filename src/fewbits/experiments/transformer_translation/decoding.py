"""Translations of the tests by each way of search, and what they are worth."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from tqdm import tqdm

from fewbits.classifiers import Classifier, Constant, IntegerMaxShift, MaxShift, Shift, Softmax
from fewbits.evaluation.search import Beam, Decoder, Hypothesis, beam_search
from fewbits.evaluation.translation import bleu, paired_bootstrap
from fewbits.experiments.transformer_translation.texts import Text
from fewbits.models.seq2seq import padded

SEARCHES = ("greedy", "beam_softmax", "beam_max_shift")
BEAM = 5
SCALE_BITS = (0, 2, 4, 8)  #: of the integer scores whose greedy translations are compared
_ROWS = 100  #: sentences in work at a time
_EXAMPLES = 4

Written = dict[tuple[str, str], list[str]]  #: test and search: its translations


def fairseq_beam(beam: int, longest: int, **settings: Any) -> Beam:
    """Return beam search as fairseq has it: an end at the longest length, and no empty translation."""
    return Beam(beam, longest, min_length=1, force_end=True, **settings)


def max_shift(trained: Softmax, shift: Shift) -> MaxShift:
    """Return max-shift over the output matrix of ``trained``, which both share."""
    other = MaxShift(trained.hidden_size, trained.vocabulary_size, shift)
    other.output = trained.output
    return other


def hypotheses(
    model: Decoder[Tensor, Any],
    classifier: Classifier,
    sources: Sequence[Tensor],
    beam: Beam,
    *,
    sos: int = Text.sos,
    eos: int = Text.eos,
) -> list[list[Hypothesis]]:
    """Return the ``n_best`` hypotheses of each sentence; sentences of about one length are in work together.

    A terminal shows the progress.
    """
    order = sorted(range(len(sources)), key=lambda place: len(sources[place]))
    device = next(classifier.parameters()).device
    found: dict[int, list[Hypothesis]] = {}
    starts = range(0, len(order), _ROWS)
    for first in tqdm(starts, f"search, beam {beam.beam}", leave=False, disable=None, mininterval=1):
        places = order[first : first + _ROWS]
        source = padded([sources[place] for place in places]).to(device)
        best = beam_search(model, classifier, source, sos=sos, eos=eos, beam=beam)
        found |= zip(places, best, strict=True)
    return [found[place] for place in range(len(sources))]


def translate(
    model: Decoder[Tensor, Any], trained: Softmax, text: Text, longest: int
) -> tuple[Written, dict[str, float]]:
    """Return the translations of each test by each search, and how many are those of greedy search.

    Beam search has the settings that fairseq's generator has as defaults: beam 5, length penalty 1, early stopping.
    Greedy search is a beam of 1 with the same rules. Beside it stands greedy search over integer scores.
    """
    b0 = max_shift(trained, Constant(0.0))
    searches: dict[str, tuple[Classifier, int]] = {
        "greedy": (trained, 1), "beam_softmax": (trained, BEAM), "beam_max_shift": (b0, BEAM), "max_shift": (b0, 1),
        **{f"integer_{bits}": (_integer(trained, bits), 1) for bits in SCALE_BITS},
    }  # fmt: skip
    written: Written = {}
    same: dict[str, float] = {}
    for test in text.tests:
        sources = [source for source, _ in text.numbers(test)]
        plain: list[Hypothesis] = []
        for search, (classifier, beam) in searches.items():
            found = [best for best, *_ in hypotheses(model, classifier, sources, fairseq_beam(beam, longest))]
            plain = plain or found
            pairs = zip(found, plain, strict=True)
            same[f"{test}_{search}_same"] = sum(a.words == b.words for a, b in pairs) / len(plain)
            if search in SEARCHES:
                written[test, search] = [text.subwords.decode(one.words) for one in found]
    return written, same


def score(written: Written, text: Text) -> tuple[dict[str, Any], dict[str, list[float]], dict[str, list[str]]]:
    """Return BLEU of each test and search, paired tests of the searches, intervals, and the first translations."""
    metrics: dict[str, Any] = {}
    intervals: dict[str, list[float]] = {}
    texts: dict[str, list[str]] = {}
    for test in text.tests:
        references = text.references(test)
        metrics[f"{test}_pairs"] = len(references)
        for search in SEARCHES:
            found = bleu(written[test, search], references)
            metrics |= {f"{test}_{search}": found.score, "bleu_signature": found.signature}
            intervals[f"{test}_{search}_interval"] = list(found.interval)
            texts[f"{test}_{search}"] = written[test, search][:_EXAMPLES]
        metrics[f"{test}_kept"] = _share(metrics[f"{test}_beam_max_shift"], metrics[f"{test}_beam_softmax"])
        for one, other in (
            ("greedy", "beam_softmax"),
            ("beam_softmax", "beam_max_shift"),
            ("greedy", "beam_max_shift"),
        ):
            paired = paired_bootstrap(written[test, one], written[test, other], references)
            metrics |= {f"{test}_{one}_{other}_p": paired.p_value, "paired_signature": paired.signature}
        texts |= {f"{test}_source": [source for source, _ in text.part(test)[:_EXAMPLES]]}
        texts |= {f"{test}_reference": references[:_EXAMPLES]}
    return metrics, intervals, texts


def _integer(trained: Softmax, scale_bits: int) -> IntegerMaxShift:
    other = IntegerMaxShift(trained.hidden_size, trained.vocabulary_size, scale_bits)
    other.output = trained.output
    return other


def _share(part: float, whole: float) -> float | None:
    """Return part / whole in percent, or nothing where nothing was translated right."""
    return 100 * part / whole if whole else None
