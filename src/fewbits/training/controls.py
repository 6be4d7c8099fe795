"""Controls: what of a quantizer's effect is noise, and what is its pattern of zeros."""

from collections.abc import Mapping
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fewbits.patterns import choose
from fewbits.quantize import sites
from fewbits.quantizers.quantizer import Quantizer


class Control(StrEnum):
    """What a weight w becomes instead of its quantized value q(w)."""

    #: in training w + ε with independent normal ε of the size of the error, √mean (q(w) − w)²; in evaluation w
    NOISE = "noise"
    MASK = "mask"  #: w where q(w) ≠ 0, else 0; the gradient passes to every w


def control(model: nn.Module, weights: Mapping[str, Quantizer], kind: Control) -> nn.Module:
    """Put a control in the place of quantizers, in place, and return ``model``.

    Args:
        model: as for :func:`fewbits.quantize.quantize`; a weight that is used by several modules is not followed.
        weights: quantizer for each pattern of parameter names; it says how large the noise is, or where zeros are.
        kind: which control.

    Raises:
        FewbitsError: If a pattern matches nothing, or two match one weight.
    """
    known = sites(model)
    for name, quantizer in choose(known, weights, "parameter").items():
        module, attribute = known[name]
        parametrize.register_parametrization(module, attribute, _Controlled(quantizer, kind))
    return model


class _Controlled(nn.Module):
    def __init__(self, quantizer: Quantizer, kind: Control) -> None:
        super().__init__()
        self.quantizer, self.kind = quantizer, kind

    def forward(self, weight: Tensor) -> Tensor:
        codes = self.quantizer.encode(weight)
        if self.kind is Control.MASK:
            kept = weight.detach() * (codes.integers != 0)
            return weight + (kept - weight.detach())
        if not self.training:
            return weight
        size = (codes.decode() - weight.detach()).square().mean().sqrt()
        return weight + size * torch.randn_like(weight)
