"""The verdict on a claim, computed from the committed records by rules that are written here and nowhere else.

A *side* is a set of full records of one configuration, of the newest version of their experiment; only the seed and the
device may differ among them. Each seed is one sample (a seed that was run twice counts once, with its mean). A
comparison makes one number of its sides (of each seed's metric, or of what is left of it when that of another run is
subtracted): the mean, the difference ``left - right``, or the ratio ``left / right``, with
a 95 % t-interval over the seeds. For an order and a ratio the sides are independent samples; for a difference that was
published they are pairs, one a seed that both sides have. Then:

* Fewer seeds than the row asks for: *open*. The numbers are shown all the same.
* Order: *not reproduced* if the interval lies wholly inside the tolerance of equality (a difference that does not
  matter, however sure); else *reproduced* if it lies wholly on the claimed side of zero, *not reproduced* if wholly on
  the other side; else *open*: more seeds may tell.
* Value, difference and ratio: *reproduced* if the interval lies wholly inside the tolerance around the published number
  (or the number that the comparison itself gives), *not reproduced* if wholly outside; else *open*. The bounds belong
  to the inside: a tolerance of 0 asks for that very number.
* Correlation: the samples are configurations that may differ in anything, each with the mean over its seeds; their
  number takes the place of that of seeds. *Reproduced* if the interval of the rank correlation lies wholly above the
  bound, *not reproduced* if wholly below; else *open*.
* A row that asks for one seed says that chance plays no part, as where mismatches are counted. Then one record is
  enough, and the interval is its number itself.
* Scale: if a record does not meet the row's scale condition (the document's corpus or model size), a comparison that
  holds is *reproduced at reduced scale*, and one that fails is *open*, since a small trial refutes nothing.
* A row with several comparisons: *not reproduced* if one is not; else *open* if one is; else *reproduced at reduced
  scale* if one is; else *reproduced*. A row without comparisons is *open*.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fewbits.errors import FewbitsError
from fewbits.study import intervals
from fewbits.study.claims import (
    Claim,
    Comparison,
    Conditions,
    Correlation,
    Difference,
    Less,
    Published,
    Ratio,
    Selection,
    Sided,
    Within,
)
from fewbits.study.intervals import Estimate
from fewbits.study.records import Record

MAY_DIFFER = {"seed", "device"}  #: within a side, in the runs that these start from as well


class Verdict(StrEnum):
    """What the records say of a claim."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    REDUCED_SCALE = "reproduced at reduced scale"
    OPEN = "open"


@dataclass(frozen=True)
class Side:
    """The samples of one selection, one a seed."""

    name: str
    by_seed: dict[object, float]

    @property
    def samples(self) -> tuple[float, ...]:
        """The samples in the order of the records."""
        return tuple(self.by_seed.values())

    def __str__(self) -> str:
        """Write the side's name and mean."""
        return f"{self.name} {intervals.mean(self.samples).mean:.5g}" if self.samples else f"{self.name} not run"


@dataclass(frozen=True)
class Finding:
    """What one comparison found: its sides, the number it makes of them (``None`` if a side is empty), the verdict."""

    sides: tuple[Side, ...]
    relation: str  #: how the number is made: empty for a mean, else ``a - b`` or ``a / b``
    estimate: Estimate | None
    verdict: Verdict

    def __str__(self) -> str:
        """Write all numbers that there are, or nothing."""
        if not any(side.samples for side in self.sides):
            return ""
        names = ", ".join(str(side) for side in self.sides)
        if self.estimate is None:
            return names
        if not self.relation:
            return f"{self.sides[0].name} {self.estimate}"
        return f"{names}; {self.relation}: {self.estimate}"


@dataclass(frozen=True)
class Judgement:
    """The verdict on a row, and what each of its comparisons found."""

    verdict: Verdict
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        """Write the findings, those without numbers left out."""
        return " | ".join(filter(None, map(str, self.findings)))


