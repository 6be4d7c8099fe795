"""Ground floor: integer codes, and how they become bytes and numbers again."""

from fewbits.formats.codes import Codes, IntegerGrid
from fewbits.formats.fixed_point import FixedPoint
from fewbits.formats.float_format import (
    BFLOAT16,
    BINARY16,
    BINARY32,
    FLOAT4_E2M1FN,
    FLOAT6_E2M3FN,
    FLOAT6_E3M2FN,
    FLOAT8_E3M4,
    FLOAT8_E4M3,
    FLOAT8_E4M3B11FNUZ,
    FLOAT8_E4M3FN,
    FLOAT8_E4M3FNUZ,
    FLOAT8_E5M2,
    FLOAT8_E5M2FNUZ,
    FLOAT8_E8M0FNU,
    TF32,
    FloatFormat,
    Specials,
    Subnormals,
)
from fewbits.formats.huffman import Huffman, canonical_words, code_lengths
from fewbits.formats.packing import pack_bits, unpack_bits
from fewbits.formats.power_of_two import nearest_power_of_two
from fewbits.formats.rounding import RoundingMode, round_shift
from fewbits.formats.sparse import RelativeIndex
from fewbits.formats.storage import FixedWidth, Payload, Storage
from fewbits.formats.trits import Trits

__all__ = [
    "BFLOAT16",
    "BINARY16",
    "BINARY32",
    "FLOAT4_E2M1FN",
    "FLOAT6_E2M3FN",
    "FLOAT6_E3M2FN",
    "FLOAT8_E3M4",
    "FLOAT8_E4M3",
    "FLOAT8_E4M3B11FNUZ",
    "FLOAT8_E4M3FN",
    "FLOAT8_E4M3FNUZ",
    "FLOAT8_E5M2",
    "FLOAT8_E5M2FNUZ",
    "FLOAT8_E8M0FNU",
    "TF32",
    "Codes",
    "FixedPoint",
    "FixedWidth",
    "FloatFormat",
    "Huffman",
    "IntegerGrid",
    "Payload",
    "RelativeIndex",
    "RoundingMode",
    "Specials",
    "Storage",
    "Subnormals",
    "Trits",
    "canonical_words",
    "code_lengths",
    "nearest_power_of_two",
    "pack_bits",
    "round_shift",
    "unpack_bits",
]
