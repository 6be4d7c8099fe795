"""Multi-bit binary codes against their formulas in numpy and against all sign matrices."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fewbits.errors import FewbitsError
from fewbits.quantizers import Binary as OneBit
from fewbits.quantizers import BinaryCodes, PerGate, PerGroup, PerRow, PerTensor, Scale, Solver

#: One float32 rounding of each coefficient, of at most 4, moves a weight by 4 units at most.
ROUNDING = 4 * 2.0**-23

matrices = arrays(
    "float32",
    array_shapes(min_dims=2, max_dims=2, max_side=7),
    elements=st.floats(-8, 8, width=32, allow_subnormal=False).map(lambda x: 0.0 if abs(x) < 1e-6 else x),
).map(torch.from_numpy)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sign(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, 1.0, -1.0)


def in_numpy(row: np.ndarray, bits: int, solver: Solver, cycles: int) -> np.ndarray:
    """The quantized row, from the formulas of Guo et al. (2017) and Xu et al. (2018)."""
    planes, alpha, rest = np.zeros((len(row), 0)), np.zeros(0), row
    for _ in range(bits):
        step = np.abs(rest).mean()
        planes = np.column_stack([planes, sign(rest)])
        if solver is Solver.REFINED:
            alpha = np.linalg.lstsq(planes, row, rcond=None)[0]
            rest = row - planes @ alpha
        else:
            alpha = np.append(alpha, step)
            rest = rest - step * planes[:, -1]
    if solver is Solver.ALTERNATING:
        choices = np.array(list(itertools.product([-1.0, 1.0], repeat=bits)))[:, ::-1]  # row c holds the bits of c
        for _ in range(cycles):
            alpha = np.linalg.lstsq(planes, row, rcond=None)[0]
            sums = choices @ alpha
            order = np.argsort(sums, kind="stable")
            planes = choices[order[np.abs(row[:, None] - sums[order]).argmin(1)]]
    return planes @ alpha


def squared_error(found: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return ((found.double() - weight.double()) ** 2).reshape(len(weight), -1).sum(1)


@pytest.mark.parametrize("bits", range(1, 5))
@pytest.mark.parametrize(
    ("solver", "cycles"),
    [(Solver.GREEDY, 2), (Solver.REFINED, 2), *((Solver.ALTERNATING, cycles) for cycles in (0, 1, 2, 5))],
)
def test_formulas_in_numpy(bits, solver, cycles):
    for seed in range(12):
        weight = draw(3, 5 + 3 * seed, seed=seed)
        expected = [in_numpy(row, bits, solver, cycles) for row in weight.numpy()]
        found = BinaryCodes(bits, solver, cycles)(weight)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)  # the type is float64, the weights are below 5


def all_planes(length: int, bits: int) -> np.ndarray:
    """Every matrix of signs, (2^(length · bits), length, bits)."""
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=length * bits)))
    return signs.reshape(-1, length, bits)


@pytest.mark.parametrize(("length", "bits"), [(1, 1), (5, 1), (8, 1), (1, 2), (3, 2), (5, 2), (3, 3), (2, 4), (3, 4)])
def test_no_solver_beats_all_sign_matrices_and_one_bit_reaches_them(length, bits):
    planes = all_planes(length, bits)
    inverse = np.linalg.pinv(planes)
    for seed in range(10):
        row = draw(length, seed=seed).numpy()
        best = (((planes @ (inverse @ row)[..., None])[..., 0] - row) ** 2).sum(1).min()
        errors = [
            squared_error(BinaryCodes(bits, solver, cycles)(torch.tensor(row)[None]), torch.tensor(row)[None]).item()
            for solver, cycles in ((Solver.GREEDY, 0), (Solver.REFINED, 0), (Solver.ALTERNATING, 2))
        ]
        assert min(errors) >= best - 1e-12
        if bits == 1:
            assert max(errors) <= best + 1e-12


@pytest.mark.parametrize("solver", Solver)
@pytest.mark.parametrize(
    ("granularity", "groups"), [(PerRow(), 8), (PerTensor(), 1), (PerGate(), 4), (PerGroup(3), 24)]
)
def test_one_bit_is_the_sign_times_the_mean_magnitude(solver, granularity, groups):
    weight = draw(8, 9).float()
    codes = BinaryCodes(1, solver, granularity=granularity).encode(weight)
    mean = np.abs(weight.numpy().reshape(groups, -1)).mean(1, dtype=np.float64)
    np.testing.assert_allclose(codes.tables["coefficients"], mean[:, None], rtol=1e-6)
    assert torch.equal(codes.integers, (weight >= 0).to(torch.int8))
    binary = OneBit(Scale.MEAN_ABSOLUTE, granularity=granularity)(weight)
    torch.testing.assert_close(codes.decode(), binary, rtol=2**-22, atol=0)


@settings(max_examples=40)
@given(weight=matrices, bits=st.integers(1, 4), cycles=st.integers(0, 3))
def test_alternating_and_refining_never_lose_to_greedy_and_bits_never_hurt(weight, bits, cycles):
    """And no cycle raises the error: (a) and (b) both minimise it."""
    slack = (ROUNDING * weight.double().abs().amax(1)) ** 2 * weight.shape[1]
    slack = slack + 2 * ROUNDING * (weight.double() ** 2).sum(1)
    greedy = squared_error(BinaryCodes(bits, Solver.GREEDY)(weight), weight)
    before = squared_error(BinaryCodes(bits, cycles=cycles)(weight), weight)
    after = squared_error(BinaryCodes(bits, cycles=cycles + 1)(weight), weight)
    assert (before <= greedy + slack).all()
    assert (after <= before + slack).all()
    fewer, more = (squared_error(BinaryCodes(b, Solver.REFINED)(weight), weight) for b in (max(bits - 1, 1), bits))
    assert (more <= fewer + slack).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("bits", range(1, 5))
def test_after_a_cycle_each_weight_is_at_the_nearest_of_the_decoded_sums(dtype, bits):
    weight = draw(4, 300, seed=bits).to(dtype)
    codes = BinaryCodes(bits).encode(weight)
    alpha = codes.tables["coefficients"]
    sums = torch.stack([sum((1 if c >> i & 1 else -1) * alpha[:, i] for i in range(bits)) for c in range(2**bits)], 1)
    distance = (weight.double()[..., None] - sums.double()[:, None]).abs()
    assert torch.equal((weight.double() - codes.decode().double()).abs(), distance.amin(2))


@pytest.mark.parametrize("bits", range(1, 5))
def test_a_code_is_a_sum_of_signs_and_its_size_counts_planes_and_coefficients(bits):
    weight = draw(6, 10).float()
    codes = BinaryCodes(bits, granularity=PerGroup(5)).encode(weight)
    alpha = codes.tables["coefficients"].numpy()
    assert alpha.shape == (12, bits)
    expected = np.zeros((12, 5), np.float32)
    for i in range(bits):
        expected += alpha[:, i, None] * np.where(codes.integers.numpy().reshape(12, 5) & 1 << i, 1, -1).astype("f")
    assert np.array_equal(codes.decode().numpy(), expected.reshape(6, 10))
    assert codes.grid.bits == bits
    assert codes.bits == 60 * bits + 12 * bits * 32
    assert codes.nbytes == -(-60 * bits // 8) + 12 * bits * 4


@pytest.mark.parametrize("solver", Solver)
@pytest.mark.parametrize("bits", range(1, 5))
def test_planes_that_depend_on_each_other_are_solved(solver, bits):
    """Constant rows, zeros, fewer weights than planes, rows of two values: BᵀB is singular, the answer is not."""
    for weight in (torch.full((2, 5), -2.5), torch.zeros(3, 4), torch.tensor([[0.3], [-7.0]]), torch.ones(1, 2000)):
        torch.testing.assert_close(BinaryCodes(bits, solver)(weight), weight, rtol=ROUNDING, atol=0)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        pair = torch.randn(2, generator=generator)
        weight = pair[torch.randint(2, (4, 2 + 50 * seed), generator=generator)]
        codes = BinaryCodes(bits, solver).encode(weight)
        assert codes.tables["coefficients"].abs().max() <= 2 * weight.abs().max()
        if bits > 1 and solver is not Solver.GREEDY:  # two values are one plane and its mean, a second plane
            torch.testing.assert_close(codes.decode(), weight, rtol=0, atol=ROUNDING * weight.abs().max().item())


def test_equal_planes_share_their_coefficient():
    codes = BinaryCodes(4).encode(torch.full((1, 8), 2.0))
    torch.testing.assert_close(codes.tables["coefficients"], torch.full((1, 4), 0.5), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "weight", [torch.tensor([[3.4e38, -3.4e38, 1.0, 2.0e38]]), torch.tensor([[65504.0, -6e4, 1.0, 3e4]]).half()]
)
def test_sums_that_overflow_are_named(weight):
    for solver in (Solver.GREEDY, Solver.REFINED):
        with pytest.raises(FewbitsError, match="a sum of coefficients overflows"):
            BinaryCodes(3, solver)(weight)
    assert BinaryCodes(1)(weight).isfinite().all()


@pytest.mark.parametrize("bits", [0, 5, -1, True, 2.0, "2"])
def test_bits_without_codes_are_refused(bits):
    with pytest.raises(FewbitsError, match="a whole number"):
        BinaryCodes(bits)


@pytest.mark.parametrize("cycles", [-1, 1.5, None])
def test_cycles_are_counted(cycles):
    with pytest.raises(FewbitsError, match="a whole number"):
        BinaryCodes(2, cycles=cycles)