def judge(claim: Claim, records: Sequence[Record]) -> Judgement:
    """Return the verdict on ``claim`` that ``records`` support, by the rules above.

    Raises:
        FewbitsError: If a condition names no configuration key, a side mixes configurations, or a metric is missing.
    """
    findings = tuple(_find(claim, comparison, records) for comparison in claim.comparisons)
    verdicts = {finding.verdict for finding in findings}
    worst_first = (Verdict.NOT_REPRODUCED, Verdict.OPEN, Verdict.REDUCED_SCALE, Verdict.REPRODUCED)
    return Judgement(next((each for each in worst_first if each in verdicts), Verdict.OPEN), findings)


def _find(claim: Claim, comparison: Comparison, records: Sequence[Record]) -> Finding:
    if isinstance(comparison, Correlation):
        return _correlated(claim, comparison, records)
    selections = [comparison.left] if isinstance(comparison, Within) else [comparison.left, comparison.right]
    sides, chosen = zip(*(_found(claim, selection, records) for selection in selections), strict=True)
    sign = {Within: "", Less: " - ", Ratio: " / ", Difference: " - "}[type(comparison)]
    relation = sign and sign.join(side.name for side in sides)
    estimate = _estimate(comparison, sides)
    if estimate is None:
        return Finding(sides, relation, None, Verdict.OPEN)
    verdict = Verdict.OPEN if estimate.n < claim.minimum_seeds else _verdict(comparison, estimate, claim.published)
    return Finding(sides, relation, estimate, _scaled(claim, verdict, [record for group in chosen for record in group]))


def _found(claim: Claim, selection: Selection, records: Sequence[Record]) -> tuple[Side, list[Record]]:
    """Return a side and the records that it is made of; with ``minus`` the differences of the seeds that both have."""
    chosen = _select(claim, selection, records)
    side = _side(claim, selection, chosen)
    if not selection.minus:
        return side, chosen
    other = selection.model_copy(update={"where": selection.where | selection.minus, "minus": {}})
    subtracted, theirs = _found(claim, other, records)
    both = {
        seed: value - subtracted.by_seed[seed] for seed, value in side.by_seed.items() if seed in subtracted.by_seed
    }
    return Side(selection.name, both), chosen + theirs


def _scaled(claim: Claim, verdict: Verdict, used: Iterable[Record]) -> Verdict:
    """Return the verdict that remains where a record is not at the document's scale."""
    if all(_meets(claim, record, claim.scale) for record in used):
        return verdict
    return Verdict.REDUCED_SCALE if verdict is Verdict.REPRODUCED else Verdict.OPEN


def _correlated(claim: Claim, comparison: Correlation, records: Sequence[Record]) -> Finding:
    sides = [
        Selection(name=comparison.name, experiment=comparison.experiment, where=comparison.where, metric=metric)
        for metric in comparison.metrics
    ]
    chosen = _select(claim, sides[0], records)
    repeated: dict[str, list[Record]] = {}
    for record in chosen:
        one = json.dumps(_repeated(record.result.config), sort_keys=True)
        repeated.setdefault(one, []).append(record)
    values = [
        [sum(_metric(claim, side, record) for record in group) / len(group) for group in repeated.values()]
        for side in sides
    ]
    named = Side(comparison.name, dict(enumerate(values[0])))
    if len(repeated) < 2:
        return Finding((named,), "", None, Verdict.OPEN)
    estimate = intervals.rank_correlation(*values)
    verdict = Verdict.OPEN
    if estimate.n >= claim.minimum_seeds:
        verdict = _inside(estimate, comparison.above, 1.0)
    return Finding((named,), "", estimate, _scaled(claim, verdict, chosen))


def _estimate(comparison: Sided, sides: tuple[Side, ...]) -> Estimate | None:
    """Return the number of a comparison, ``None`` if there are no records, or no pairs, to make it of."""
    samples: list[Sequence[float]] = [side.samples for side in sides]
    if isinstance(comparison, Difference):
        left, right = (side.by_seed for side in sides)
        pairs = [(left[seed], right[seed]) for seed in left if seed in right]
        return intervals.paired_difference(*zip(*pairs, strict=True)) if pairs else None
    if not all(samples):
        return None
    if isinstance(comparison, Within):
        return intervals.mean(*samples)
    return intervals.difference(*samples) if isinstance(comparison, Less) else intervals.ratio(*samples)


