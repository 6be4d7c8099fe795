"""How many bits of normaliser beam search needs: one trained translator, searched with each estimate of it (M12)."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import product
from operator import eq
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fewbits.classifiers import Constant, Shift, Softmax, TopBit
from fewbits.data import data_hashes
from fewbits.evaluation.normaliser import best_constant, gap_statistics
from fewbits.evaluation.search import Beam, Hypothesis, Stop
from fewbits.evaluation.translation import resampled_bleu
from fewbits.experiments.transformer_translation import TransformerTranslation
from fewbits.experiments.transformer_translation import runs as trained
from fewbits.experiments.transformer_translation.decoding import fairseq_beam, hypotheses, max_shift
from fewbits.experiments.transformer_translation.texts import Text
from fewbits.models import ConvSeq2Seq, Transformer
from fewbits.models.seq2seq import PADDING, padded
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Configuration, Context, weights_hash

FRACTION_BITS = (0, 1, 2, 3, 4)
PENALTIES = (0.0, 0.6, 1.0)
_ROWS = 100


class Search(NamedTuple):
    """One way to translate; as text the four parts with ``_`` between them."""

    estimate: str  #: b by name
    beam: int
    penalty: float  #: length penalty α
    stop: Stop

    def __str__(self) -> str:
        """Return the name in metrics and arrays."""
        stop = "early" if self.stop is Stop.FIRST_FINISHED else "late"
        return f"{self.estimate}_{self.beam}_{self.penalty:g}_{stop}"


class BeamNormaliser(Configuration):
    """One translator, searched over beams, length penalties, ends of the search, and estimates b of the normaliser."""

    experiment: ClassVar[str] = "beam_normaliser"
    version: ClassVar[int] = 1

    start: TransformerTranslation  #: the run whose model is searched
    test: str | None = None  #: the test to translate; None is the first
    beams: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10)  #: of searches that stop early, 1 among them
    late_beams: tuple[int, ...] = (2, 5, 10)  #: of searches that go on to the end, which take several times as long
    resamples: int = Field(1_000, ge=2)  #: of the sentences, for the intervals

    @property
    def name(self) -> str:
        """The run that is searched."""
        return f"{self.start.name}-search"

    @property
    def large_products(self) -> bool:
        """As the run that it starts from."""
        return self.start.large_products

    def data_hashes(self) -> dict[str, str]:
        """Return the hashes of the sentences."""
        return data_hashes(self.start.corpus)

    def compute(self, context: Context) -> Computed:
        """Search with each estimate, score everything, and resample the sentences for the share of the gain."""
        weights = context.start(self.start)
        text = self.start.text()
        model = self.start.model(len(text.subwords))
        model.load_state_dict(weights)
        if isinstance(model, ConvSeq2Seq):
            model.fold()
        model = model.to(context.device).eval()
        estimates = self._estimates(model, text)
        test = self.test or text.tests[0]
        searched = self._searched(model, estimates, text, test)
        metrics, arrays = compare(searched, text.references(test), self.resamples)
        gap, drawn = gap_statistics(_logits(model, text, test), cast(Constant, estimates["constant"]).b)
        texts = {"start": [weights_hash(weights)], "test": [test]}
        return Computed(metrics | gap, [], arrays | drawn, dict(weights), texts=texts)

    def _estimates(self, model: Transformer | ConvSeq2Seq, text: Text) -> dict[str, Shift | None]:
        """Return each b by name; none is log softmax itself."""
        fitted = Constant(best_constant(_logits(model, text, "valid")))
        bits: dict[str, Shift | None] = {f"top_bit_{f}": TopBit(f) for f in FRACTION_BITS}
        return {"exact": None, "zero": Constant(0.0), "constant": fitted} | bits

    def _searched(
        self, model: Transformer | ConvSeq2Seq, estimates: dict[str, Shift | None], text: Text, test: str
    ) -> dict[Search, list[str]]:
        """Return the translations of each search; those that go on to the end are cut off at the longest length."""
        sources = [source for source, _ in text.numbers(test)]
        trained = cast(Softmax, model.classifier)
        searched = {}

        def written(found: Iterable[Hypothesis]) -> list[str]:
            return [text.subwords.decode(one.words) for one in found]

        for name, shift in estimates.items():
            scored = trained if shift is None else max_shift(trained, shift)
            for beam in self.beams:  # a search that stops early takes the same course with every penalty
                found = hypotheses(model, scored, sources, fairseq_beam(beam, self.start.longest, n_best=beam))
                for penalty in PENALTIES:
                    searched[Search(name, beam, penalty, Stop.FIRST_FINISHED)] = written(
                        max(some, key=partial(Hypothesis.score, length_penalty=penalty)) for some in found
                    )
            for beam, penalty in product(self.late_beams, PENALTIES):
                late = Beam(beam, self.start.longest, penalty, Stop.NO_BETTER, min_length=1)
                found = hypotheses(model, scored, sources, late)
                searched[Search(name, beam, penalty, Stop.NO_BETTER)] = written(some[0] for some in found)
        return searched


def compare(
    searched: dict[Search, list[str]], references: list[str], resamples: int
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Return BLEU of each search, how many of its translations are greedy, and the share of the beam's gain.

    The share is (B_b − G) / (B − G) with G the BLEU of greedy search, B that of the same search with log softmax and
    B_b that with the estimate b. Intervals are the central 95 % of resamples of the sentences, the same for all three;
    there is none for a share where a resample has no gain.
    """
    drawn = resampled_bleu(searched, references, resamples=resamples)
    plain = Search("exact", 1, 1.0, Stop.FIRST_FINISHED)
    greedy = drawn[plain]
    metrics: dict[str, Any] = {"sentences": len(references)}
    arrays: dict[str, list[float]] = {}
    for search, found in searched.items():
        own, exact = drawn[search], drawn[search._replace(estimate="exact")]
        gain = exact.resamples - greedy.resamples
        metrics[f"bleu_{search}"] = own.score
        metrics[f"same_{search}"] = sum(map(eq, found, searched[plain])) / len(references)
        arrays[f"loss_{search}"] = _central(exact.resamples - own.resamples)
        if exact.score > greedy.score:
            metrics[f"share_{search}"] = (own.score - greedy.score) / (exact.score - greedy.score)
        if (gain > 0).all():
            arrays[f"share_{search}"] = _central((own.resamples - greedy.resamples) / gain)
    return metrics, arrays


