"""Words of a prefix code to a stream of bits and back, in compiled loops: each word starts where the last one ended."""

import numba
import numpy as np
from numpy.typing import NDArray

#: Words up to this length are looked up; longer ones are found by their length's first word.
TABLE_BITS = 12


def write_words(
    symbols: NDArray[np.int32], words: NDArray[np.uint64], lengths: NDArray[np.int64], nbytes: int
) -> NDArray[np.uint8]:
    """Return the words of ``symbols`` one after another, first bit highest, padded with zeros to ``nbytes`` bytes."""
    stream = np.zeros(nbytes, np.uint8)
    _write(symbols, words, lengths, stream)
    return stream


def read_words(
    stream: NDArray[np.uint8], order: NDArray[np.int64], lengths: NDArray[np.int64], count: int
) -> NDArray[np.int32] | None:
    """Return the ``count`` symbols that a stream of canonical words holds; None if it holds something else.

    Args:
        stream: bytes, first bit highest.
        order: the used symbols by length, then by number, which is the order of their canonical words.
        lengths: length of each symbol's word, at most 48; they satisfy Kraft's equality.
        count: number of symbols; everything after their words must be padding: under 8 bits, all zero.
    """
    longest = int(lengths.max(initial=0))
    first, offset, word = np.zeros(longest + 2, np.int64), np.zeros(longest + 2, np.int64), 0
    for length, number in enumerate(np.bincount(lengths[order], minlength=longest + 1)[1:].tolist(), start=1):
        first[length] = word
        offset[length + 1] = offset[length] + number
        word = (word + number) << 1
    table = np.full(1 << TABLE_BITS, -1, np.int64)
    start = 0
    for symbol in order[lengths[order] <= TABLE_BITS].tolist():
        reach = 1 << (TABLE_BITS - int(lengths[symbol]))
        table[start : start + reach] = symbol
        start += reach
    symbols = np.empty(count, np.int32)
    return symbols if _read(stream, order, lengths, first, offset, table, symbols) else None


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def _write(
    symbols: NDArray[np.int32], words: NDArray[np.uint64], lengths: NDArray[np.int64], stream: NDArray[np.uint8]
) -> None:
    window, filled, place = np.uint64(0), 0, 0  # fewer than 8 bits wait in the window, so 48 more fit
    for symbol in symbols:
        window = (window << np.uint64(lengths[symbol])) | words[symbol]
        filled += lengths[symbol]
        while filled >= 8:
            filled -= 8
            stream[place] = (window >> np.uint64(filled)) & np.uint64(0xFF)
            place += 1
    if filled:
        stream[place] = (window << np.uint64(8 - filled)) & np.uint64(0xFF)


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def _read(
    stream: NDArray[np.uint8],
    order: NDArray[np.int64],
    lengths: NDArray[np.int64],
    first: NDArray[np.int64],
    offset: NDArray[np.int64],
    table: NDArray[np.int64],
    symbols: NDArray[np.int32],
) -> bool:
    window, filled, place = np.uint64(0), 0, 0  # the next bits of the stream, highest first
    for index in range(symbols.size):
        while filled <= 56 and place < stream.size:
            window |= np.uint64(stream[place]) << np.uint64(56 - filled)
            filled += 8
            place += 1
        symbol = table[window >> np.uint64(64 - TABLE_BITS)]
        length = TABLE_BITS
        while symbol < 0:
            length += 1
            if length >= first.size - 1:
                return False
            rank = np.int64(window >> np.uint64(64 - length)) - first[length]
            if rank < offset[length + 1] - offset[length]:
                symbol = order[offset[length] + rank]
        length = lengths[symbol]
        if length > filled:
            return False
        window <<= np.uint64(length)
        filled -= length
        symbols[index] = symbol
    return place == stream.size and filled < 8 and window == 0
