"""Ground floor: integer codes, and how they become bytes and numbers again."""

from fewbits.formats.codes import Codes, IntegerGrid
from fewbits.formats.packing import pack_bits, unpack_bits
from fewbits.formats.rounding import RoundingMode, round_shift

__all__ = ["Codes", "IntegerGrid", "RoundingMode", "pack_bits", "round_shift", "unpack_bits"]
