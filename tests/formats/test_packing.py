"""Packing against Python's unbounded integers: the stream is one number, value i shifted by i·bits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import FewbitsError
from fewbits.formats import pack_bits, unpack_bits


@st.composite
def values_and_bits(draw):
    bits = draw(st.integers(1, 16))
    return draw(st.lists(st.integers(0, 2**bits - 1), max_size=40)), bits


@given(values_and_bits())
def test_bytes_are_the_little_endian_number(case):
    values, bits = case
    number = sum(value << (bits * i) for i, value in enumerate(values))
    expected = number.to_bytes(-(-len(values) * bits // 8), "little")
    packed = pack_bits(torch.tensor(values, dtype=torch.int32), bits)
    assert bytes(packed.tolist()) == expected
    assert unpack_bits(packed, bits, len(values)).tolist() == values


@pytest.mark.parametrize("bits", range(1, 17))
def test_long_streams_agree_with_numpy(bits):
    """A million bits and a few more, as ``numpy.packbits`` orders them."""
    values = np.random.default_rng(bits).integers(0, 2**bits, 10**6 // bits + 3)
    planes = ((values[:, None] >> np.arange(bits)) & 1).astype(np.uint8)
    packed = pack_bits(torch.from_numpy(values), bits)
    assert np.array_equal(packed.numpy(), np.packbits(planes, bitorder="little"))
    assert np.array_equal(unpack_bits(packed, bits, values.size).numpy(), values)


@pytest.mark.parametrize("bits", [1, 3, 8, 16])
def test_every_value_of_a_width_survives_any_shape_and_stride(bits):
    values = torch.arange(2**bits, dtype=torch.int32).reshape(2, -1).t()
    assert torch.equal(unpack_bits(pack_bits(values, bits), bits, values.numel()).view(values.shape), values)


@pytest.mark.parametrize("bits", [0, 17, -1, 2.0, True, "4"])
def test_widths_outside_1_to_16_are_refused(bits):
    with pytest.raises(FewbitsError, match="1 to 16"):
        pack_bits(torch.zeros(3, dtype=torch.int32), bits)
    with pytest.raises(FewbitsError, match="1 to 16"):
        unpack_bits(torch.zeros(3, dtype=torch.uint8), bits, 1)


@pytest.mark.parametrize("value", [-1, 4, 2**32, 2**32 + 1, -(2**32)])
def test_values_that_do_not_fit_are_refused(value):
    with pytest.raises(FewbitsError, match="do not fit 2 unsigned bits"):
        pack_bits(torch.tensor([0, value]), 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.bfloat16])
def test_only_integers_are_packed(dtype):
    with pytest.raises(FewbitsError, match="only integers"):
        pack_bits(torch.ones(3, dtype=dtype), 2)


def test_truncated_and_dirty_streams_are_refused():
    packed = pack_bits(torch.tensor([1, 2, 3, 0, 1]), 3)
    with pytest.raises(FewbitsError, match="truncated"):
        unpack_bits(packed[:-1], 3, 5)
    with pytest.raises(FewbitsError, match="truncated"):
        unpack_bits(packed, 3, 99)
    with pytest.raises(FewbitsError, match="truncated"):
        unpack_bits(packed[:0], 3, -1)
    with pytest.raises(FewbitsError, match="truncated"):
        unpack_bits(packed.to(torch.int8), 3, 5)
    packed[-1] |= 0x80
    with pytest.raises(FewbitsError, match="padding"):
        unpack_bits(packed, 3, 5)


def test_what_is_no_tensor_is_refused():
    with pytest.raises(FewbitsError, match="what is packed is a ndarray; give a torch tensor"):
        pack_bits(np.array([1]), 2)
    with pytest.raises(FewbitsError, match="what is unpacked is a bytes"):
        unpack_bits(b"!", 2, 3)
