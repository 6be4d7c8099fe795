"""The written rules, each on samples whose interval is known from scipy."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from fewbits.errors import FewbitsError
from fewbits.study.claims import Claim
from fewbits.study.records import Record
from fewbits.study.verdicts import Verdict, judge


def record(arm: str, seed: int, value: Any, *, version: int = 1, metric: str = "perplexity", **config: Any) -> Record:
    result = {"config": {"arm": arm, "seed": seed, **config}, "metrics": {metric: value}, "history": []}
    where = {"commit": "c", "device": "d", "wall_seconds": 1, "peak_memory_bytes": 1, "versions": {}, "data": {}}
    return Record.model_validate(
        {"experiment": "toy", "version": version, "profile": "full", "name": f"{arm}-seed{seed}", "key": "k"}
        | {"result": result | {"weights_sha256": None}, "provenance": where}
    )


def runs(arm: str, values: Sequence[Any], **config: Any) -> list[Record]:
    return [record(arm, seed, value, **config) for seed, value in enumerate(values)]


def side(arm: str) -> dict[str, Any]:
    return {"name": arm, "experiment": "toy", "where": {"arm": arm}, "metric": "perplexity"}


def claim(*comparisons: dict[str, Any], **fields: Any) -> Claim:
    published = [
        {"name": name, "value": value, "unit": "", "certainty": "doc", "source": "toy"}
        for name, value in (("a", 100.0), ("b", 50.0))
    ]
    row = {"id": "S1", "title": "t", "kind": "shape", "statement": "s", "published": published, "chapter": None}
    return Claim.model_validate(row | {"compares": "c", "near_enough": "n", "comparisons": comparisons} | fields)


LESS = {"operator": "less", "left": side("a"), "right": side("b"), "tolerance": 1}
WITHIN = {"operator": "within", "left": side("a"), "target": "a", "tolerance": 5}
RATIO = {"operator": "ratio", "left": side("a"), "right": side("b"), "target": ("a", "b"), "tolerance": 1.25}


DIFFERENCE = RATIO | {"operator": "difference", "tolerance": 5}


def verdict(comparison: dict[str, Any], a: Sequence[Any], b: Sequence[Any] = ()) -> Verdict:
    return judge(claim(comparison), runs("a", a) + runs("b", b)).verdict


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([10, 11, 12], [20, 21, 22], Verdict.REPRODUCED),  # difference -10 ± 2.3
        ([20, 21, 22], [10, 11, 12], Verdict.NOT_REPRODUCED),  # +10 ± 2.3
        ([10, 15, 20], [12, 17, 22], Verdict.OPEN),  # -2 ± 11.3
        ([10.0, 10.1, 10.2], [10.4, 10.5, 10.6], Verdict.NOT_REPRODUCED),  # -0.4 ± 0.23: surely less, but equal enough
        ([10.0, 10.1, 10.2], [11.4, 11.5, 11.6], Verdict.REPRODUCED),  # -1.4 ± 0.23
        ([10.0, 10.1, 10.2], [11.0, 11.1, 11.2], Verdict.REPRODUCED),  # -1 ± 0.23: reaches beyond the tolerance
        ([10, 11, 12], [20, 21, math.inf], Verdict.OPEN),
        ([10, 11, 12], [20, 21, None], Verdict.OPEN),
        ([10, 11], [20, 21], Verdict.OPEN),  # too few seeds
        ([10, 11, 12], [20, 21], Verdict.OPEN),
        ([10, 11, 12], [], Verdict.OPEN),
        ([], [], Verdict.OPEN),
    ],
)
def test_order(a: list[float], b: list[float], expected: Verdict) -> None:
    assert verdict(LESS, a, b) is expected


@pytest.mark.parametrize(
    ("a", "expected"),
    [
        ([99, 100, 101], Verdict.REPRODUCED),  # ± 2.48 in ± 5
        ([102, 103, 104], Verdict.OPEN),  # 103 ± 2.48 reaches over 105
        ([107.6, 108.6, 109.6], Verdict.NOT_REPRODUCED),
        ([90, 91, 92], Verdict.NOT_REPRODUCED),
        ([80, 100, 120], Verdict.OPEN),  # ± 50
        ([100, 100], Verdict.OPEN),
    ],
)
def test_value(a: list[float], expected: Verdict) -> None:
    assert verdict(WITHIN, a) is expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([198, 200, 202], [99, 100, 101], Verdict.REPRODUCED),  # published: 100 / 50, between 1.6 and 2.5
        ([148, 150, 152], [99, 100, 101], Verdict.NOT_REPRODUCED),
        ([298, 300, 302], [99, 100, 101], Verdict.NOT_REPRODUCED),
        ([248, 250, 252], [99, 100, 101], Verdict.OPEN),
        ([99, 100, 101], [198, 200, 202], Verdict.NOT_REPRODUCED),
    ],
)
def test_ratio(a: list[float], b: list[float], expected: Verdict) -> None:
    assert verdict(RATIO, a, b) is expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([148, 250, 352], [99, 200, 301], Verdict.REPRODUCED),  # published: 100 - 50; 49, 50, 51 though a and b vary
        ([140, 150, 160], [99, 100, 101], Verdict.OPEN),  # 41, 50, 59
        ([156, 258, 360], [99, 200, 301], Verdict.NOT_REPRODUCED),  # 57, 58, 59
        ([99, 200, 301], [148, 250, 352], Verdict.NOT_REPRODUCED),  # the other way round
        ([150, 250], [100, 200], Verdict.OPEN),  # too few
        ([150, 250, 350], [], Verdict.OPEN),
        ([150, 250, None], [100, 200, 300], Verdict.OPEN),
    ],
)
def test_difference(a: list[Any], b: list[Any], expected: Verdict) -> None:
    assert verdict(DIFFERENCE, a, b) is expected


def test_a_difference_pairs_the_samples_of_one_seed() -> None:
    left = [record("a", seed, 10.0 * seed + 50) for seed in (3, 1, 2, 7)]
    right = [record("b", seed, 10.0 * seed) for seed in (1, 2, 3, 9)]
    judgement = judge(claim(DIFFERENCE), left + right)
    assert judgement.verdict is Verdict.REPRODUCED
    assert str(judgement).endswith("a - b: 50 [50, 50], n = 3")
    assert str(judge(claim(DIFFERENCE), left[:1] + right[3:])) == "a 80, b 90"


def test_a_side_may_be_what_one_run_has_beyond_another_of_its_seed() -> None:
    def loss(cell: str) -> dict[str, Any]:
        of = {"arm": "float", "cell": cell}
        return side("float") | {"name": f"{cell} loss", "where": of, "minus": {"arm": "ternary"}}

    def cell(name: str, float_: list[float], ternary: list[float]) -> list[Record]:
        return runs("float", float_, cell=name) + runs("ternary", ternary, cell=name)

    compared = claim(LESS | {"left": loss("lstm"), "right": loss("gru")})
    found = judge(compared, cell("lstm", [30, 40, 50], [28, 39, 47]) + cell("gru", [50, 40, 30], [41, 30, 19]))
    assert found.verdict is Verdict.REPRODUCED  # 2 ± 2.5 against 10 ± 2.5, where float alone is 40 ± 25 in both
    assert [each.samples for each in found.findings[0].sides] == [(2, 1, 3), (9, 10, 11)]
    unpaired = cell("lstm", [30, 40, 50], [28, 39]) + cell("gru", [50, 40, 30], [41, 30, 19])
    assert judge(compared, unpaired).verdict is Verdict.OPEN
    assert judge(compared, unpaired).findings[0].sides[0].samples == (2, 1)
    assert judge(compared, cell("gru", [50, 40, 30], [41, 30, 19])).verdict is Verdict.OPEN
    scaled = claim(LESS | {"left": loss("lstm"), "right": loss("gru")}, scale={"arm": "float"})
    everything = cell("lstm", [30, 40, 50], [28, 39, 47]) + cell("gru", [50, 40, 30], [41, 30, 19])
    assert judge(scaled, everything).verdict is Verdict.REDUCED_SCALE  # of the runs that are subtracted as well


def test_a_difference_is_a_value() -> None:
    assert claim(DIFFERENCE, kind="value").kind == "value"
    with pytest.raises(ValueError, match="needs a comparison 'within' or 'difference'"):
        claim(LESS, kind="value")


def test_too_few_seeds_still_show_the_numbers() -> None:
    judgement = judge(claim(LESS), runs("a", [10]) + runs("b", [25]))
    assert (judgement.verdict, str(judgement)) == (Verdict.OPEN, "a 10, b 25; a - b: -15, n = 1")
    assert str(judge(claim(LESS), runs("a", [10, 12]))) == "a 11, b not run"
    assert str(judge(claim(LESS), [])) == ""


def test_one_seed_is_enough_where_chance_plays_no_part() -> None:
    assert judge(claim(WITHIN, minimum_seeds=1), runs("a", [104])).verdict is Verdict.REPRODUCED
    assert judge(claim(WITHIN, minimum_seeds=1), runs("a", [106])).verdict is Verdict.NOT_REPRODUCED


@pytest.mark.parametrize(
    ("mismatches", "expected"),
    [
        ([0], Verdict.REPRODUCED),  # the interval is 0 … 0, and so are the bounds
        ([1], Verdict.NOT_REPRODUCED),
        ([4294967296], Verdict.NOT_REPRODUCED),
        ([0, 0], Verdict.REPRODUCED),  # also of two seeds
        ([0, 2], Verdict.OPEN),  # 1 ± 12.7
        ([None], Verdict.OPEN),
        ([], Verdict.OPEN),
    ],
)
def test_a_number_that_must_be_met_exactly(mismatches: list[Any], expected: Verdict) -> None:
    zero = {"operator": "within", "left": side("a"), "target": 0, "tolerance": 0}
    row = claim(zero, published=[], minimum_seeds=1)
    assert judge(row, runs("a", mismatches)).verdict is expected
    unless_enough = judge(claim(zero, published=[]), runs("a", mismatches)).verdict
    assert unless_enough is Verdict.OPEN, "three seeds are asked for unless the row says otherwise"


def test_a_target_is_a_number_or_the_name_of_one() -> None:
    assert judge(claim(WITHIN | {"target": 101.5}), runs("a", [99, 100, 101])).verdict is Verdict.REPRODUCED
    assert judge(claim(WITHIN | {"target": 200}), runs("a", [99, 100, 101])).verdict is Verdict.NOT_REPRODUCED
    with pytest.raises(ValueError, match="the target '100' is none of the published numbers"):
        claim(WITHIN | {"target": "100"})


def test_below_the_documents_scale_success_is_named_and_failure_refutes_nothing() -> None:
    row = claim(LESS, scale={"corpus": ["ptb", "wikitext-2"]})
    good, bad = ([10, 11, 12], [20, 21, 22]), ([20, 21, 22], [10, 11, 12])

    def judged(values: tuple[list[int], list[int]], left: str, right: str) -> Verdict:
        return judge(row, runs("a", values[0], corpus=left) + runs("b", values[1], corpus=right)).verdict

    assert judged(good, "ptb", "ptb") is Verdict.REPRODUCED
    assert judged(good, "news", "news") is Verdict.REDUCED_SCALE
    assert judged(good, "wikitext-2", "news") is Verdict.REDUCED_SCALE
    assert judged(bad, "news", "news") is Verdict.OPEN
    assert judged(bad, "ptb", "ptb") is Verdict.NOT_REPRODUCED


def test_all_comparisons_of_a_row_must_hold() -> None:
    stored = runs("a", [99, 100, 101]) + runs("b", [199, 200, 201])
    fails = LESS | {"left": side("b"), "right": side("a")}
    unknown = LESS | {"right": side("c")}
    for comparisons, expected in (
        ([], Verdict.OPEN),
        ([LESS, WITHIN], Verdict.REPRODUCED),
        ([LESS, unknown], Verdict.OPEN),
        ([unknown, fails, LESS], Verdict.NOT_REPRODUCED),
    ):
        assert judge(claim(*comparisons), stored).verdict is expected


def test_a_seed_that_was_run_twice_counts_once() -> None:
    twice = [record("a", seed, 10 + seed, device=device) for seed in (0, 1) for device in ("cpu", "cuda")]
    judgement = judge(claim(LESS), twice + runs("b", [20, 21, 22]))
    assert judgement.verdict is Verdict.OPEN
    assert str(judgement).endswith("n = 2")


def test_records_of_an_older_version_or_of_another_experiment_are_not_used() -> None:
    old = [record("a", seed, 1000, version=1, removed=True) for seed in range(3)]
    other = [each.model_copy(update={"experiment": "other"}) for each in runs("a", [1000] * 3)]
    new = runs("a", [99, 100, 101], version=2)
    assert judge(claim(WITHIN), [*old, *other, *new]).verdict is Verdict.REPRODUCED


def test_a_side_of_several_configurations_is_refused() -> None:
    mixed = [record("a", seed, 10, hidden=100 * (seed + 1)) for seed in range(3)]
    with pytest.raises(FewbitsError, match=r"S1.*'a' differ in hidden.*`where`"):
        judge(claim(WITHIN), mixed)


def test_a_condition_may_look_into_the_run_that_another_started_from() -> None:
    inside = WITHIN | {"left": side("a") | {"where": {"start.corpus": "big"}}}
    found = [record("a", 0, value, start={"corpus": corpus}) for corpus, value in (("big", 100.0), ("small", 300.0))]
    assert judge(claim(inside, minimum_seeds=1), found).verdict is Verdict.REPRODUCED


def test_runs_that_started_from_other_seeds_are_repetitions_and_from_other_runs_are_not() -> None:
    values = enumerate([99.0, 100.0, 101.0])
    found = [record("a", seed, value, start={"corpus": "big", "seed": seed}) for seed, value in values]
    assert judge(claim(WITHIN), found).findings[0].estimate.n == 3  # type: ignore[union-attr]
    other = record("a", 3, 100.0, start={"corpus": "small", "seed": 3})
    with pytest.raises(FewbitsError, match="'a' differ in start"):
        judge(claim(WITHIN), [*found, other])


def test_a_condition_on_an_unknown_key_is_refused() -> None:
    misspelt = WITHIN | {"left": side("a") | {"where": {"arms": "a"}}}
    with pytest.raises(FewbitsError, match=r"S1 asks for arms.*It has arm, seed"):
        judge(claim(misspelt), runs("a", [1]))
    with pytest.raises(FewbitsError, match="corpus"):
        judge(claim(WITHIN, scale={"corpus": "ptb"}), runs("a", [1]))


@pytest.mark.parametrize("wrong", [{"metric": "accuracy"}, {"value": "high"}])
def test_a_metric_that_is_no_number_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(FewbitsError, match="S1 reads the metric 'perplexity'"):
        judge(claim(WITHIN), [record("a", 0, **({"value": 1} | wrong))])


CORRELATION = {
    "operator": "correlation", "name": "x and y", "experiment": "toy", "where": {}, "metrics": ("x", "y"),
    "above": -0.9,
}  # fmt: skip


def points(*pairs: tuple[Any, Any]) -> list[Record]:
    found = []
    for number, (x, y) in enumerate(pairs):
        one = record(f"arm{number}", 0, x, metric="x")
        found.append(one.model_copy(update={"result": one.result.model_copy(update={"metrics": {"x": x, "y": y}})}))
    return found


RISING = [(1, 1), (2, 2), (3, 4), (4, 3), (5, 5), (6, 6)]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (RISING, Verdict.REPRODUCED),
        ([(x, -y) for x, y in RISING], Verdict.OPEN),  # -0.94 [-0.99, -0.52]
        ([(x, -x) for x in range(60)], Verdict.NOT_REPRODUCED),
        ([(x, -x) for x in range(4)], Verdict.OPEN),  # four pairs prove nothing
        (RISING[:3], Verdict.OPEN),
        (RISING[:1], Verdict.OPEN),
        ([], Verdict.OPEN),
        ([*RISING, (7, math.nan)], Verdict.OPEN),
        ([(1, y) for y in range(9)], Verdict.OPEN),  # no order
    ],
)
def test_correlation(pairs: list[tuple[Any, Any]], expected: Verdict) -> None:
    assert judge(claim(CORRELATION), points(*pairs)).verdict is expected


def test_the_seeds_of_one_configuration_are_one_sample_of_a_correlation() -> None:
    found = [
        one.model_copy(update={"result": one.result.model_copy(update={"config": one.result.config | {"seed": seed},
                               "metrics": {"x": one.result.metrics["x"] + shift, "y": one.result.metrics["y"]}})})
        for one in points(*RISING) for seed, shift in enumerate((-10, 0, 10))
    ]  # fmt: skip
    assert str(judge(claim(CORRELATION), found)) == str(judge(claim(CORRELATION), points(*RISING)))


def test_a_correlation_is_shown_with_its_interval() -> None:
    assert str(judge(claim(CORRELATION), points(*RISING))) == "x and y 0.94286 [0.53573, 0.99429], n = 6"
    assert str(judge(claim(CORRELATION), [])) == ""
