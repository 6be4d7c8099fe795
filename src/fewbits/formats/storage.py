"""How the integers of a tensor become bytes: :class:`Storage`, and codes of one width, the default."""

import ast
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.codes import IntegerGrid
from fewbits.formats.packing import pack_bits, unpack_bits


@dataclass(frozen=True, eq=False)
class Payload:
    """The bytes of a tensor's integers, and what they cost."""

    parts: Mapping[str, Tensor]  #: named tensors on the CPU, as they go to a file
    bits: int  #: exact size: the codes and whatever else it takes to read them, without padding

    @property
    def nbytes(self) -> int:
        """Size of the parts in bytes, padding included."""
        return sum(part.numel() * part.element_size() for part in self.parts.values())


class Storage(ABC):
    """How integers on a grid are stored; it knows nothing of scales.

    Any shape can be stored: empty ones, scalars, strided views. Only integers on the grid, of at most 2^16 points, can.
    """

    parts: ClassVar[tuple[str, ...]] = ("codes",)  #: names of the tensors that it stores

    @abstractmethod
    def pack(self, integers: Tensor, grid: IntegerGrid) -> Payload:
        """Return the bytes of ``integers``, which lie on ``grid``; the shape is not stored.

        Raises:
            FewbitsError: If an integer is not on the grid, or this storage cannot serve the grid.
        """

    def unpack(self, parts: Mapping[str, Tensor], shape: Sequence[int], grid: IntegerGrid) -> Tensor:
        """Return the integers that :meth:`pack` packed, in ``shape`` and ``grid.dtype``, on the CPU.

        Raises:
            FewbitsError: If :meth:`pack` makes no such parts of integers of this shape and grid: they are truncated,
                damaged or foreign. A shape that is too large is refused before anything of its size is allocated.
        """
        if missing := sorted({*self.parts} ^ {*parts}):
            raise FewbitsError(f"{self} stores {', '.join(self.parts)}; missing or unknown: {', '.join(missing)}.")
        if not all(isinstance(size, int) and size >= 0 for size in shape):
            raise FewbitsError(f"{tuple(shape)} is no shape; sizes are whole numbers from 0.")
        return self._unpack(parts, shape, grid)

    @abstractmethod
    def _unpack(self, parts: Mapping[str, Tensor], shape: Sequence[int], grid: IntegerGrid) -> Tensor:
        """As :meth:`unpack`; the names of the parts and the shape are checked."""

    @staticmethod
    def parse(text: str) -> "Storage":
        """Return the storage that ``text`` writes, in the notation of ``repr``; nothing is evaluated.

        Raises:
            FewbitsError: If the text is no storage; the message lists the words that can be used.

        >>> Storage.parse("RelativeIndex(4)")
        RelativeIndex(gap_bits=4)
        """
        words = {kind.__name__: kind for kind in Storage.__subclasses__()}
        try:
            match ast.parse(text, mode="eval").body:
                case ast.Call(func=ast.Name(id=word), args=args, keywords=keywords):
                    values = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in keywords}
                    return words[word](*map(ast.literal_eval, args), **values)
                case _:
                    raise ValueError("it is no call")
        except (SyntaxError, KeyError, TypeError, ValueError, RecursionError, MemoryError) as error:
            raise FewbitsError(
                f"{text[:100]!r} writes no storage ({error}); the words are {', '.join(sorted(words))}."
            ) from error


@dataclass(frozen=True)
class FixedWidth(Storage):
    """Every code in ``grid.bits`` bits, ceil(log2 of the number of points): 1 to 16.

    >>> import torch
    >>> FixedWidth().pack(torch.tensor([-1, 0, 1, 1, 0]), IntegerGrid(-1, 1)).bits
    10
    """

    def pack(self, integers: Tensor, grid: IntegerGrid) -> Payload:
        """Return the codes, least significant bit first, without gaps."""
        return Payload({"codes": pack_bits(grid.numbers(integers), grid.bits)}, integers.numel() * grid.bits)

    def _unpack(self, parts: Mapping[str, Tensor], shape: Sequence[int], grid: IntegerGrid) -> Tensor:
        return grid.integers(unpack_bits(parts["codes"], grid.bits, math.prod(shape)), shape)
