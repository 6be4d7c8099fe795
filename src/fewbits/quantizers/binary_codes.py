"""Multi-bit binary codes: a weight is a sum of k signs, each with its coefficient."""

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes, IntegerGrid, Scheme
from fewbits.formats.tiles import blocks, tiles, tilewise
from fewbits.quantizers.estimators import Estimator, StraightThrough
from fewbits.quantizers.granularity import Granularity, PerRow
from fewbits.quantizers.nearest import boundaries
from fewbits.quantizers.quantizer import Quantizer

MOST_BITS = 4

_BLOCK = 2**19  #: numbers solved at once: fewer cost more calls than the cache saves


class Solver(Enum):
    """How signs and coefficients are found; each starts with what the one before it does."""

    GREEDY = "greedy"  #: one after another: b_i = sign(r), α_i = mean |r|, r ← r − α_i b_i (Guo et al. 2017)
    REFINED = "refined"  #: after each new b_i all α so far are solved anew by least squares (Guo et al. 2017)
    ALTERNATING = "alternating"  #: in turn α by least squares and each weight to its nearest sum (Xu et al. 2018)

    __repr__ = Enum.__str__


@dataclass(frozen=True)
class BinaryCodes(Quantizer):
    """w ≈ Σ_{i ≤ k} α_i b_i with b_i = ±1: k bits a weight and k coefficients a group.

    Alternating starts from greedy and makes ``cycles`` rounds of (a) α = (BᵀB)⁻¹ Bᵀ w, (b) for these α each weight
    takes the nearest of the 2^k sums (Xu et al. 2018, who take 2 rounds and rows as groups). Neither step can raise the
    squared error. Equal planes make BᵀB singular; the smallest solution is taken then. Bit i of a code is 1 where
    b_i = +1; a sum between two others goes to the lower one.

    >>> w = torch.tensor([[1.0, 2.0, 3.0, -10.0]])
    >>> greedy, alternating = (BinaryCodes(2, solver).encode(w) for solver in (Solver.GREEDY, Solver.ALTERNATING))
    >>> greedy.tables["coefficients"], greedy.integers.tolist()          # mean |w|, then the mean of what is left
    (tensor([[4., 3.]]), [[1, 1, 1, 0]])
    >>> alternating.tables["coefficients"], alternating.decode()
    (tensor([[6., 4.]]), tensor([[  2.,   2.,   2., -10.]]))

    Raises:
        FewbitsError: If bits is not a whole number from 1 to 4, or there are fewer than 0 cycles; or if the largest sum
            of the coefficients overflows.
    """

    bits: int
    solver: Solver = Solver.ALTERNATING
    cycles: int = 2
    granularity: Granularity = PerRow()
    estimator: Estimator = StraightThrough()

    def __post_init__(self) -> None:
        """Refuse widths without codes."""
        super().__post_init__()
        if not 1 <= self.bits <= MOST_BITS:
            raise FewbitsError(f"BinaryCodes({self.bits!r}): bits is a whole number from 1 to {MOST_BITS}.")
        if self.cycles < 0:
            raise FewbitsError(f"BinaryCodes(cycles={self.cycles!r}): cycles is a whole number of at least 0.")

    def _encode(
        self, rows: Tensor, shape: torch.Size, importance: Tensor | None, generator: torch.Generator | None
    ) -> Codes:
        grid = IntegerGrid(0, 2**self.bits - 1)
        if not rows.numel():
            tables = {"coefficients": rows.new_zeros(len(rows), self.bits)}
            return Codes(rows.to(grid.dtype).reshape(shape), grid, tables, len(rows), Scheme.PLANES, rows.dtype)
        found, known = zip(*map(self._solved, blocks(rows, _BLOCK)), strict=True)
        codes, coefficients = torch.cat(found), torch.cat(known)
        if not coefficients.abs().sum(1).isfinite().all():
            raise FewbitsError(f"a sum of coefficients overflows {rows.dtype}: the weights are too large.")
        tables = {"coefficients": coefficients}
        return Codes(codes.view(grid.dtype).reshape(shape), grid, tables, len(rows), Scheme.PLANES, rows.dtype)

    def _solved(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        codes, coefficients = _greedy(rows, self.bits, refined=self.solver is Solver.REFINED)
        for _ in range(self.cycles if self.solver is Solver.ALTERNATING else 0):
            coefficients = _least_squares(rows, codes, self.bits)
            codes = _assigned(rows, coefficients)
        return codes, coefficients


def _greedy(rows: Tensor, bits: int, *, refined: bool) -> tuple[Tensor, Tensor]:
    """Return codes (g, n), uint8, and coefficients (g, k)."""
    codes = torch.zeros(rows.shape, dtype=torch.uint8, device=rows.device)
    coefficients = rows.new_zeros(len(rows), 0)
    rest = rows
    for bit in range(bits):
        step = rest.abs().mean(1, keepdim=True)
        signs = torch.ge(rest, 0, out=torch.empty_like(rest))  # booleans would take four times as long
        codes |= signs.to(torch.uint8) << bit
        rest = torch.sub(rest, signs.mul_(2).sub_(1).mul_(step), out=signs)
        coefficients = torch.cat([coefficients, step], dim=1)
        if refined:
            coefficients = _least_squares(rows, codes, bit + 1)
            rest = torch.sub(rows, _decoded(codes, coefficients), out=rest)
    return codes, coefficients


def _least_squares(rows: Tensor, codes: Tensor, bits: int) -> Tensor:
    """Return the coefficients (g, bits) that are nearest to ``rows`` for the given signs."""
    gram = rows.new_full((len(rows), bits, bits), rows.shape[1], dtype=torch.float64)
    towards = rows.new_empty(len(rows), bits, dtype=torch.float64)
    wide = rows.to(torch.float64, copy=True)
    total = wide.sum(1)
    for i in range(bits):
        for g, n in tiles(rows):
            positive = codes[g, n] >> i & 1
            wide[g, n] = positive.to(rows.dtype).mul_(rows[g, n])
            for j in range(i):
                gram[g, i, j] -= 2 * (positive ^ codes[g, n] >> j & 1).sum(1)
        towards[:, i] = 2 * wide.sum(1) - total
        gram[:, :i, i] = gram[:, i, :i]
    return _smallest_solution(gram, towards[..., None]).squeeze(-1).to(rows.dtype)


def _smallest_solution(gram: Tensor, towards: Tensor) -> Tensor:
    """Return the x of least norm with ``gram`` x = ``towards``, for BᵀB of at most 4 columns of signs.

    A column that depends on no others has a squared distance of at least 1 from what they span: 4 independent rows of
    signs alone have a determinant of at least 8, and that of three of their columns squared is at most 64.
    """
    factor, failed = torch.linalg.cholesky_ex(gram)
    dependent = (failed > 0) | (factor.diagonal(dim1=1, dim2=2).amin(1) < 0.5)
    solution = torch.cholesky_solve(towards, factor)
    if dependent.any():
        # The smallest eigenvalue that is not 0 is some 1 / (k n) of the largest, k n < 10^10; the others are of 10^-15.
        solution[dependent] = torch.linalg.pinv(gram[dependent], rtol=1e-11, hermitian=True) @ towards[dependent]
    return solution


def _decoded(codes: Tensor, coefficients: Tensor) -> Tensor:
    """Return the sums that the codes stand for, rounding included."""
    groups, bits = coefficients.shape
    tables = {"coefficients": coefficients}
    return Codes(codes, IntegerGrid(0, 2**bits - 1), tables, groups, Scheme.PLANES, coefficients.dtype).decode()


def _assigned(rows: Tensor, coefficients: Tensor) -> Tensor:
    """Return the code of the nearest sum of each weight."""
    bits = coefficients.shape[1]
    every = torch.arange(2**bits, dtype=torch.uint8, device=rows.device).expand(len(rows), -1)
    levels, order = _decoded(every, coefficients).sort(dim=1, stable=True)
    return tilewise(_codes_between, torch.uint8, rows, boundaries(levels), order.to(rows.dtype))


def _codes_between(rows: Tensor, between: Tensor, order: Tensor) -> Tensor:
    """Return the first code of ``order``, or the one after the last boundary that a number exceeds."""
    codes, exceeds = order[:, :1].expand_as(rows).clone(), torch.empty_like(rows)
    for boundary, change in zip(between.unbind(1), order.diff(dim=1).unbind(1), strict=True):
        codes.addcmul_(torch.gt(rows, boundary[:, None], out=exceeds), change[:, None])
    return codes
