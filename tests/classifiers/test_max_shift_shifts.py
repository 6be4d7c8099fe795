"""The estimates of log Σ exp z − max z against exact rationals, scipy, NumPy and the bounds that they promise."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from torch import Tensor

from fewbits.classifiers import Constant, CountAbove, Fitted, Shift, TopBit, TopMargin, log2_of_sum
from fewbits.errors import FewbitsError

INF = float("inf")
EVERY = [Constant(0.5), TopBit(), TopBit(3), CountAbove(2.0), TopMargin(3), Fitted(0.1, (0.5,), (TopMargin(2),))]


def logits(rows: int = 50, words: int = 40, seed: int = 0) -> Tensor:
    return 3 * torch.randn(rows, words, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gap(z: Tensor) -> np.ndarray:
    return logsumexp(z.numpy(), axis=-1) - z.numpy().max(-1)


def exact_log2(total: Fraction, fraction_bits: int) -> int:
    """⌊2^f · log2 total⌋ by counting: the largest n with 2^n ≤ total^(2^f)."""
    power, n = total ** (2**fraction_bits), 0
    while 2 ** (n + 1) <= power:
        n += 1
    return n


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(0, 5))
def test_the_logarithm_of_the_sum_is_exact(others, fraction_bits):
    gaps = [0, *others]
    expected = exact_log2(sum((Fraction(1, 2**g) for g in gaps), Fraction(0)), fraction_bits)
    assert log2_of_sum(torch.tensor(gaps), fraction_bits).tolist() == [expected]


@pytest.mark.parametrize("words", [1, 2, 3, 4, 5, 7, 8, 1023, 1024, 1025, 100_000])
def test_equal_scores_carry_into_the_top_bit(words):
    """Σ = V exactly: just below, at and above every power of two, in every resolution."""
    zeros = torch.zeros(words, dtype=torch.int64)
    for fraction_bits in range(6):
        assert log2_of_sum(zeros, fraction_bits).item() == exact_log2(Fraction(words), fraction_bits)


def test_a_carry_runs_through_the_whole_accumulator():
    """1 + 1/2 + … + 2^−n + 2^−n = 2 for 65,536 words as long as n ≤ R = 62 − 17; what is below falls out."""
    for last, expected in ((10, 1), (44, 1), (45, 1), (46, 0), (61, 0), (62, 0), (1000, 0)):
        gaps = torch.full((2**16,), 10**6)
        gaps[: last + 2] = torch.tensor([*range(last + 1), last])
        assert log2_of_sum(gaps).item() == expected
    full = torch.full((2**16,), 45)
    full[0] = 0
    assert log2_of_sum(full, 8).item() == exact_log2(1 + Fraction(2**16 - 1, 2**45), 8)


@pytest.mark.parametrize("above", [False, True])
def test_sums_on_either_side_of_a_threshold(above):
    """Of the whole numbers next to 2^(62 + i/256), those that fit the accumulator: words at each of their bits."""
    tried = 0
    for i in range(1, 256):
        with localcontext(prec=60):
            number = int(2 ** (62 + Decimal(i) / 256)) + above
        if number % 64 == 0:
            gaps = torch.tensor([place for place in range(63) if number >> (62 - place) & 1])
            assert log2_of_sum(gaps, 8).item() == i - 1 + above
            tried += 1
    assert tried


@pytest.mark.parametrize("fraction_bits", range(9))
def test_top_bit_keeps_its_bound_on_the_rounded_scores(fraction_bits):
    z = logits()
    b = TopBit(fraction_bits)(z).squeeze(-1).numpy() / math.log(2)
    rounded = np.round((z.amax(-1, keepdim=True) - z).numpy() * math.log2(math.e))
    error = np.log2(np.exp2(-rounded).sum(-1)) - b
    assert error.min() >= -1e-12
    assert error.max() < 2.0**-fraction_bits + 1e-12
    assert error.max() > 2.0**-fraction_bits / 2  # and uses it
    assert np.abs(gap(z) / math.log(2) - np.log2(np.exp2(-rounded).sum(-1))).max() <= 0.5


def test_the_slides_bound_holds_in_base_two_and_fails_in_base_e():
    """Two equal maxima: Σ2^z has its top bit at max + 1, and log Σ exp z is only 0.69 above max."""
    two = torch.zeros(2)
    n = round(TopBit()(two).item() / math.log(2), 6)
    assert n <= np.log2(2) <= n + 1
    assert not n <= gap(two) <= n + 1


def test_count_above_counts_with_a_strict_margin():
    z = logits()
    for margin in (1e-9, 0.5, 3.0, 100.0, INF):
        expected = np.log((z.numpy() > z.numpy().max(-1, keepdims=True) - margin).sum(-1))
        np.testing.assert_allclose(CountAbove(margin)(z).squeeze(-1), expected, rtol=1e-12)
    assert CountAbove(1.0)(torch.tensor([4.0, 3.0, 3.5])).item() == pytest.approx(math.log(2))


def test_top_margin_is_the_normaliser_of_the_best_words():
    z = logits()
    highest = -np.sort(-z.numpy(), axis=-1)
    for k in (1, 2, 5, 39, 40, 1000):
        expected = logsumexp(highest[:, :k], axis=-1) - highest[:, 0]
        np.testing.assert_allclose(TopMargin(k)(z).squeeze(-1), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(TopMargin(40)(z).squeeze(-1), gap(z), rtol=1e-12)


def test_the_fit_is_that_of_the_normal_equations():
    z = logits()
    features = (TopMargin(2), CountAbove(2.0))
    fitted = Fitted.fit(z.view(5, 10, 40), features)
    columns = np.stack([np.ones(50), *(feature(z).squeeze(-1).numpy() for feature in features)], 1)
    expected = np.linalg.solve(columns.T @ columns, columns.T @ gap(z))
    np.testing.assert_allclose([fitted.intercept, *fitted.weights], expected, rtol=1e-9)
    np.testing.assert_allclose(fitted(z).squeeze(-1), columns @ expected, rtol=1e-9)
    constant = Fitted.fit(z)
    assert constant.intercept == pytest.approx(gap(z).mean())
    assert np.square(fitted(z).squeeze(-1).numpy() - gap(z)).mean() < gap(z).var()


def test_features_that_say_the_same_get_the_smallest_weights():
    fitted = Fitted.fit(logits(), (TopMargin(40), TopMargin(41)))
    assert fitted.weights == pytest.approx((0.5, 0.5))
    assert fitted.intercept == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("shift", EVERY, ids=repr)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_every_shift_is_a_number_of_each_row(shift, dtype):
    z = torch.randint(-8, 9, (3, 4, 20), generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    b = shift(z)
    assert (b.shape, b.dtype) == ((3, 4, 1), torch.promote_types(dtype, torch.float32))
    assert not b.requires_grad
    assert torch.equal(shift(z + 16), b)  # exact in 8 bits
    assert torch.equal(shift(z[1, 2]), b[1, 2])
    assert torch.equal(shift(z.flip(-1)), b)
    assert shift(z[:0]).shape == (0, 4, 1)


@pytest.mark.parametrize("shift", EVERY[1:5], ids=repr)
def test_estimates_that_read_the_row_lie_between_nothing_and_log_v(shift):
    for z in (logits(), torch.zeros(2, 40), 1e30 * logits(), 1e-30 * logits()):
        b = shift(z)
        assert bool((b >= 0).all())
        assert bool((b <= math.log(40) + 1e-6).all())


@pytest.mark.parametrize("shift", EVERY, ids=repr)
def test_one_word_and_infinite_scores(shift):
    alone = shift(torch.tensor([7.0]))
    assert alone.item() == pytest.approx({Constant: 0.5, Fitted: 0.1}.get(type(shift), 0.0))
    some = shift(torch.tensor([1.0, -INF, 0.5, -INF, -INF]))
    assert some.item() == shift(torch.tensor([1.0, 0.5, -1e30])).item()
    for undefined in ([-INF, -INF], [INF, 0.0], [INF, INF], [float("nan"), 0.0]):
        assert shift(torch.tensor([undefined, [0.0, 0.0]])).isnan().flatten().tolist() == [True, False]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Constant(INF),
        lambda: TopBit(-1),
        lambda: TopBit(9),
        lambda: TopBit(1.5),
        lambda: CountAbove(0.0),
        lambda: CountAbove(float("nan")),
        lambda: TopMargin(0),
        lambda: TopMargin(2.0),
        lambda: Fitted(0.0, (1.0,)),
        lambda: Fitted.fit(torch.zeros(0, 5)),
        lambda: Fitted.fit(torch.tensor([[INF, 0.0]])),
        lambda: TopBit()(torch.tensor(1.0)),
        lambda: TopBit()(torch.zeros(3, 0)),
    ],
)
def test_what_has_no_meaning_is_refused(wrong):
    with pytest.raises(FewbitsError):
        wrong()


def test_a_shift_is_a_value():
    assert TopBit(2) == TopBit(2) != TopBit(1)
    assert len({Fitted(0.0), Fitted(0.0), Constant()}) == 2
    assert all(isinstance(shift, Shift) for shift in EVERY)
