"""What every storage must do: bring any integers back, count its bits, refuse what it did not write."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fewbits.errors import FewbitsError
from fewbits.formats import FixedWidth, Huffman, IntegerGrid, RelativeIndex, Storage, Trits

STORAGES = [FixedWidth(), Trits(), Huffman(), RelativeIndex(1), RelativeIndex(3), RelativeIndex(16)]
GRIDS = [
    IntegerGrid(-1, 1),
    IntegerGrid(0, 2),
    IntegerGrid(-2, 0),
    IntegerGrid(-7, 7, 7),
]  # three points, one of them 0
MORE = [
    IntegerGrid(-1, 1, 2), IntegerGrid(-3, 3, 2), IntegerGrid(5, 11, 3), IntegerGrid(0, 1), IntegerGrid(-4, 3),
    IntegerGrid(-127, 127), IntegerGrid(0, 255), IntegerGrid(-(2**15), 2**15 - 1), IntegerGrid(0, 2**17 - 2, 2),
]  # fmt: skip


def serves(storage: Storage, grid: IntegerGrid) -> bool:
    if isinstance(storage, Trits):
        return grid.points == 3
    return not isinstance(storage, RelativeIndex) or 0 in range(grid.low, grid.high + 1, grid.step)


@st.composite
def integers_on(draw, grid):
    """Tensors of any shape, some with empty dimensions; long runs of one value are likely."""
    shape = draw(array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
    fill = st.just(draw(st.integers(0, grid.points - 1)))
    numbers = draw(arrays(np.int64, shape, elements=st.integers(0, grid.points - 1), fill=fill))
    return torch.as_tensor(grid.low + grid.step * numbers).to(grid.dtype)


@pytest.mark.parametrize("storage", STORAGES, ids=repr)
@given(data=st.data())
def test_integers_come_back_in_any_shape_from_any_grid(storage, data):
    grid = data.draw(st.sampled_from([grid for grid in GRIDS + MORE if serves(storage, grid)]))
    integers = data.draw(integers_on(grid))
    payload = storage.pack(integers, grid)
    found = storage.unpack(payload.parts, integers.shape, grid)
    assert found.dtype == grid.dtype
    assert found.shape == integers.shape
    assert torch.equal(found, integers)
    assert payload.nbytes == sum(part.numpy().nbytes for part in payload.parts.values())
    assert 0 <= 8 * payload.nbytes - payload.bits < 8 * len(payload.parts), "less than a byte of padding a part"
    assert tuple(payload.parts) == storage.parts


@pytest.mark.parametrize("storage", STORAGES, ids=repr)
def test_strides_and_wide_types_change_nothing(storage):
    integers = torch.tensor([[0, 1, -1, 0], [0, 0, 0, 1]], dtype=torch.int64)
    expected = storage.pack(integers.contiguous(), GRIDS[0])
    for same in (integers.t().contiguous().t(), integers.to(torch.int8), torch.stack([integers] * 2, -1)[..., 0]):
        parts = storage.pack(same, GRIDS[0]).parts
        assert all(torch.equal(part, parts[name]) for name, part in expected.parts.items())


def test_fixed_width_is_the_bytes_of_numpy():
    numbers = np.array([5, 0, 7, 2, 1, 6, 3])
    bits = ((numbers[:, None] >> np.arange(3)) & 1).astype(np.uint8)
    payload = FixedWidth().pack(torch.from_numpy(2 * numbers - 6), IntegerGrid(-6, 8, 2))
    assert payload.parts["codes"].tolist() == np.packbits(bits, bitorder="little").tolist()
    assert (payload.bits, payload.nbytes) == (21, 3)


# --- as text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", STORAGES, ids=repr)
def test_text_gives_the_storage_again(storage):
    assert Storage.parse(repr(storage)) == storage


@pytest.mark.parametrize(
    "text",
    ["", "Huffman", "huffman()", "Huffman(3)", "RelativeIndex()", "RelativeIndex(gaps=3)", "__import__('os')", "1 + 1",
     "RelativeIndex(print(1))", "Huffman().pack()", "(" * 10**5, "-" * 10**6 + "1", "RelativeIndex('4')", "Trits()\n1",
     "RelativeIndex(4, gap_bits=4)", "RelativeIndex(**{})", "\0", "Storage()"],
    ids=lambda text: text[:25],
)  # fmt: skip
def test_text_that_writes_no_storage_is_refused(text):
    with pytest.raises(FewbitsError):
        Storage.parse(text)


def test_the_words_are_listed():
    with pytest.raises(FewbitsError, match=r"'Zip\(\)' writes no .* FixedWidth, Huffman, RelativeIndex, Trits"):
        Storage.parse("Zip()")


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", STORAGES, ids=repr)
def test_missing_and_unknown_parts_are_refused(storage):
    parts = dict(storage.pack(torch.zeros(4, dtype=torch.int8), GRIDS[0]).parts)
    with pytest.raises(FewbitsError, match="unknown: more"):
        storage.unpack(parts | {"more": torch.zeros(1)}, (4,), GRIDS[0])
    for name in storage.parts:
        rest = {other: part for other, part in parts.items() if other != name}
        with pytest.raises(FewbitsError, match=f"missing or unknown: {name}"):
            storage.unpack(rest, (4,), GRIDS[0])


@pytest.mark.parametrize("storage", STORAGES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.int8, torch.float32, torch.int16])
def test_parts_of_another_type_are_refused(storage, dtype):
    parts = storage.pack(torch.tensor([1, 0, 1], dtype=torch.int8), GRIDS[0]).parts
    for name in parts:
        with pytest.raises(FewbitsError):
            storage.unpack({**parts, name: parts[name].to(dtype)}, (3,), GRIDS[0])


@pytest.mark.parametrize("storage", STORAGES, ids=repr)
@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("shape", [(10**15,), (2**40, 2**40), (10**9,), (-1,), (3, -2), (2.0,), ("3",)])
def test_a_shape_that_lies_is_refused_before_memory_is_taken(storage, value, shape):
    parts = storage.pack(torch.full((40,), value, dtype=torch.int8), GRIDS[0]).parts
    with pytest.raises(FewbitsError):
        storage.unpack(parts, shape, GRIDS[0])


@pytest.mark.parametrize("storage", STORAGES, ids=repr)
def test_truncated_and_longer_parts_are_refused(storage):
    integers = torch.tensor([0, 1, -1] * 30 + [0] * 70 + [1], dtype=torch.int8)
    parts = storage.pack(integers, GRIDS[0]).parts
    for name, part in parts.items():
        for length in range(part.numel()):
            with pytest.raises(FewbitsError):
                storage.unpack({**parts, name: part[:length]}, integers.shape, GRIDS[0])
        with pytest.raises(FewbitsError):
            storage.unpack({**parts, name: torch.cat([part, part[:1] * 0])}, integers.shape, GRIDS[0])


@pytest.mark.parametrize("storage", [storage for storage in STORAGES if storage != Huffman()], ids=repr)
@settings(max_examples=150)
@given(data=st.data())
def test_bytes_are_what_it_writes_or_refused(storage, data):
    """One form for each tensor: other bytes are an error or exactly the bytes of the integers that they give."""
    integers = data.draw(integers_on(GRIDS[0]))
    parts = {name: part.clone() for name, part in storage.pack(integers, GRIDS[0]).parts.items()}
    changed = data.draw(st.sampled_from([name for name, part in parts.items() if part.numel()] or ["none"]))
    if changed != "none":
        place = data.draw(st.integers(0, parts[changed].numel() - 1))
        parts[changed][place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = storage.unpack(parts, integers.shape, GRIDS[0])
    except FewbitsError:
        return
    again = storage.pack(found, GRIDS[0]).parts
    assert all(torch.equal(part, again[name]) for name, part in parts.items())


@pytest.mark.parametrize("storage", STORAGES, ids=repr)
def test_wide_grids_are_refused(storage):
    with pytest.raises(FewbitsError):
        storage.pack(torch.zeros(3, dtype=torch.int32), IntegerGrid(0, 2**16))
