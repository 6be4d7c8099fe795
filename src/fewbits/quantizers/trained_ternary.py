"""Trained ternary quantization: −n, 0 and +p with two scales that training learns."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes, Scheme
from fewbits.quantizers.estimators import passed
from fewbits.quantizers.granularity import Granularity, PerTensor
from fewbits.quantizers.quantizer import Quantizer
from fewbits.quantizers.ternary import GRID


@dataclass(frozen=True)
class TTQ(Quantizer):
    """−n where w < −Δ, +p where w > Δ, else 0, with Δ = t · max |w| and learned scales n and p (Zhu et al. 2017).

    Both scales start as the mean |w| of their side. The gradient of a scale is the sum over the weights that use it,
    with the sign of the chain rule: Σ ∂L/∂q over the positive codes for p, −Σ ∂L/∂q over the negative ones for n. (As
    printed there is no minus, which would train n the wrong way.) The gradient of a weight is ∂L/∂q times n, 1 or p, by
    its code. ``quantize`` makes a parameter of the scales, (g, 2), n first. 2 bits a weight and 3 numbers a group.

    >>> w, scales = torch.tensor([-0.9, 0.01, 0.4, 0.6]), torch.tensor([[2.0, 3.0]], requires_grad=True)
    >>> TTQ()(w), TTQ()(w, learned=scales).detach()
    (tensor([-0.9000,  0.0000,  0.5000,  0.5000]), tensor([-2.,  0.,  3.,  3.]))
    >>> TTQ()(w, learned=scales).sum().backward()
    >>> scales.grad                                                                # one weight uses n, two use p
    tensor([[-1.,  2.]])

    Raises:
        FewbitsError: If t is not from 0 to below 1.
    """

    threshold: float = 0.05  #: the paper's t
    granularity: Granularity = PerTensor()

    def __post_init__(self) -> None:
        """Refuse a threshold that no weight, or every weight, passes."""
        super().__post_init__()
        if not 0 <= self.threshold < 1:
            raise FewbitsError(f"TTQ({self.threshold!r}): the threshold t is at least 0 and below 1.")

    def learned(self, weight: Tensor) -> Tensor:
        """Return the scales n and p of each group as they are at first, (g, 2)."""
        low, _, high = self.encode(weight).tables["codebook"].unbind(1)
        return torch.stack([-low, high], dim=1)

    def _encode(
        self, rows: Tensor, shape: torch.Size, importance: Tensor | None, generator: torch.Generator | None
    ) -> Codes:
        magnitude = rows.abs()
        largest = magnitude.amax(1, keepdim=True) if rows.numel() else rows.new_zeros(len(rows), 1)
        sides = [(rows < 0) & (magnitude > self.threshold * largest), rows > self.threshold * largest]
        wide = torch.promote_types(rows.dtype, torch.float32)  # float16 has no room for the sum
        first = [((magnitude * side).sum(1, dtype=wide) / side.sum(1).clamp_min(1)).to(rows.dtype) for side in sides]
        integers = (sides[1].to(GRID.dtype) - sides[0].to(GRID.dtype)).reshape(shape)
        tables = self._tables(torch.stack(first, dim=1))
        return Codes(integers, GRID, tables, len(rows), Scheme.CODEBOOK, rows.dtype)

    def _tables(self, learned: Tensor) -> dict[str, Tensor]:
        return {"codebook": torch.stack([-learned[:, 0], torch.zeros_like(learned[:, 0]), learned[:, 1]], dim=1)}

    def estimator(self, weight: Tensor, codes: Codes) -> Tensor:
        """Return the value; the gradient for ``weight`` is multiplied by the size of its code, or 1 for a 0."""
        value = codes.decode().detach().abs()
        return passed(weight, codes, torch.where(codes.integers == 0, torch.ones_like(value), value))
