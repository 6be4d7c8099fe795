"""Granularity: how many weights share one scale.

Each granularity cuts a tensor into equal runs of its elements in row-major order and says only how many there are.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Size

from fewbits.errors import FewbitsError


class Granularity(Protocol):
    """Anything that says into how many equal runs a shape is cut."""

    def groups(self, shape: Size) -> int:
        """Return the number of runs; every run has ``shape.numel() / groups`` elements."""


@dataclass(frozen=True)
class PerTensor:
    """One table entry for the whole tensor: shape (800, 200) → 1."""

    def groups(self, shape: Size) -> int:
        """Return 1."""
        return 1


@dataclass(frozen=True)
class PerRow:
    """One entry a row, the first dimension: (800, 200) → 800; a convolution (64, 3, 3, 3) → 64 filters."""

    def groups(self, shape: Size) -> int:
        """Return the first dimension (1 for a scalar)."""
        return max(shape[0], 1) if shape else 1


@dataclass(frozen=True)
class PerGroup:
    """One entry for ``size`` neighbours in a row: PerGroup(50) on (800, 200) → 3200.

    Raises:
        FewbitsError: If ``size`` is below 1, or does not divide the length of a row.
    """

    size: int

    def __post_init__(self) -> None:
        """Refuse a group without a member."""
        if self.size < 1:
            raise FewbitsError(f"PerGroup({self.size}): a group has at least one weight.")

    def groups(self, shape: Size) -> int:
        """Return elements / size."""
        row = shape[-1] if shape else 1
        if row % self.size:
            divisors = [d for d in range(1, row + 1) if row % d == 0]
            raise FewbitsError(f"PerGroup({self.size}) does not divide rows of {row} weights; these do: {divisors}.")
        return max(shape.numel() // self.size, 1)


@dataclass(frozen=True)
class PerGate:
    """One entry a gate of a recurrent matrix: nn.LSTM stacks input, forget, cell, output: (800, 200) → 4.

    Raises:
        FewbitsError: If the first dimension is no multiple of ``gates``.
    """

    gates: int = 4  #: 4 for an LSTM, 3 for a GRU

    def groups(self, shape: Size) -> int:
        """Return ``gates``."""
        if not shape or shape[0] % self.gates:
            raise FewbitsError(f"PerGate({self.gates}) needs {self.gates} equal blocks of rows, not {tuple(shape)}.")
        return self.gates
