"""Huffman codes against brute force, the textbook's merging, RFC 1951, and streams written and read as text."""

import heapq
import itertools
import math
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import FewbitsError
from fewbits.formats import Huffman, IntegerGrid, canonical_words, code_lengths, pack_bits, unpack_bits

histograms = st.lists(st.one_of(st.integers(0, 5), st.integers(0, 400)), min_size=2, max_size=40)


def cost(counts: list[int]) -> int:
    return int(np.array(counts) @ code_lengths(counts))


# --- the lengths -----------------------------------------------------------------------------------------------------


@cache
def prefix_codes(symbols: int) -> np.ndarray:
    """The word lengths of all prefix codes of so many symbols, up to the longest that can be of use (Kraft 1949)."""
    lengths = np.array(list(itertools.product(range(1, symbols), repeat=symbols)))
    return lengths[(2 ** (symbols - lengths)).sum(1) <= 2**symbols]


@given(st.lists(st.integers(1, 60), min_size=2, max_size=6))
def test_no_prefix_code_is_shorter(counts):
    assert cost(counts) == (prefix_codes(len(counts)) @ np.array(counts)).min()


@given(histograms.filter(lambda counts: sum(map(bool, counts)) > 1))
def test_the_cost_is_the_sum_of_the_textbooks_merges(counts):
    heap, total = sorted(count for count in counts if count), 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    assert cost(counts) == total


@given(histograms)
def test_krafts_sum_is_one_and_the_unused_have_no_word(counts):
    lengths = code_lengths(counts).tolist()
    assert [length > 0 for length in lengths] == [count > 0 for count in counts]
    used = [length for length in lengths if length]
    if len(used) > 1:
        assert sum(Fraction(1, 2**length) for length in used) == 1
    else:
        assert used in ([], [1])


@given(histograms.filter(lambda counts: sum(map(bool, counts)) > 1))
def test_the_mean_length_is_between_entropy_and_entropy_plus_one(counts):
    """H ≤ L < H + 1 in integers: with N codes in S bits, N^N ≤ 2^S · Π c^c < 2^N · N^N."""
    total, bits = sum(counts), cost(counts)
    product = 2**bits * math.prod(count**count for count in counts if count)
    assert total**total <= product < 2**total * total**total


def fibonacci(count: int) -> list[int]:
    numbers = [1, 1]
    while len(numbers) < count:
        numbers.append(numbers[-1] + numbers[-2])
    return numbers


def test_the_longest_words_are_those_of_fibonacci_counts():
    assert code_lengths(fibonacci(49)).tolist() == [48, *range(48, 0, -1)]
    with pytest.raises(FewbitsError, match="49 bits, more than 48"):
        code_lengths(fibonacci(50))
    assert sum(fibonacci(50)) > 2 * 10**10, "no tensor has as many elements"


def test_a_negative_count_is_refused():
    with pytest.raises(FewbitsError, match="negative"):
        code_lengths([3, -1])


# --- the words -------------------------------------------------------------------------------------------------------


def as_text(lengths: list[int]) -> dict[int, str]:
    """Symbol to word, as text, by the recipe of RFC 1951, section 3.2.2."""
    counts = [0] * (max(lengths, default=0) + 1)
    for length in filter(None, lengths):
        counts[length] += 1
    code, following = 0, [0] * len(counts)
    for bits in range(1, len(counts)):
        code = (code + counts[bits - 1]) << 1
        following[bits] = code
    words = {}
    for symbol, length in enumerate(lengths):
        if length:
            words[symbol] = f"{following[length]:0{length}b}"
            following[length] += 1
    return words


def test_the_example_of_rfc_1951():
    words = canonical_words(np.array([3, 3, 3, 3, 3, 2, 4, 4])).tolist()
    assert words == [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111]


@given(histograms)
def test_words_follow_from_the_lengths_alone(counts):
    lengths = code_lengths(counts)
    expected = as_text(lengths.tolist())
    found = {
        symbol: f"{word:0{length}b}"
        for symbol, (word, length) in enumerate(zip(canonical_words(lengths).tolist(), lengths.tolist(), strict=True))
        if length
    }
    assert found == expected
    assert not [pair for pair in itertools.permutations(found.values(), 2) if pair[1].startswith(pair[0])]


@pytest.mark.parametrize(
    "lengths",
    [[1, 2], [1, 1, 1], [2], [2, 2, 2], [1, 2, 3], [48], [0, 3, 0], [49, *range(49, 0, -1)], [-1, 1], [63] * 4],
)
def test_lengths_of_no_complete_code_are_refused(lengths):
    with pytest.raises(FewbitsError, match="no prefix code has these word lengths"):
        canonical_words(np.array(lengths))


@pytest.mark.parametrize("lengths", [[1, 2], [1, 1, 1], [0, 2], [1, 2, 3], [0, 48], [49, *range(49, 0, -1)], [63] * 4])
def test_a_table_of_no_complete_code_is_refused(lengths):
    parts = {"codes": torch.zeros(1, dtype=torch.uint8), "lengths": table(lengths)}
    with pytest.raises(FewbitsError, match="no prefix code has these word lengths"):
        Huffman().unpack(parts, (1,), IntegerGrid(0, len(lengths) - 1))


# --- the stream ------------------------------------------------------------------------------------------------------


def stream(text: str) -> torch.Tensor:
    padded = text + "0" * (-len(text) % 8)
    return torch.tensor([int(padded[i : i + 8], 2) for i in range(0, len(padded), 8)], dtype=torch.uint8)


