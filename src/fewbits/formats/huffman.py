"""Canonical Huffman codes: few bits for frequent integers, many for rare ones."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.codes import IntegerGrid
from fewbits.formats.packing import check_bits, pack_bits, unpack_bits
from fewbits.formats.storage import Payload, Storage

#: The longest word. A word of 49 bits takes Fibonacci(51) = 20,365,011,074 integers, so no tensor of fewer meets it.
LONGEST = 48
#: Bits that hold a length of 0 to 48.
LENGTH_BITS = 6


def code_lengths(counts: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the length of each symbol's word in a Huffman code: the least Σ count · length of all prefix codes.

    The two rarest symbols are merged until one is left (Huffman 1952). An unused symbol has length 0. A lone symbol has
    length 1, so that the payload still says how many there are.

    Raises:
        FewbitsError: If a count is negative, or a word would be longer than 48 bits.

    >>> code_lengths([5, 1, 0, 2]).tolist()
    [1, 2, 0, 2]
    """
    table = np.asarray(counts, np.int64)
    if (table < 0).any():
        raise FewbitsError("a count is negative; a symbol occurs 0 times or more.")
    used = np.flatnonzero(table)
    lengths = np.zeros(table.size, np.int64)
    if used.size < 2:
        lengths[used] = 1
        return lengths
    heap = sorted((int(table[symbol]), leaf) for leaf, symbol in enumerate(used))
    parent = [0] * (2 * used.size - 1)
    for node in range(used.size, len(parent)):
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        parent[first[1]] = parent[second[1]] = node
        heapq.heappush(heap, (first[0] + second[0], node))
    depth = [0] * len(parent)
    for node in reversed(range(len(parent) - 1)):
        depth[node] = depth[parent[node]] + 1
    if max(depth) > LONGEST:
        raise FewbitsError(f"a word would have {max(depth)} bits, more than {LONGEST}: this is no tensor's histogram.")
    lengths[used] = depth[: used.size]
    return lengths


def canonical_words(lengths: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the word of each symbol, from the lengths alone: counted upwards by length, then by symbol.

    The first word is 0; the next is (last + 1) · 2^(increase of the length). An unused symbol has word 0.

    Raises:
        FewbitsError: If no complete prefix code has these lengths (Kraft: Σ 2^-length = 1); a lone symbol has length 1.

    >>> [f"{word:0{length}b}" for word, length in zip(canonical_words(np.array([2, 1, 3, 3])), [2, 1, 3, 3])]
    ['10', '0', '110', '111']
    """
    _check(lengths)
    order = _canonical_order(lengths)
    words = np.zeros(lengths.size, np.uint64)
    word, last = -1, int(lengths[order[0]]) if order.size else 0
    for symbol in order:
        word, last = (word + 1) << (int(lengths[symbol]) - last), int(lengths[symbol])
        words[symbol] = word
    return words


@dataclass(frozen=True)
class Huffman(Storage):
    """Canonical Huffman words, first bit highest, and beside them 6 bits a point of the grid: the word's length.

    The mean length is at least the entropy H of the integers and below H + 1, if two of them differ; a code is one bit
    at least. Three values of which 70, 25 and 5 % of the codes are made take 1.3 bits a code instead of 2.

    >>> integers = torch.tensor([0] * 14 + [1] * 5 + [-1])
    >>> payload = Huffman().pack(integers, IntegerGrid(-1, 1))
    >>> payload.bits                                                     # 14 · 1 + 5 · 2 + 1 · 2, and three lengths
    44
    """

    parts: ClassVar[tuple[str, ...]] = ("codes", "lengths")

    def pack(self, integers: Tensor, grid: IntegerGrid) -> Payload:
        """Return the words one after another and the lengths.

        Raises:
            FewbitsError: If an integer is not on the grid, or the grid has more than 2^16 points.
        """
        from fewbits.formats.huffman_stream import write_words

        check_bits(grid.bits)
        counts = grid.counts(integers)
        lengths = code_lengths(counts)
        bits = int(counts @ lengths)
        stream = write_words(grid.numbers(integers).numpy(), canonical_words(lengths), lengths, -(-bits // 8))
        table = pack_bits(torch.from_numpy(lengths), LENGTH_BITS)
        return Payload({"codes": torch.from_numpy(stream), "lengths": table}, bits + LENGTH_BITS * grid.points)

    def _unpack(self, parts: Mapping[str, Tensor], shape: Sequence[int], grid: IntegerGrid) -> Tensor:
        from fewbits.formats.huffman_stream import read_words

        check_bits(grid.bits)
        lengths = unpack_bits(parts["lengths"], LENGTH_BITS, grid.points).to(torch.int64).numpy()
        _check(lengths)
        count, stream = math.prod(shape), parts["codes"]
        if stream.dtype != torch.uint8 or not count <= 8 * stream.numel() < count * LONGEST + 8:
            raise FewbitsError(
                f"{stream.numel()} bytes of {stream.dtype} are no {count} Huffman words: "
                "the packed data is truncated or not ours."
            )
        numbers = read_words(stream.detach().cpu().reshape(-1).numpy(), _canonical_order(lengths), lengths, count)
        if numbers is None:
            raise FewbitsError(
                f"the stream does not hold {count} Huffman words and zeros up to a whole byte: "
                "the packed data is truncated, damaged or not ours."
            )
        return grid.integers(torch.from_numpy(numbers), shape)


def _canonical_order(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The used symbols by length, then by number."""
    return np.argsort(lengths, kind="stable")[np.count_nonzero(lengths == 0) :]


def _check(lengths: NDArray[np.int64]) -> None:
    """Refuse lengths without a complete prefix code; in integers, as Σ 2^(48 − length) = 2^48."""
    used = lengths[lengths != 0].tolist()
    if used in ([], [1]):
        return
    if lengths.min() < 0 or max(used) > LONGEST or sum(1 << (LONGEST - length) for length in used) != 1 << LONGEST:
        raise FewbitsError(
            f"no prefix code has these word lengths: the sum of 2^-length is not 1, or one is above {LONGEST}."
        )
