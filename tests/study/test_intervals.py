import math
import warnings

import numpy as np
import pytest
from scipy import stats

from fewbits.study import intervals

rng = np.random.default_rng(0)
PAIRS = [
    (rng.normal(100, 3, left).tolist(), rng.normal(120, 11, right).tolist())
    for left, right in ((2, 2), (3, 3), (3, 7), (9, 2), (30, 5))
]


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_mean_is_students_interval(left: list[float], right: list[float]) -> None:
    for sample in (left, right):
        low, high = stats.t.interval(0.95, len(sample) - 1, loc=np.mean(sample), scale=stats.sem(sample))
        ours = intervals.mean(sample)
        assert (ours.mean, ours.low, ours.high) == pytest.approx((np.mean(sample), low, high), rel=1e-9)
        assert ours.n == len(sample)


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_difference_is_welchs_interval(left: list[float], right: list[float]) -> None:
    expected = stats.ttest_ind(left, right, equal_var=False).confidence_interval(0.95)
    ours = intervals.difference(left, right)
    assert (ours.low, ours.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert ours.mean == pytest.approx(np.mean(left) - np.mean(right))
    assert ours.n == min(len(left), len(right))


@pytest.mark.parametrize("number", [2, 3, 7, 30])
def test_a_paired_difference_is_the_interval_of_the_paired_t_test(number: int) -> None:
    own = np.random.default_rng(number)
    seed = own.normal(100, 50, number)  # what both sides share
    left, right = (seed + own.normal(center, 3, number) for center in (2, 0))
    expected = stats.ttest_rel(left, right).confidence_interval(0.95)
    ours = intervals.paired_difference(left.tolist(), right.tolist())
    assert (ours.low, ours.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert ours.mean == pytest.approx(np.mean(left) - np.mean(right))
    assert ours.n == number
    unpaired = intervals.difference(left.tolist(), right.tolist())
    assert ours.high - ours.low < unpaired.high - unpaired.low


def test_pairs_need_as_many_on_both_sides() -> None:
    with pytest.raises(ValueError, match="shorter"):
        intervals.paired_difference([1.0, 2.0, 3.0], [1.0, 2.0])


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_ratio_is_welchs_interval_of_the_logarithms(left: list[float], right: list[float]) -> None:
    logs = stats.ttest_ind(np.log(left), np.log(right), equal_var=False).confidence_interval(0.95)
    ours = intervals.ratio(left, right)
    assert (ours.low, ours.high) == pytest.approx((np.exp(logs.low), np.exp(logs.high)), rel=1e-9)
    assert ours.mean == pytest.approx(stats.gmean(left) / stats.gmean(right))


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    draws = rng.normal(5, 2, size=(2000, 3))
    covered = [each.low <= 5 <= each.high for each in map(intervals.mean, draws.tolist())]
    assert 0.93 < np.mean(covered) < 0.97


def test_one_sample_has_no_interval() -> None:
    assert str(intervals.mean([110.5])) == "110.5, n = 1"
    assert str(intervals.difference([1.0, 2.0], [5.0])) == "-3.5, n = 1"
    assert str(intervals.ratio([6.0], [3.0])) == "2, n = 1"
    assert str(intervals.paired_difference([6.0], [3.0])) == "3, n = 1"


def test_equal_samples_have_an_interval_of_no_width() -> None:
    assert str(intervals.mean([3.0, 3.0, 3.0])) == "3 [3, 3], n = 3"
    assert str(intervals.difference([3.0, 3.0], [1.0, 1.0])) == "2 [2, 2], n = 2"
    assert str(intervals.paired_difference([3.0, 9.0], [1.0, 7.0])) == "2 [2, 2], n = 2"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_samples_that_are_not_finite_give_bounds_that_are_not_and_no_warning(bad: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ours in (
            intervals.mean([1.0, bad, 2.0]),
            intervals.difference([1.0, 2.0, 3.0], [bad, bad, 2.0]),
            intervals.paired_difference([1.0, bad, 3.0], [1.0, bad, 2.0]),
            intervals.ratio([1.0, 2.0, bad], [1.0, 2.0, 2.5]),
            intervals.ratio([0.0, -1.0, 2.0], [1.0, 2.0, 2.5]),
        ):
            assert not np.isfinite([ours.low, ours.high]).any()


def test_a_rank_correlation_by_hand_and_turned_round() -> None:
    left, right = [3.0, 1, 4, 1.5, 9, 2.6, 5], [2.0, 7, 1, 8, 2.8, 1.8, 4]
    ranks = [[sorted(side).index(value) for value in side] for side in (left, right)]
    rho = 1 - 6 * sum((a - b) ** 2 for a, b in zip(*ranks, strict=True)) / (7 * 48)
    found = intervals.rank_correlation(left, right)
    assert found.mean == pytest.approx(rho)
    assert math.atanh(found.high) - math.atanh(rho) == pytest.approx(1.959964 * math.sqrt(1.06 / 4), rel=1e-6)
    turned = intervals.rank_correlation(left, [-value for value in right])
    assert (turned.mean, turned.low, turned.high) == pytest.approx((-found.mean, -found.high, -found.low))


def test_few_or_equal_pairs_prove_nothing() -> None:
    alone = intervals.rank_correlation([1], [2])
    assert (math.isnan(alone.mean), alone.low, alone.high, alone.n) == (True, -1, 1, 1)
    assert intervals.rank_correlation([1, 2, 3], [1, 2, 3]) == intervals.Estimate(pytest.approx(1), -1, 1, 3)
    assert intervals.rank_correlation([1, 2, 3, 4], [1, 2, 3, 4]).low < 0.5
    assert math.isnan(intervals.rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]).low)