def _verdict(comparison: Sided, estimate: Estimate, published: list[Published]) -> Verdict:
    values = {number.name: number.value for number in published}
    tolerance = comparison.tolerance
    if isinstance(comparison, Less):
        equal = -tolerance <= estimate.low and estimate.high <= tolerance
        if equal or estimate.low > 0:
            return Verdict.NOT_REPRODUCED
        return Verdict.REPRODUCED if estimate.high < 0 else Verdict.OPEN
    if isinstance(comparison, Within):
        target = values[comparison.target] if isinstance(comparison.target, str) else comparison.target
        return _inside(estimate, target - tolerance, target + tolerance)
    if isinstance(comparison, Difference):
        target = values[comparison.target[0]] - values[comparison.target[1]]
        return _inside(estimate, target - tolerance, target + tolerance)
    target = values[comparison.target[0]] / values[comparison.target[1]]
    return _inside(estimate, target / tolerance, target * tolerance)


def _inside(estimate: Estimate, low: float, high: float) -> Verdict:
    """Tell whether the interval lies wholly inside the bounds, wholly outside, or neither (also if not finite)."""
    if low <= estimate.low and estimate.high <= high:
        return Verdict.REPRODUCED
    return Verdict.NOT_REPRODUCED if estimate.high < low or high < estimate.low else Verdict.OPEN


def _select(claim: Claim, selection: Selection, records: Sequence[Record]) -> list[Record]:
    candidates = [record for record in records if record.experiment == selection.experiment]
    newest = max((record.version for record in candidates), default=0)
    return [record for record in candidates if record.version == newest and _meets(claim, record, selection.where)]


def _meets(claim: Claim, record: Record, conditions: Conditions) -> bool:
    config = _flat(record.result.config)
    if unknown := conditions.keys() - config.keys():
        raise FewbitsError(
            f"claim {claim.id} asks for {', '.join(sorted(unknown))}, which the record {record.name!r} of "
            f"{record.experiment} does not have. It has {', '.join(sorted(config))}: correct data/claims."
        )
    accepted = {key: value if isinstance(value, list) else [value] for key, value in conditions.items()}
    return all(config[key] in values for key, values in accepted.items())


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with the fields of those within it as ``start.corpus``, beside the whole."""
    flat = dict(config)
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": content for inner, content in _flat(value).items()}
    return flat


def _side(claim: Claim, selection: Selection, records: Sequence[Record]) -> Side:
    configs = [_repeated(record.result.config) for record in records]
    keys = {key for config in configs for key in config}
    if mixed := sorted(key for key in keys if not _same(config.get(key) for config in configs)):
        raise FewbitsError(
            f"claim {claim.id}: the records of {selection.name!r} differ in {', '.join(mixed)}, "
            "so that they are no repetitions of one run. Narrow its `where` in data/claims."
        )
    seeds: dict[object, list[float]] = {}
    for record in records:
        seeds.setdefault(record.result.config.get("seed", record.name), []).append(_metric(claim, selection, record))
    return Side(selection.name, {seed: sum(values) / len(values) for seed, values in seeds.items()})


def _repeated(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration, and those within it, without what repetitions of one run may differ in."""
    return {
        key: _repeated(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in MAY_DIFFER
    }


def _same(values: Iterable[object]) -> bool:
    first, *others = values
    return all(other == first for other in others)


def _metric(claim: Claim, selection: Selection, record: Record) -> float:
    metrics = record.result.metrics
    value = metrics.get(selection.metric, "missing")
    if not isinstance(value, str):
        return math.nan if value is None else float(value)  # a run that diverged stores None
    raise FewbitsError(
        f"claim {claim.id} reads the metric {selection.metric!r}, but the record {record.name!r} of "
        f"{record.experiment} has no number of that name. It has {', '.join(sorted(metrics))}: correct data/claims."
    )
