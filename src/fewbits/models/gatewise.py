"""An LSTM whose gates have matrices of their own, so that each can be quantized, and normalised, by itself."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fewbits.errors import FewbitsError
from fewbits.models.recurrent import lstm_step

GATES = "ifgo"  #: input, forget, cell and output gate, in the order in which nn.LSTM stacks them


class Normalisation(StrEnum):
    """What is done to W x and to U h before they are added (Hou et al. 2019)."""

    NONE = "none"
    WEIGHT = "weight"  #: each row of W and U has the length of a learned gain: g · w / ‖w‖₂
    LAYER = "layer"  #: W x and U h have mean 0 and variance 1 over the four gates, times a learned gain


class Backward(StrEnum):
    """Which weights the gradient passes through on its way to earlier steps and layers."""

    QUANTIZED = "quantized"  #: those of the forward pass
    FLOAT = "float"  #: the trained copies


class Step(NamedTuple):
    """One step of a layer."""

    gates: Tensor  #: i, f, g, o before their σ and tanh, (batch, 4 hidden)
    hidden: Tensor  #: h, (batch, hidden)
    cell: Tensor  #: c, (batch, hidden)


class GatewiseLSTM(nn.Module):
    """The LSTM ``lstm`` with the parameters ``weight_ih_l0_i``, ``weight_ih_l0_f`` … instead of ``weight_ih_l0`` ….

    It starts with the same numbers and returns the same: the four matrices are joined, normalised, and given to
    PyTorch's fused kernel. Only layer normalisation and a backward pass through float weights are computed step by
    step. Gains start so that the output of the float LSTM does not change (weight), or at 0.1 (layer; Ardakani et al.
    2019). A row of zeros stays one, and has the gradient of a row of length 1.

    Args:
        lstm: an LSTM of one direction, without a projection, with biases, time first.
        normalisation: of W x and U h.
        backward: which weights a quantized matrix has in the backward pass. The documents leave it open.

    Raises:
        FewbitsError: If ``lstm`` is of another kind.

    >>> gatewise = GatewiseLSTM(nn.LSTM(3, 2))
    >>> [name for name, _ in gatewise.named_parameters()][:4]
    ['weight_ih_l0_i', 'weight_ih_l0_f', 'weight_ih_l0_g', 'weight_ih_l0_o']
    """

    def __init__(
        self,
        lstm: nn.LSTM,
        normalisation: Normalisation = Normalisation.NONE,
        backward: Backward = Backward.QUANTIZED,
    ) -> None:
        super().__init__()
        if lstm.bidirectional or lstm.proj_size or lstm.batch_first or not lstm.bias:
            raise FewbitsError("give an nn.LSTM of one direction, with biases, time first and without a projection.")
        self.hidden_size, self.num_layers, self.dropout = lstm.hidden_size, lstm.num_layers, lstm.dropout
        self.normalisation, self.backward_weights = normalisation, backward
        for layer in range(lstm.num_layers):
            for side in ("ih", "hh"):
                matrix = getattr(lstm, f"weight_{side}_l{layer}").detach()
                for gate, part in zip(GATES, matrix.chunk(4), strict=True):
                    setattr(self, f"weight_{side}_l{layer}_{gate}", nn.Parameter(part.clone()))
                bias = getattr(lstm, f"bias_{side}_l{layer}").detach()
                setattr(self, f"bias_{side}_l{layer}", nn.Parameter(bias.clone()))
                if normalisation is not Normalisation.NONE:
                    lengths = torch.linalg.vector_norm(matrix, dim=1)
                    gain = lengths if normalisation is Normalisation.WEIGHT else torch.full_like(lengths, 0.1)
                    setattr(self, f"gain_{side}_l{layer}", nn.Parameter(gain))

    def matrix(self, side: str, layer: int) -> Tensor:
        """Return W ("ih") or U ("hh") of a layer as the forward pass uses it, (4 hidden, inputs)."""
        joined = torch.cat([getattr(self, f"weight_{side}_l{layer}_{gate}") for gate in GATES])
        return self._with_gain(joined, side, layer)

    def forward(
        self, inputs: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return hidden states (time, batch, hidden) and the last state, as ``nn.LSTM`` does."""
        if state is None:
            zeros = inputs.new_zeros(self.num_layers, inputs.shape[1], self.hidden_size)
            state = (zeros, zeros)
        if self.normalisation is Normalisation.LAYER or self.backward_weights is Backward.FLOAT:
            return self._step_by_step(inputs, state)
        weights = [
            each
            for layer in range(self.num_layers)
            for each in (
                self.matrix("ih", layer),
                self.matrix("hh", layer),
                getattr(self, f"bias_ih_l{layer}"),
                getattr(self, f"bias_hh_l{layer}"),
            )
        ]
        output, hidden, cell = torch.lstm(
            inputs, state, weights, True, self.num_layers, self.dropout, self.training, False, False
        )
        return output, (hidden, cell)

    def unrolled(self, inputs: Tensor, layer: int, hidden: Tensor, cell: Tensor) -> list[Step]:
        """Return every step of one layer, from hidden and cell state (batch, hidden) on."""
        from_input, fed_back = self._product("ih", layer), self._product("hh", layer)
        steps = []
        for given in from_input(inputs):
            gates = given + fed_back(hidden)
            hidden, cell = lstm_step(gates, cell)
            steps.append(Step(gates, hidden, cell))
        return steps

    def _step_by_step(self, inputs: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        ends = []
        for layer in range(self.num_layers):
            steps = self.unrolled(inputs, layer, state[0][layer], state[1][layer])
            ends.append((steps[-1].hidden, steps[-1].cell))
            inputs = torch.stack([step.hidden for step in steps])
            if layer + 1 < self.num_layers:
                inputs = F.dropout(inputs, self.dropout, self.training)
        hidden, cell = (torch.stack(parts) for parts in zip(*ends, strict=True))
        return inputs, (hidden, cell)

    def _product(self, side: str, layer: int) -> Callable[[Tensor], Tensor]:
        """Return x ↦ W x + b with what the settings ask for; the weights are read once."""
        used, bias = self.matrix(side, layer), getattr(self, f"bias_{side}_l{layer}")
        gain = getattr(self, f"gain_{side}_l{layer}") if self.normalisation is Normalisation.LAYER else None
        floats = None
        if self.backward_weights is Backward.FLOAT:
            copies = torch.cat([self._float(f"weight_{side}_l{layer}_{gate}") for gate in GATES])
            floats = self._with_gain(copies, side, layer).detach()

        def product(x: Tensor) -> Tensor:
            y = F.linear(x, used) if floats is None else _BackThrough.apply(x, used, floats)
            return y + bias if gain is None else F.layer_norm(y, gain.shape, gain, bias)  # type: ignore[no-any-return]

        return product

    def _float(self, name: str) -> Tensor:
        quantized = parametrize.is_parametrized(self, name)
        return self.get_parameter(f"parametrizations.{name}.original" if quantized else name)

    def _with_gain(self, joined: Tensor, side: str, layer: int) -> Tensor:
        if self.normalisation is not Normalisation.WEIGHT:
            return joined
        lengths: Tensor = torch.linalg.vector_norm(joined, dim=1, keepdim=True)
        gain: Tensor = getattr(self, f"gain_{side}_l{layer}")[:, None]
        return joined * (gain / lengths.where(lengths > 0, 1))


class _BackThrough(torch.autograd.Function):
    """x Wᵀ with W = ``used``; the gradient of x is that of x Fᵀ with F = ``floats``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, used: Tensor, floats: Tensor) -> Tensor:
        ctx.save_for_backward(x, floats)
        return F.linear(x, used)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        x, floats = ctx.saved_tensors
        to_weight = gradient.reshape(-1, gradient.shape[-1]).T @ x.reshape(-1, x.shape[-1])
        return gradient @ floats, to_weight, None
