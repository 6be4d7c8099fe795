"""Settings of quantizers: what is of another type is refused with the place and what it takes."""

import numpy as np
import pytest
import torch

from fewbits.errors import FewbitsError
from fewbits.quantizers import (
    TTQ,
    TWN,
    Balanced,
    Binary,
    BinaryCodes,
    ClippedStraightThrough,
    Codebook,
    Fixed,
    Given,
    LeastError,
    LeastSquaresTernary,
    Logarithmic,
    MidRise,
    MovingAverage,
    Percentile,
    PerGate,
    PerGroup,
    PerRow,
    PerTensor,
    SoftStaircase,
    StraightThrough,
    Ternary,
    Uniform,
    parse,
)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BinaryCodes(2, PerTensor()), r"solver=PerTensor\(\)\): solver is Solver.GREEDY, Solver.REFINED"),
        (lambda: Logarithmic(4, PerRow()), "root is True or False"),
        (lambda: Codebook(2, PerRow()), "start is Start.LINEAR"),
        (lambda: Binary(PerRow()), "scale is Scale.NONE, Scale.MEAN_ABSOLUTE or a number"),
        (lambda: Binary(rounding="stochastic"), "rounding is Rounding.DETERMINISTIC, Rounding.STOCHASTIC"),
        (lambda: Uniform("4"), "bits is a whole number"),
        (lambda: Uniform(4.0), "bits is a whole number"),
        (lambda: Uniform(True), "bits is a whole number"),
        (lambda: Uniform(4, PerRow), r"granularity is a granularity of fewbits.quantizers; write PerRow\(\)"),
        (lambda: Uniform(4, 8), "granularity is a granularity"),
        (lambda: Uniform(4, symmetric=1), "symmetric is True or False"),
        (lambda: Uniform(4, range=StraightThrough()), "range is a range"),
        (lambda: MidRise(4, estimator=PerRow()), "estimator is an estimator"),
        (lambda: Balanced(4, StraightThrough()), "granularity is a granularity"),
        (lambda: Ternary("0.5"), "threshold is a number"),
        (lambda: Ternary(PerTensor()), "threshold is a number"),
        (lambda: TWN(0.7), "granularity is a granularity"),
        (lambda: TTQ(0.1, 4), "granularity is a granularity"),
        (lambda: LeastSquaresTernary(StraightThrough()), "granularity is a granularity"),
        (lambda: Fixed(1, 2.5), "fraction_bits is a whole number"),
        (lambda: Given(torch.zeros(2), 1), "low is a number"),
        (lambda: Given(None, 1), "low is a number"),
        (lambda: Percentile("99"), "percent is a number"),
        (lambda: LeastError(64.0), "candidates is a whole number"),
        (lambda: MovingAverage(True), "momentum is a number"),
        (lambda: ClippedStraightThrough("1"), "limit is a number"),
        (lambda: SoftStaircase(1j), "sharpness is a number"),
        (lambda: PerGroup(2.0), "size is a whole number"),
        (lambda: PerGate("4"), "gates is a whole number"),
        (lambda: PerGate(0), "at least one gate"),
        (lambda: PerGate(-4), "at least one gate"),
        (lambda: parse("Uniform(4, False)"), "granularity is a granularity"),
        (lambda: parse("-" * 20000 + "1"), "writes no quantizer"),
    ],
)
def test_a_setting_of_another_type_is_refused(make, words):
    with pytest.raises(FewbitsError, match=words):
        make()


@pytest.mark.parametrize(
    ("made", "plain"),
    [
        (lambda: Uniform(np.int64(4)), Uniform(4)),
        (lambda: Uniform(torch.tensor(4)), Uniform(4)),
        (lambda: Ternary(np.float32(0.25)), Ternary(0.25)),
        (lambda: PerGroup(np.uint8(3)), PerGroup(3)),
        (lambda: Binary(torch.tensor(0.5)), Binary(0.5)),
        (lambda: Uniform(8, range=Given(torch.tensor(-1.5), np.float64(2.0))), Uniform(8, range=Given(-1.5, 2.0))),
    ],
)
def test_numbers_of_other_libraries_become_pythons_own(made, plain):
    """So that the text of a quantizer, which a packed model keeps, can be read again."""
    assert repr(made()) == repr(plain)
    assert made() == plain
