"""The gap log Σ exp z − max z on made-up scores, against scipy, numpy and exact rationals."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from fewbits.errors import FewbitsError
from fewbits.evaluation.normaliser import EDGES, FRACTION_BITS, QUANTILES, best_constant, gap_statistics

WORDS = 12
Z = torch.randn(90, WORDS, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
GAP = logsumexp(Z.numpy(), axis=1) - Z.numpy().max(1)


def exact_top_bits(row: torch.Tensor, fraction_bits: int) -> float:
    """ln 2 · ⌊2^f · log2 Σ 2^−g⌋ / 2^f with whole g: the power of two below the 2^f-th power of the sum."""
    gaps = [round((float(row.max()) - z) * math.log2(math.e)) for z in row.tolist()]
    power = sum(Fraction(1, 2**g) for g in gaps) ** 2**fraction_bits
    units = max(n for n in range(2**fraction_bits * WORDS.bit_length()) if 2**n <= power)
    return units / 2**fraction_bits * math.log(2)


def test_the_numbers_are_those_of_scipy() -> None:
    metrics, arrays = gap_statistics([Z], constant=0.7)
    expected = {
        "gap_mean": GAP.mean(), "gap_least": GAP.min(), "gap_most": GAP.max(), "gap_share": GAP.mean() / np.log(WORDS),
        "error_of_zero": GAP.mean(), "error_of_constant": np.abs(GAP - 0.7).mean(),
    }  # fmt: skip
    assert metrics == pytest.approx(expected, rel=1e-12)
    assert arrays["gap_quantiles"] == pytest.approx(np.quantile(GAP, QUANTILES), rel=1e-12)
    assert arrays["gap"] == np.histogram(GAP / np.log(WORDS), EDGES.numpy())[0].tolist()
    assert sum(arrays["gap"]) == len(Z)


def test_the_errors_of_the_top_bits_are_those_of_exact_rationals() -> None:
    _, arrays = gap_statistics([Z], constant=0.0)
    assert len(arrays["error_by_fraction_bits"]) == len(FRACTION_BITS)
    for bits, error in zip(FRACTION_BITS, arrays["error_by_fraction_bits"], strict=True):
        b = np.array([exact_top_bits(row, bits) for row in Z])
        assert error == pytest.approx(np.abs(b - GAP).mean(), rel=1e-9)


@pytest.mark.parametrize("rows", [1, 7, 89])
def test_how_the_rows_are_cut_into_parts_is_of_no_matter(rows: int) -> None:
    whole, parts = gap_statistics([Z], 0.3), gap_statistics(iter(Z.split(rows)), 0.3)
    assert parts[0] == whole[0]
    assert parts[1] == whole[1] | {"error_by_fraction_bits": pytest.approx(whole[1]["error_by_fraction_bits"])}
    assert best_constant(iter(Z.split(rows))) == pytest.approx(GAP.mean(), rel=1e-12)


def test_equal_scores_have_the_largest_gap_and_a_word_far_ahead_none() -> None:
    equal, ahead = torch.zeros(3, 8), torch.tensor([[900.0, 0.0, -900.0]] * 2)
    metrics, arrays = gap_statistics([equal], constant=0.0)
    assert metrics["gap_share"] == pytest.approx(1, rel=1e-12)
    assert arrays["gap"] == [0.0] * 49 + [3.0]
    assert arrays["error_by_fraction_bits"] == pytest.approx([0.0] * 5, abs=1e-6)  # 8 = 2³, and b is a float32 here
    metrics, arrays = gap_statistics([ahead], constant=0.25)
    assert [metrics[name] for name in ("gap_least", "gap_most", "error_of_zero", "error_of_constant")] == [
        0,
        0,
        0,
        0.25,
    ]
    assert arrays["gap"] == [2.0] + [0.0] * 49


def test_a_constant_added_to_all_scores_changes_nothing() -> None:
    shift = torch.arange(len(Z))[:, None] * 8.0
    for left, right in zip(gap_statistics([Z], 0.3), gap_statistics([Z + shift], 0.3), strict=True):
        assert left.keys() == right.keys()
        for name, value in left.items():
            assert right[name] == pytest.approx(value, rel=1e-9)


def test_no_constant_is_nearer_in_the_least_squares() -> None:
    best = best_constant([Z[:30], Z[30:]])

    def squares(b: float) -> float:
        return float(((GAP - b) ** 2).sum())

    assert squares(best) < min(squares(best - 1e-3), squares(best + 1e-3))


def test_scores_of_a_model_that_diverged_have_no_best_constant() -> None:
    with pytest.raises(FewbitsError, match="no finite maximum"):
        best_constant([Z, torch.full((1, WORDS), torch.nan)])


def test_a_single_word_has_no_gap() -> None:
    metrics, arrays = gap_statistics([torch.tensor([[3.0], [-1.0]])], 0.0)
    assert (metrics["gap_mean"], metrics["gap_share"], metrics["error_of_zero"]) == (0, 0, 0)
    assert arrays["gap"][0] == 2
