"""Matrices by parts: every number once, and the numbers of one call."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.formats import Codes, IntegerGrid
from fewbits.formats.codes import Scheme
from fewbits.formats.tiles import TILE, blocks, tiles, tilewise

SHAPES = [(1, 3 * TILE + 5), (3, TILE + 1), (700, 999), (2, TILE), (TILE + 3, 2), (1, 1), (4, 7), (0, 5), (5, 0)]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_hold_every_number_once_row_after_row_from_left_to_right(shape):
    matrix = torch.arange(shape[0] * shape[1]).reshape(shape)
    parts = [matrix[rows, columns] for rows, columns in tiles(matrix)]
    assert all(0 < part.numel() <= TILE for part in parts)
    assert all(len(part) == 1 or part.shape[1] == shape[1] for part in parts)
    found = torch.cat([part.flatten() for part in parts]) if parts else matrix.flatten()
    assert torch.equal(found, matrix.flatten())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_function_by_tiles_is_the_function(shape):
    matrix, scale, pairs = draw(*shape), draw(shape[0], seed=1), draw(shape[0], 2, seed=2)
    found = tilewise(lambda w, s, p: w * s[:, None] + p[:, :1] - p[:, 1:], torch.float64, matrix, scale, pairs)
    expected = matrix.numpy() * scale.numpy()[:, None] + pairs.numpy()[:, :1] - pairs.numpy()[:, 1:]
    assert found.dtype == torch.float64
    assert np.array_equal(found.numpy(), expected.astype(np.float64))


def test_a_table_gets_its_gradient():
    """The sum of a row's integers, which the scale is multiplied with; each gradient is 1."""
    integers, scale = torch.arange(-9, 9).repeat(2, TILE), torch.tensor([2.0, 3.0], requires_grad=True)
    integers[1] += 1
    Codes(integers, IntegerGrid(-9, 9), {"scale": scale}, 2).decode().sum().backward()
    assert scale.grad.tolist() == [-9.0 * TILE, 9.0 * TILE]
    with torch.no_grad():
        assert not Codes(integers, IntegerGrid(-9, 9), {"scale": scale}, 2).decode().requires_grad


@given(groups=st.integers(0, 40), number=st.sampled_from([0, 1, 10, 10**4, TILE // 2, TILE + 1]))
def test_blocks_are_runs_of_rows_and_none_is_one_row_of_several(groups, number):
    matrix = torch.empty(1, 1).expand(groups, number)
    parts = blocks(matrix)
    assert sum(map(len, parts)) == groups
    assert all(part.shape[1] == number for part in parts)
    assert all(2 <= len(part) <= max(3, 2 * TILE // max(1, number)) for part in parts) or len(parts) == 1
    assert len(parts) == 1 or matrix.numel() >= 2 * TILE


def numbers(codes: Codes) -> np.ndarray:
    """What each scheme says, in float32 with NumPy."""
    q, tables = codes.integers.numpy().astype(np.int64), {n: t.numpy()[:, None] for n, t in codes.tables.items()}
    match codes.scheme:
        case Scheme.AFFINE:
            return (q - tables.get("zero_point", 0)).astype("f") * tables["scale"]
        case Scheme.POWERS:
            return (np.sign(q) * 2.0 ** (np.abs(q) - codes.grid.high)).astype("f") * tables["scale"]
        case Scheme.CODEBOOK:
            return np.take_along_axis(tables["codebook"][:, 0], q - codes.grid.low, axis=1)
    alpha = tables["coefficients"][:, 0]
    signs = [np.where(q >> i & 1, np.float32(1), np.float32(-1)) for i in range(alpha.shape[1])]
    return sum((alpha[:, i, None] * sign for i, sign in enumerate(signs)), np.float32(0))


@pytest.mark.parametrize("shape", [(1, 3 * TILE + 5), (3, TILE + 1), (700, 999)])
@pytest.mark.parametrize(
    ("scheme", "grid", "tables"),
    [
        (Scheme.AFFINE, IntegerGrid(-7, 7), {"scale": ()}),
        (Scheme.AFFINE, IntegerGrid(-8, 7), {"scale": (), "zero_point": ()}),
        (Scheme.POWERS, IntegerGrid(-7, 7), {"scale": ()}),
        (Scheme.CODEBOOK, IntegerGrid(-1, 1), {"codebook": (3,)}),
        (Scheme.PLANES, IntegerGrid(0, 7), {"coefficients": (3,)}),
    ],
)
def test_large_codes_are_decoded_as_their_scheme_says(scheme, grid, tables, shape):
    generator = torch.Generator().manual_seed(1)
    integers = torch.randint(grid.low, grid.high + 1, shape, generator=generator).to(grid.dtype)
    rows = {name: draw(shape[0], *more, seed=3) for name, more in tables.items()}
    if "zero_point" in rows:
        rows["zero_point"] = torch.randint(-8, 8, shape[:1], generator=generator).to(torch.int8)
    codes = Codes(integers, grid, rows, shape[0], scheme)
    assert np.array_equal(codes.decode().numpy(), numbers(codes))
