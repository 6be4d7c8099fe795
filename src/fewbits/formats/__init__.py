"""Ground floor: integer codes, and how they become bytes and numbers again."""

from fewbits.formats.codes import Codes, IntegerGrid
from fewbits.formats.packing import pack_bits, unpack_bits

__all__ = ["Codes", "IntegerGrid", "pack_bits", "unpack_bits"]