def table(lengths: list[int]) -> torch.Tensor:
    return pack_bits(torch.tensor(lengths), 6)


@given(st.lists(st.integers(-3, 12), max_size=200), st.booleans())
def test_the_stream_is_the_words_one_after_another(values, skewed):
    values = [min(value, 0) if skewed else value for value in values]
    payload = Huffman().pack(torch.tensor(values, dtype=torch.int64), IntegerGrid(-3, 12))
    lengths = unpack_bits(payload.parts["lengths"], 6, 16).tolist()
    words = as_text(lengths)
    text = "".join(words[value + 3] for value in values)
    assert payload.parts["codes"].tolist() == stream(text).tolist()
    assert payload.bits == len(text) + 6 * 16
    assert payload.nbytes == -(-len(text) // 8) + 12


def test_words_longer_than_the_table_are_written_and_read():
    """Words of up to 29 bits, from 2 million integers with Fibonacci counts, in an order by chance."""
    counts = fibonacci(30)
    numbers = np.random.default_rng(0).permutation(np.repeat(np.arange(30), counts))
    integers = torch.from_numpy(numbers).to(torch.int8)
    payload = Huffman().pack(integers, IntegerGrid(0, 29))
    assert max(unpack_bits(payload.parts["lengths"], 6, 30).tolist()) == 29
    assert torch.equal(Huffman().unpack(payload.parts, integers.shape, IntegerGrid(0, 29)), integers)


def test_words_of_48_bits_are_read():
    lengths = [*range(1, 48), 48, 48]
    words = as_text(lengths)
    values = [48, 0, 47, 46, 48, 48, 1, 47, 20, 0, 48]
    parts = {"codes": stream("".join(words[value] for value in values)), "lengths": table(lengths)}
    assert Huffman().unpack(parts, (11,), IntegerGrid(0, 48)).tolist() == values


@pytest.mark.parametrize("value", [-1, 0, 1])
def test_a_lone_symbol_takes_a_bit_a_code(value):
    payload = Huffman().pack(torch.full((3, 7), value), IntegerGrid(-1, 1))
    assert payload.parts["codes"].tolist() == [0, 0, 0]
    assert payload.bits == 21 + 18
    assert (Huffman().unpack(payload.parts, (3, 7), IntegerGrid(-1, 1)) == value).all()


@pytest.mark.parametrize("count", range(1, 17))
def test_a_byte_too_many_is_refused_also_after_a_full_one(count):
    parts = Huffman().pack(torch.ones(count, dtype=torch.int8), IntegerGrid(-1, 1)).parts
    longer = torch.cat([parts["codes"], torch.zeros(1, dtype=torch.uint8)])
    with pytest.raises(FewbitsError, match=f"does not hold {count} Huffman words"):
        Huffman().unpack({**parts, "codes": longer}, (count,), IntegerGrid(-1, 1))


def test_no_codes_have_no_words():
    payload = Huffman().pack(torch.zeros(0, 4, dtype=torch.int8), IntegerGrid(-1, 1))
    assert [part.tolist() for part in payload.parts.values()] == [[], [0, 0, 0]]
    with pytest.raises(FewbitsError):
        Huffman().unpack(payload.parts, (1,), IntegerGrid(-1, 1))


def test_all_2_to_the_16_points_can_be_used():
    integers = torch.arange(2**16).flip(0)
    payload = Huffman().pack(integers, IntegerGrid(0, 2**16 - 1))
    assert payload.bits == (16 + 6) * 2**16, "equally frequent symbols: all words have 16 bits"
    assert torch.equal(Huffman().unpack(payload.parts, (2**16,), IntegerGrid(0, 2**16 - 1)).long(), integers)


# --- damage ----------------------------------------------------------------------------------------------------------


def read_as_text(parts: dict[str, torch.Tensor], count: int, points: int) -> list[int] | None:
    """The symbols, found by matching text with words; None if they are not what the stream holds."""
    lengths = unpack_bits(parts["lengths"], 6, points).tolist()
    used = [length for length in lengths if length]
    if used not in ([], [1]) and sum(Fraction(1, 2**length) for length in used) != 1:
        return None
    symbols = {word: symbol for symbol, word in as_text(lengths).items()}
    text, found = "".join(f"{byte:08b}" for byte in parts["codes"].tolist()), []
    while len(found) < count:
        word = next((text[:length] for length in range(1, len(text) + 1) if text[:length] in symbols), None)
        if word is None:
            return None
        found.append(symbols[word])
        text = text[len(word) :]
    return found if len(text) < 8 and "1" not in text else None


@pytest.mark.parametrize("values", [[0, 1, 2, 0, 0, 3, 0, 0, 0, 1, 5] * 3, [4] * 11, fibonacci(6), []], ids=str)
def test_every_flipped_bit_is_refused_or_read_as_it_stands(values):
    grid = IntegerGrid(0, 9)
    parts = Huffman().pack(torch.tensor(values, dtype=torch.int64), grid).parts
    for name, part in parts.items():
        for bit in range(8 * part.numel()):
            damaged = part.clone()
            damaged[bit // 8] ^= 1 << bit % 8
            changed = {**parts, name: damaged}
            try:
                found = Huffman().unpack(changed, (len(values),), grid).tolist()
            except FewbitsError:
                found = None
            try:
                expected = read_as_text(changed, len(values), 10)
            except FewbitsError:  # the padding of the table
                expected = None
            assert found == expected
