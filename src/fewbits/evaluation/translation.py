"""BLEU of translations, its bootstrap interval, and a paired test of two systems, all by sacreBLEU."""

import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

from fewbits.errors import FewbitsError

if TYPE_CHECKING:
    import numpy as np

Name = TypeVar("Name", bound=Hashable)

SEED = 12345  #: of the bootstrap: sacreBLEU's own


@dataclass(frozen=True)
class Bleu:
    """A corpus BLEU in percent, and all that is needed to compute it again."""

    score: float
    signature: str  #: sacreBLEU's: settings, resamples, seed, version
    interval: tuple[float, float]  #: 95 %: mean of the resamples ± half the width of their central 95 %


@dataclass(frozen=True)
class PairedBootstrap:
    """BLEU of system b minus that of system a on the same sentences, and how surprising it would be by chance."""

    difference: float
    p_value: float
    signature: str


def bleu(hypotheses: Sequence[str], references: Sequence[str], *, resamples: int = 1000) -> Bleu:
    """Return the corpus BLEU of one hypothesis and one reference a sentence (Papineni et al. 2002, Post 2018).

    BLEU = 100 · min(1, e^(1 − r/c)) · (p₁ p₂ p₃ p₄)^(1/4) with the clipped n-gram precisions p_n of the whole corpus,
    r and c the words of references and hypotheses. Tokenized by 13a, cased as given, an n-gram order without a match is
    smoothed (exp); no match at all is 0. An empty hypothesis counts as a sentence without words.

    Args:
        hypotheses: a sentence each, as text.
        references: the same number.
        resamples: of the bootstrap over sentences.

    Raises:
        FewbitsError: If the numbers of sentences differ, there are none, a reference is empty, or there are fewer than
            two resamples.

    >>> bleu(["the cat sat on the mat", "go !"], ["the cat sat on a mat", "run !"]).signature  # doctest: +ELLIPSIS
    'nrefs:1|bs:1000|seed:12345|case:mixed|eff:no|tok:13a|smooth:exp|version:...'
    """
    _check(references, resamples, hypotheses=hypotheses)
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(force=True)
    with _seeded():
        found = metric.corpus_score(hypotheses, [references], n_bootstrap=resamples)
    mean, half = found._mean, found._ci
    return Bleu(found.score, str(metric.get_signature()), (mean - half, mean + half))


def paired_bootstrap(
    hypotheses_a: Sequence[str], hypotheses_b: Sequence[str], references: Sequence[str], *, resamples: int = 1000
) -> PairedBootstrap:
    """Return the difference b − a in BLEU and the p-value of sacreBLEU's paired bootstrap test (Koehn 2004).

    p = (1 + the number of resamples with |d| − mean |d| > |difference|) / (1 + resamples), where d is the difference in
    a resample of the sentences, the same for both systems. A difference of 0 has p = 1: this formula would call it
    significant when both systems say the same.

    Raises:
        FewbitsError: As ``bleu`` does.
    """
    _check(references, resamples, hypotheses_a=hypotheses_a, hypotheses_b=hypotheses_b)
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.significance import PairedTest, Result

    systems = [("a", hypotheses_a), ("b", hypotheses_b)]
    with _seeded():
        test = PairedTest(systems, {"BLEU": BLEU(force=True)}, [references], test_type="bs", n_samples=resamples)
    signatures, results = test()
    first, second = cast(list[Result], results["BLEU"])
    difference = second.score - first.score
    p_value = 1.0 if difference == 0 else cast(float, second.p_value)
    return PairedBootstrap(difference, p_value, str(signatures["BLEU"]))


@dataclass(frozen=True)
class Resampled:
    """A corpus BLEU in percent, and that of each resample of the sentences."""

    score: float
    resamples: "np.ndarray"  #: (resamples,)


def resampled_bleu(
    systems: Mapping[Name, Sequence[str]], references: Sequence[str], *, resamples: int = 1000
) -> dict[Name, Resampled]:
    """Return BLEU of each system and of resamples of the sentences, drawn with replacement, the same for all systems.

    So differences and quotients of several systems can be given intervals (Koehn 2004). Counts are sacreBLEU's, with
    the settings of `bleu`; the draws are numpy's, with its seed.

    Raises:
        FewbitsError: As ``bleu`` does.
    """
    _check(references, resamples, **{f"system {name}": sentences for name, sentences in systems.items()})
    import numpy as np
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(force=True)
    number = len(references)
    drawn = np.random.default_rng(SEED).integers(number, size=(resamples, number))
    times = np.stack([np.bincount(draw, minlength=number) for draw in drawn])

    def score(counts: "np.ndarray") -> float:
        hypothesis, reference, *matched = map(int, counts)
        order = len(matched) // 2
        return BLEU.compute_bleu(matched[:order], matched[order:], hypothesis, reference, smooth_method="exp").score

    def counted(hypothesis: str, reference: str) -> list[int]:
        found = metric.corpus_score([hypothesis], [[reference]])
        return [found.sys_len, found.ref_len, *found.counts, *found.totals]

    results = {}
    for name, sentences in systems.items():
        counts = np.array([counted(*pair) for pair in zip(sentences, references, strict=True)])
        results[name] = Resampled(score(counts.sum(0)), np.array([score(row) for row in times @ counts]))
    return results


def _check(references: Sequence[str], resamples: int, **systems: Sequence[str]) -> None:
    for name, sentences in {"references": references, **systems}.items():
        if isinstance(sentences, str):
            raise FewbitsError(f"{name} is one string; give a list of sentences.")
    for name, sentences in systems.items():
        if len(sentences) != len(references):
            raise FewbitsError(
                f"{name} has {len(sentences):,} lines and the references have {len(references):,}; line n of one must "
                "translate what line n of the other translates. Look for a line that was dropped or cut in two."
            )
    if not references:
        raise FewbitsError("there are no sentences, so there is no BLEU; give one or more.")
    if empty := [number for number, line in enumerate(references, 1) if not line.strip()]:
        raise FewbitsError(f"reference {empty[0]:,} is empty; leave that pair out, nothing can match it.")
    if resamples < 2:
        raise FewbitsError(f"{resamples} resamples give no interval; take two or more, 1,000 as a rule.")


@contextmanager
def _seeded() -> Iterator[None]:
    """Give sacreBLEU the seed, which it reads from the environment."""
    before = os.environ.get("SACREBLEU_SEED")
    os.environ["SACREBLEU_SEED"] = str(SEED)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SACREBLEU_SEED"]
        else:
            os.environ["SACREBLEU_SEED"] = before
