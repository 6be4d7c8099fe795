"""What is true of every quantizer: its grid, its scale, its edges, its packed form, its errors."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fewbits.errors import FewbitsError
from fewbits.formats import Codes
from fewbits.quantizers import (
    TWN,
    Binary,
    ClippedStraightThrough,
    PerGate,
    PerGroup,
    PerRow,
    PerTensor,
    Rounding,
    Scale,
    StraightThrough,
    Ternary,
    Uniform,
    parse,
)

QUANTIZERS = [
    Binary(),
    Binary(Scale.MEAN_ABSOLUTE, granularity=PerRow()),
    Binary(0.1),
    Binary(rounding=Rounding.STOCHASTIC),
    Binary(Scale.MEAN_ABSOLUTE, Rounding.STOCHASTIC, PerRow()),
    Ternary(0.5),
    TWN(),
    TWN(PerRow()),
    Uniform(2),
    Uniform(4, PerRow()),
    Uniform(8, symmetric=False),
    Uniform(16, PerRow(), symmetric=False),
]
SCALING = [
    q for q in QUANTIZERS if q not in (Binary(), Binary(0.1), Binary(rounding=Rounding.STOCHASTIC), Ternary(0.5))
]

tensors = arrays(
    "float32",
    array_shapes(min_dims=1, max_dims=3, max_side=5),
    elements=st.floats(-8, 8, width=32, allow_subnormal=False).map(lambda x: 0.0 if abs(x) < 1e-6 else x),
).map(torch.from_numpy)


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=repr)
@given(weight=tensors)
def test_codes_lie_on_the_grid_and_packing_changes_nothing(quantizer, weight):
    """Integers are points of the grid, and fake = decode(unpack(pack(encode))) bit for bit."""
    codes = quantizer.encode(weight)
    offset = codes.integers.to(torch.int32) - codes.grid.low
    assert (offset % codes.grid.step == 0).all()
    assert offset.min() >= 0
    assert codes.integers.max() <= codes.grid.high
    integers = Codes.unpacked(codes.packed(), tuple(codes.shape), codes.grid)
    assert integers.dtype == codes.integers.dtype == codes.grid.dtype
    again = Codes(integers, codes.grid, codes.tables, codes.groups, codes.scheme, codes.dtype).decode()
    assert torch.equal(again, quantizer(weight))
    assert again.shape == weight.shape
    assert codes.packed().numel() + sum(t.numel() * t.element_size() for t in codes.tables.values()) == codes.nbytes


@pytest.mark.parametrize("quantizer", SCALING, ids=repr)
@given(weight=tensors, power=st.integers(-3, 3))
def test_scaling_the_weights_by_a_power_of_two_scales_the_values(quantizer, weight, power):
    """q(2^k w) = 2^k q(w), exactly, for quantizers that read their scale from the weights."""
    nonzero = weight.reshape(quantizer.encode(weight).groups, -1).abs().amax(1)
    if (nonzero > 0).all():
        assert torch.equal(quantizer(weight * 2.0**power), quantizer(weight) * 2.0**power)


@pytest.mark.parametrize(
    "quantizer", [Binary(), Binary(0.1), TWN(), TWN(PerRow()), Uniform(2), Uniform(8, symmetric=False)], ids=repr
)
@given(weight=tensors)
def test_quantizing_twice_is_quantizing_once(quantizer, weight):
    """A quantizer maps its own codes to themselves.

    Affine: if both ends of the grid are used. Over −r … r exactly, the zero point is half way between two integers; the
    upper end then loses a step, and the values have a smaller range than the weights had.
    """
    first = quantizer.encode(weight)
    second = quantizer.encode(first.decode())
    if isinstance(quantizer, TWN):  # the scale of two equal magnitudes may lose a bit in the mean
        torch.testing.assert_close(second.decode(), first.decode(), rtol=1e-6, atol=0)
    elif isinstance(quantizer, Binary):
        assert torch.equal(second.integers, first.integers)
    elif quantizer.symmetric or {first.grid.low, first.grid.high} <= {*first.integers.flatten().tolist()}:
        torch.testing.assert_close(second.decode(), first.decode(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=repr)
def test_a_thousand_seeds(quantizer):
    """Fake equals packed for a thousand Gaussian matrices."""
    for seed in range(1000):
        weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed))
        codes = quantizer.encode(weight)
        integers = Codes.unpacked(codes.packed(), (5, 7), codes.grid)
        assert torch.equal(Codes(integers, codes.grid, codes.tables, codes.groups).decode(), quantizer(weight))


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=repr)
def test_edges(quantizer):
    for shape in ((0,), (0, 4), (3, 0)):
        assert quantizer(torch.zeros(shape)).shape == shape
    assert torch.isfinite(quantizer(torch.zeros(3, 4))).all()
    assert torch.isfinite(quantizer(torch.full((3, 4), -2.5))).all()
    assert torch.isfinite(quantizer(torch.tensor([[1.0e37, -1.0e37]]))).all()
    assert torch.isfinite(quantizer(torch.tensor([[1.0e-44, -1.0e-44]]))).all()
    turned = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).t()
    assert torch.equal(quantizer(turned), quantizer(turned.contiguous()))


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=repr)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_named(quantizer, bad):
    with pytest.raises(FewbitsError, match="NaN or infinity"):
        quantizer(torch.tensor([0.1, bad, 0.2]))


@pytest.mark.parametrize("quantizer", [Binary(Scale.MEAN_ABSOLUTE), TWN(), Uniform(8, symmetric=False)], ids=repr)
def test_a_scale_that_overflows_is_named(quantizer):
    with pytest.raises(FewbitsError, match="overflows"):
        quantizer(torch.tensor([3.0e38, -3.0e38, 3.0e38]))


def test_what_a_quantizer_cannot_use_is_refused():
    with pytest.raises(FewbitsError, match="takes floats"):
        TWN().encode(torch.tensor([1, 2]))
    with pytest.raises(FewbitsError, match="importance"):
        TWN().encode(torch.ones(2), importance=torch.ones(2))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Ternary(-0.1), "at least 0"),
        (lambda: Ternary(float("nan")), "at least 0"),
        (lambda: Uniform(0), "1 to 16"),
        (lambda: Uniform(17), "1 to 16"),
        (lambda: Uniform(1), "Binary"),
        (lambda: Binary(0.0), "positive"),
        (lambda: Binary(-1.0), "positive"),
        (lambda: PerGroup(0), "at least one"),
        (lambda: TWN(PerGroup(5))(torch.ones(2, 6)), "these do"),
        (lambda: TWN(PerGate())(torch.ones(6, 6)), "equal blocks"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, words):
    with pytest.raises(FewbitsError, match=words):
        make()


@pytest.mark.parametrize(
    "quantizer",
    [*QUANTIZERS, TWN(PerGate(3)), Uniform(8, PerGroup(64)), TWN(estimator=ClippedStraightThrough(0.5))],
    ids=repr,
)
def test_text_and_back(quantizer):
    assert parse(repr(quantizer)) == quantizer
    assert copy.deepcopy(quantizer) == quantizer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "TWN",
        "PerRow()",
        "Nothing(3)",
        "__import__('os')",
        "Uniform(bits=4, bit=3)",
        "Uniform(99)",
        "Scale.HUGE",
        "TWN(",
        "(lambda: 1)()",
    ],
)
def test_text_that_writes_no_quantizer_is_refused(text):
    with pytest.raises(FewbitsError):
        parse(text)


def test_straight_through_passes_the_value_forward_and_the_gradient_back():
    weight = torch.randn(20, generator=torch.Generator().manual_seed(0), requires_grad=True)
    gradient = torch.arange(20.0)
    value = Uniform(3)(weight)
    value.backward(gradient)
    assert torch.equal(weight.grad, gradient)
    assert torch.equal(value, Uniform(3).encode(weight).decode())


def test_clipped_straight_through_stops_the_gradient_outside():
    weight = torch.tensor([-1.5, -1.0, 0.2, 1.0, 1.0001], requires_grad=True)
    Binary(estimator=ClippedStraightThrough(1.0))(weight).backward(torch.full((5,), 3.0))
    assert weight.grad.tolist() == [0, 3, 3, 3, 0]


def test_a_gradient_that_passes_straight_through_finds_the_weights():
    """BinaryConnect on a target that binary weights can reach: wrong-signed or missing gradients would not find it."""
    generator = torch.Generator().manual_seed(0)
    target = torch.sign(torch.randn(16, generator=generator))
    inputs = torch.randn(256, 16, generator=generator)
    weight = (0.1 * torch.randn(16, generator=generator)).requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=0.05)
    for _ in range(200):
        loss = ((inputs @ (Binary(estimator=StraightThrough())(weight) - target)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(Binary()(weight), target)


def test_granularities_count_groups():
    shape = torch.Size((800, 200))
    assert [g.groups(shape) for g in (PerTensor(), PerRow(), PerGate(), PerGroup(50))] == [1, 800, 4, 3200]