def _central(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.quantile(values, (0.025, 0.975))]


@torch.no_grad()
def _logits(model: Transformer | ConvSeq2Seq, text: Text, part: str) -> Iterator[Tensor]:
    """Yield z (words, V) before each word of a part, with the right words before it."""
    pairs = text.numbers(part)
    output, device = cast(Softmax, model.classifier).output, next(model.parameters()).device
    for first in range(0, len(pairs), _ROWS):
        source, target = (padded(side).to(device) for side in zip(*pairs[first : first + _ROWS], strict=True))
        yield output(model(source, target)[target != PADDING])


#: What differs from the full scale, which the field defaults hold.
_SCALES: dict[Profile, dict[str, Any]] = {
    Profile.SMOKE: {"beams": (1, 2, 5), "late_beams": (5,), "resamples": 100},
    Profile.LAPTOP: {"beams": (1, 2, 3, 5, 10), "late_beams": (5,)},
    Profile.FULL: {},
}


def runs(profile: Profile, *, corpus: str | None = None, epochs: int | None = None) -> list[BeamNormaliser]:
    """Return the runs of a profile: one for each first model of `transformer_translation`; at smoke only the last.

    Args:
        profile: smoke, laptop or full.
        corpus: the name of a data set of sentences; None is what the profile says.
        epochs: number of epochs of the model's training; None is what the profile says.

    Raises:
        FewbitsError: If a number is below 1.
    """
    models = trained(profile, seeds=1, corpus=corpus, epochs=epochs)
    searched = models[-1:] if profile is Profile.SMOKE else models
    return [BeamNormaliser(start=model, **_SCALES[profile]) for model in searched]
