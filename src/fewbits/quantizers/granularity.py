"""Granularity: how many weights share one scale.

Each granularity cuts a tensor into equal runs of its elements in row-major order and says only how many there are.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Size

from fewbits.errors import FewbitsError
from fewbits.quantizers.settings import Settings


@runtime_checkable
class Granularity(Protocol):
    """Anything that says into how many equal runs a shape is cut."""

    def groups(self, shape: Size) -> int:
        """Return the number of runs; every run has ``shape.numel() / groups`` elements."""


@dataclass(frozen=True)
class PerTensor(Settings):
    """One table entry for the whole tensor: shape (800, 200) → 1."""

    def groups(self, shape: Size) -> int:
        """Return 1."""
        return 1


@dataclass(frozen=True)
class PerRow(Settings):
    """One entry a row, the first dimension: (800, 200) → 800; a convolution (64, 3, 3, 3) → 64 filters."""

    def groups(self, shape: Size) -> int:
        """Return the first dimension (1 for a scalar)."""
        return max(shape[0], 1) if shape else 1


@dataclass(frozen=True)
class PerGroup(Settings):
    """One entry for ``size`` neighbours along the last dimension: PerGroup(50) on (800, 200) → 3200.

    Raises:
        FewbitsError: If ``size`` is below 1, or does not divide the last dimension.
    """

    size: int

    def __post_init__(self) -> None:
        """Refuse a group without a member."""
        super().__post_init__()
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
class PerGate(Settings):
    """One entry a gate of a recurrent matrix: nn.LSTM stacks input, forget, cell, output: (800, 200) → 4.

    Raises:
        FewbitsError: If ``gates`` is below 1, or the first dimension is no multiple of it.
    """

    gates: int = 4  #: 4 for an LSTM, 3 for a GRU

    def __post_init__(self) -> None:
        """Refuse a matrix without gates."""
        super().__post_init__()
        if self.gates < 1:
            raise FewbitsError(f"PerGate({self.gates}): there is at least one gate; an LSTM has 4, a GRU 3.")

    def groups(self, shape: Size) -> int:
        """Return ``gates``."""
        if not shape or shape[0] % self.gates:
            raise FewbitsError(f"PerGate({self.gates}) needs {self.gates} equal blocks of rows, not {tuple(shape)}.")
        return self.gates
