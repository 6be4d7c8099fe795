"""What is true of every quantizer: its grid, its scale, its edges, its packed form, its errors."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fewbits.errors import FewbitsError
from fewbits.formats import Codes, FixedWidth, Huffman, RelativeIndex, Storage, Trits
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
    MinMax,
    MovingAverage,
    Percentile,
    PerGate,
    PerGroup,
    PerRow,
    PerTensor,
    Rounding,
    Scale,
    SoftStaircase,
    Solver,
    Start,
    Ternary,
    Uniform,
    parse,
)

FAMILIES = {
    Binary: [
        Binary(),
        Binary(Scale.MEAN_ABSOLUTE, granularity=PerRow()),
        Binary(0.1),
        Binary(rounding=Rounding.STOCHASTIC),
        Binary(Scale.MEAN_ABSOLUTE, Rounding.STOCHASTIC, PerRow()),
    ],
    Ternary: [Ternary(0.5), TWN(), TWN(PerRow()), LeastSquaresTernary(), LeastSquaresTernary(PerRow())],
    Uniform: [
        *(Uniform(2), Uniform(4, PerRow()), Uniform(8, symmetric=False), Uniform(16, PerRow(), symmetric=False)),
        Uniform(3, range=Percentile(80)),
        Uniform(2, PerRow(), symmetric=False, range=Percentile(70)),
        Uniform(3, PerRow(), range=LeastError(8)),
        Uniform(4, range=Given(-1.5, 2)),
        Uniform(5, symmetric=False, range=Given(-0.5, 3)),
    ],
    TTQ: [TTQ(), TTQ(0.3, PerRow())],
    MidRise: [MidRise(1), MidRise(4, PerRow()), MidRise(9)],
    Balanced: [Balanced(1), Balanced(3, PerRow()), Balanced(8)],
    BinaryCodes: [BinaryCodes(1), BinaryCodes(2, Solver.GREEDY), BinaryCodes(3, Solver.REFINED), BinaryCodes(4)],
    Codebook: [
        Codebook(1),
        Codebook(2, Start.LINEAR, granularity=PerRow()),
        Codebook(3, Start.RANDOM, seed=3),
        Codebook(5, iterations=2),
    ],
    Logarithmic: [Logarithmic(2), Logarithmic(4, root=True), Logarithmic(8, granularity=PerRow())],
    Fixed: [Fixed(0, 2), Fixed(2, 5), Fixed(1, 14), Fixed(4, 0)],
}
QUANTIZERS = [quantizer for family in FAMILIES.values() for quantizer in family]
SCALING = [
    q
    for q in QUANTIZERS
    if q not in (Binary(), Binary(0.1), Binary(rounding=Rounding.STOCHASTIC), Ternary(0.5), *FAMILIES[Fixed])
    and not isinstance(getattr(q, "range", None), Given)
]
PROJECTIONS = [
    *(Binary(), Binary(0.1), TWN(), TWN(PerRow()), Uniform(2), Uniform(8, symmetric=False), BinaryCodes(1)),
    *(LeastSquaresTernary(), Codebook(1), Codebook(3, Start.RANDOM), Codebook(4, Start.LINEAR, granularity=PerRow())),
    *(Logarithmic(2), Logarithmic(5), Logarithmic(8, granularity=PerRow()), *FAMILIES[Fixed]),
    *(TTQ(), TTQ(0.3, PerRow()), Uniform(3, range=Percentile(80)), Uniform(4, range=Given(-1.5, 2))),
    *(*FAMILIES[MidRise], *FAMILIES[Balanced], Ternary(0.5), Binary(Scale.MEAN_ABSOLUTE, granularity=PerRow())),
    *(LeastSquaresTernary(PerRow()), Uniform(3, PerRow(), range=LeastError(8))),
]

tensors = arrays(
    "float32",
    array_shapes(min_dims=1, max_dims=3, max_side=5),
    elements=st.floats(-8, 8, width=32, allow_subnormal=False).map(lambda x: 0.0 if abs(x) < 1e-6 else x),
).map(torch.from_numpy)


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=repr)
@settings(max_examples=20)
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
@settings(max_examples=15)
@given(weight=tensors, power=st.integers(-3, 3))
def test_scaling_the_weights_by_a_power_of_two_scales_the_values(quantizer, weight, power):
    """q(2^k w) = 2^k q(w), exactly, for quantizers that read their scale from the weights."""
    nonzero = weight.reshape(quantizer.encode(weight).groups, -1).abs().amax(1)
    if (nonzero > 0).all():
        assert torch.equal(quantizer(weight * 2.0**power), quantizer(weight) * 2.0**power)


@pytest.mark.parametrize("quantizer", PROJECTIONS, ids=repr)
@settings(max_examples=20)
@given(weight=tensors)
def test_quantizing_twice_is_quantizing_once(quantizer, weight):
    """A quantizer maps its own codes to themselves.

    Not so multi-bit codes and powers of √2: their signs and scales are not read off their own values. Nor a ternary
    rule whose threshold is above its own code, as T = 1.5.

    Affine: if both ends of the grid are used. Over −r … r exactly, the zero point is half way between two integers; the
    upper end then loses a step, and the values have a smaller range than the weights had.
    """
    first = quantizer.encode(weight)
    second = quantizer.encode(first.decode())
    if isinstance(quantizer, TWN | TTQ | BinaryCodes):  # the scale of two equal magnitudes may lose a bit in the mean
        torch.testing.assert_close(second.decode(), first.decode(), rtol=1e-6, atol=0)
    elif isinstance(quantizer, Binary | MidRise):  # Balanced is one as well
        assert torch.equal(second.integers, first.integers)
    elif not isinstance(quantizer, Uniform):
        assert torch.equal(second.decode(), first.decode())
    elif quantizer.symmetric or {first.grid.low, first.grid.high} <= {*first.integers.flatten().tolist()}:
        torch.testing.assert_close(second.decode(), first.decode(), rtol=1e-5, atol=1e-7)


def stored(codes: Codes, storage: Storage) -> torch.Tensor:
    """The values after a way through bytes."""
    integers = storage.unpack(storage.pack(codes.integers, codes.grid).parts, tuple(codes.shape), codes.grid)
    assert integers.dtype == codes.integers.dtype == codes.grid.dtype
    return Codes(integers, codes.grid, codes.tables, codes.groups, codes.scheme, codes.dtype).decode()


def storages(codes: Codes) -> list[Storage]:
    """What can store the integers of this grid."""
    with_zero = codes.grid.low <= 0 and codes.grid.low % codes.grid.step == 0
    return [FixedWidth(), Huffman(), *[RelativeIndex(3)] * with_zero, *[Trits()] * (codes.grid.points == 3)]


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=repr)
def test_a_thousand_seeds(quantizer):
    """Fake equals stored and read, in every storage, for a thousand Gaussian groups with a scale each."""
    rows = [torch.randn(35, generator=torch.Generator().manual_seed(seed)) for seed in range(1000)]
    each = quantizer if isinstance(quantizer, Fixed | Ternary) else replace(quantizer, granularity=PerRow())
    codes, value = each.encode(torch.stack(rows)), each(torch.stack(rows))
    for storage in storages(codes):
        assert torch.equal(stored(codes, storage), value)
    for seed, row in enumerate(rows[:40]):  # one by one
        matrix = row.reshape(5, 7)
        codes, value = quantizer.encode(matrix), quantizer(matrix)
        choice = storages(codes)[seed % len(storages(codes))] if codes.grid.points <= 2**9 else FixedWidth()
        assert torch.equal(stored(codes, choice), value)


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=repr)
def test_edges(quantizer):
    for shape in ((0,), (0, 4), (3, 0)):
        assert quantizer(torch.zeros(shape)).shape == shape
        codes = quantizer.encode(torch.zeros(shape))
        assert torch.equal(Codes.unpacked(codes.packed(), shape, codes.grid), codes.integers)
        assert codes.nbytes == sum(t.numel() * t.element_size() for t in codes.tables.values())
    assert quantizer(torch.tensor(0.3)).shape == ()
    assert torch.equal(quantizer(torch.tensor(0.3)), quantizer(torch.tensor([0.3])).squeeze())
    assert torch.isfinite(quantizer(torch.zeros(3, 4))).all()
    assert torch.isfinite(quantizer(torch.full((3, 4), -2.5))).all()
    assert torch.isfinite(quantizer(torch.tensor([[1.0e37, -1.0e37]]))).all()
    assert torch.isfinite(quantizer(torch.tensor([[1.0e-44, -1.0e-44]]))).all()
    turned = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).t()
    assert torch.equal(quantizer(turned), quantizer(turned.contiguous()))


@pytest.mark.parametrize("quantizer", [q for q in SCALING if not isinstance(q, Logarithmic | Balanced)], ids=repr)
@pytest.mark.parametrize("value", [-2.5, -1e-3, 0.0, 0.3, 7e4])
def test_equal_weights_keep_their_value(quantizer, value):
    """Not with powers of two, which may not have it, and not with shares of ranks, where all have the lowest."""
    weight = torch.full((3, 8), value)
    torch.testing.assert_close(quantizer(weight), weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_types_keep_their_type_and_are_packed_as_they_are(quantizer, dtype):
    smallest = torch.finfo(dtype).smallest_normal
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    for values in (weight, weight * 100, weight * smallest, weight.t(), weight[::2, 1::3], torch.zeros_like(weight)):
        codes, value = quantizer.encode(values), quantizer(values)
        assert value.dtype == codes.dtype == dtype
        assert all(table.dtype in (dtype, torch.int8, torch.int16) for table in codes.tables.values())
        assert value.isfinite().all()
        integers = Codes.unpacked(codes.packed(), tuple(values.shape), codes.grid)
        again = Codes(integers, codes.grid, codes.tables, codes.groups, codes.scheme, codes.dtype).decode()
        assert torch.equal(again, value)
        assert torch.equal(value, quantizer(values.contiguous()))
        per_group = values.contiguous().view(codes.groups, -1)
        for row, numbers in zip(value.reshape(codes.groups, -1), per_group, strict=True):
            assert row.unique().numel() <= min(codes.grid.points, numbers.unique().numel())


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
    [
        *(*QUANTIZERS, TWN(PerGate(3)), Uniform(8, PerGroup(64)), TWN(estimator=ClippedStraightThrough(0.5))),
        *(Codebook(4, Start.LINEAR, 7, 3, PerGroup(2)), BinaryCodes(2, Solver.GREEDY, 0, PerTensor())),
        *(Fixed(3, 4, ClippedStraightThrough(8.0)), Logarithmic(8, True, PerGate(), ClippedStraightThrough())),
        *(TTQ(0.1, PerGate(3)), Balanced(2, estimator=SoftStaircase(9.0))),
        MidRise(16, PerGroup(4), estimator=SoftStaircase(2.5)),
        *(Uniform(8, range=end) for end in (MinMax(), Percentile(99.99), LeastError(5), MovingAverage(0.9))),
        Uniform(8, PerRow(), False, Given(-1e-05, 2.5e7), SoftStaircase(0.1)),
    ],
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
        "MinMax()",
        "TTQ(1.5)",
        "Uniform(8, range=Given(2.0, 1.0))",
        "TWN(",
        "(lambda: 1)()",
    ],
)
def test_text_that_writes_no_quantizer_is_refused(text):
    with pytest.raises(FewbitsError):
        parse(text)


def test_granularities_count_groups():
    shape = torch.Size((800, 200))
    assert [g.groups(shape) for g in (PerTensor(), PerRow(), PerGate(), PerGroup(50))] == [1, 800, 4, 3200]
