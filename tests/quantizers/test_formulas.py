"""Each rule against a slow reading of its formula, element by element, and against torch's own fake quantization."""

import math

import numpy as np
import pytest
import torch

from fewbits.quantizers import TWN, Binary, PerGate, PerGroup, PerRow, PerTensor, Rounding, Scale, Ternary, Uniform


def weights(shape=(8, 12), seed=0, spread=0.4):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * spread


def by_group(weight, groups):
    return [list(map(float, row)) for row in weight.contiguous().view(groups, -1)]


def test_binary_is_the_sign_and_zero_is_plus_one():
    values = torch.tensor([-2.0, -1e-45, -0.0, 0.0, 1e-45, 3.0])
    assert Binary()(values).tolist() == [-1, -1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("granularity", "groups"), [(PerTensor(), 1), (PerRow(), 8), (PerGate(), 4), (PerGroup(3), 32)]
)
def test_binary_mean_absolute_scale(granularity, groups):
    weight = weights()
    expected = []
    for row in by_group(weight, groups):
        scale = math.fsum(map(abs, row)) / len(row)
        expected += [math.copysign(scale, w) for w in row]
    found = Binary(Scale.MEAN_ABSOLUTE, granularity=granularity)(weight)
    np.testing.assert_allclose(found.flatten(), expected, rtol=1e-6)


def test_mean_absolute_is_the_least_squares_scale():
    weight = weights((200,))
    sign = torch.sign(weight)
    error = torch.tensor([float(((weight - a * sign) ** 2).sum()) for a in torch.linspace(0, 1, 2001)])
    best = torch.linspace(0, 1, 2001)[error.argmin()]
    assert abs(Binary(Scale.MEAN_ABSOLUTE).encode(weight).tables["scale"].item() - best) <= 1 / 2000


@pytest.mark.parametrize("scale", [Scale.NONE, 0.25])
def test_stochastic_binary_has_the_hard_sigmoid_s_frequency(scale):
    height = 1.0 if scale is Scale.NONE else scale
    points = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.3, 1.0, 2.0]) * height
    draws = points.repeat(40_000, 1)
    quantizer = Binary(scale, Rounding.STOCHASTIC)
    share = (quantizer.encode(draws, generator=torch.Generator().manual_seed(0)).integers == 1).double().mean(0)
    chance = ((points / height + 1) / 2).clamp(0, 1).double()
    deviation = (chance * (1 - chance) / 40_000).sqrt()
    assert ((share - chance).abs() <= 4.5 * deviation).all()  # exact where the chance is 0 or 1
    assert quantizer.encode(points).integers.tolist() == Binary(scale).encode(points).integers.tolist()


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5])
def test_ternary_is_equation_7(threshold):
    grid = torch.tensor([-1.0, -threshold, -threshold / 2, 0.0, threshold / 2, threshold, 1.0])
    exact = float(torch.tensor(threshold))  # T as a weight can hold it
    expected = [1 if w >= exact else -1 if w < -exact else 0 for w in grid.tolist()]
    assert Ternary(threshold).encode(grid).integers.tolist() == expected


def test_ternary_at_zero_is_binary():
    weight = torch.cat([weights((50,)), torch.zeros(2)])
    assert torch.equal(Ternary(0.0)(weight), Binary()(weight))


@pytest.mark.parametrize(
    ("granularity", "groups"), [(PerTensor(), 1), (PerRow(), 8), (PerGate(4), 4), (PerGroup(6), 16)]
)
def test_twn_by_hand(granularity, groups):
    weight = weights()
    expected = []
    for row in by_group(weight, groups):
        threshold = 0.7 * math.fsum(map(abs, row)) / len(row)
        kept = [abs(w) for w in row if abs(w) > threshold]
        expected += [math.copysign(math.fsum(kept) / len(kept), w) if abs(w) > threshold else 0.0 for w in row]
    np.testing.assert_allclose(TWN(granularity)(weight).flatten(), expected, rtol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_sum_beyond_half_precision_is_not_the_scale_of_twn(dtype):
    weight = torch.full((600, 600), 0.75, dtype=dtype)
    weight[::2] = -0.5
    codes = TWN().encode(weight)
    assert codes.tables["scale"].tolist() == [0.625]
    assert codes.tables["scale"].dtype == dtype


def test_twn_s_rule_of_thumb_is_near_the_best_threshold_of_a_gaussian():
    weight = weights((20_000,))
    magnitude, _ = weight.abs().sort(descending=True)
    gain = magnitude.double().cumsum(0) ** 2 / torch.arange(
        1, len(weight) + 1
    )  # error = Σw² − gain, brute force over Δ
    best = float((weight.double() ** 2).sum() - gain.max())
    assert float(((weight - TWN()(weight)).double() ** 2).sum()) <= 1.02 * best


@pytest.mark.parametrize("bits", range(2, 17))
@pytest.mark.parametrize("symmetric", [True, False])
def test_uniform_error_is_at_most_half_a_step_and_0_is_exact(bits, symmetric):
    weight = torch.cat([weights((500,)), torch.zeros(1)])
    quantizer = Uniform(bits, symmetric=symmetric)
    codes = quantizer.encode(weight)
    step = codes.tables["scale"].double()
    error = (codes.decode().double() - weight.double()).abs()
    levels = codes.levels().double()
    inside = (levels.min() <= weight) & (weight <= levels.max())
    assert symmetric <= bool(inside.all()), "the rounded zero point may shift an end of the affine range by half a step"
    tiny = 2.0**-23 * weight.abs().max()
    assert error[inside].max() <= 0.5 * step * (1 + 2.0**-7) + tiny
    assert error.max() <= step * (1 + 2.0**-7) + tiny
    assert codes.decode()[-1] == 0
    assert codes.integers.min() >= codes.grid.low
    assert codes.integers.max() <= codes.grid.high
    assert codes.grid.bits == bits


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_uniform_affine_agrees_with_torch_away_from_ties(bits):
    weight = weights((400,))
    codes = Uniform(bits, symmetric=False).encode(weight)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    observer = torch.ao.quantization.MinMaxObserver(
        dtype=torch.qint8, qscheme=torch.per_tensor_affine, quant_min=low, quant_max=high
    )
    scale, zero_point = (observer(weight), observer.calculate_qparams())[1]
    np.testing.assert_allclose(codes.tables["scale"], scale, rtol=1e-6)
    assert codes.tables["zero_point"].item() == zero_point.item()
    theirs = torch.fake_quantize_per_tensor_affine(weight, codes.tables["scale"].item(), zero_point.item(), low, high)
    tie = ((weight / codes.tables["scale"]) % 1 - 0.5).abs() < 1e-4
    assert torch.equal(codes.decode()[~tie], theirs[~tie])


@pytest.mark.parametrize("bits", [3, 8])
def test_uniform_per_row_agrees_with_torch_per_channel(bits):
    weight = weights((8, 64))
    codes = Uniform(bits, PerRow()).encode(weight)
    top = 2 ** (bits - 1) - 1
    np.testing.assert_allclose(codes.tables["scale"], weight.abs().amax(1) / top, rtol=1e-6)
    theirs = torch.fake_quantize_per_channel_affine(
        weight, codes.tables["scale"], torch.zeros(8, dtype=torch.int32), 0, -top, top
    )
    tie = ((weight / codes.tables["scale"][:, None]) % 1 - 0.5).abs() < 1e-4
    assert torch.equal(codes.decode()[~tie], theirs[~tie])


def test_one_affine_bit():
    assert Uniform(1, symmetric=False)(torch.tensor([0.0, 0.2, 1.0])).tolist() == [0, 0, 1]
