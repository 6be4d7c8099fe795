"""How an LSTM behaves in time: norms of its recurrent matrices, saturated gates, the reach of gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.evaluation.perplexity import evaluating
from fewbits.models import GatewiseLSTM, LanguageModel
from fewbits.models.gatewise import GATES

SATURATED = 0.05  #: a gate is saturated below this, and above 1 minus this


@dataclass(frozen=True)
class Dynamics:
    """What :func:`dynamics` measures."""

    spectral_norms: dict[str, float]  #: largest ‖U‖₂ of each gate over the layers, as the forward pass uses U
    saturated: dict[str, float]  #: share of each gate's values, over layers, that are saturated
    gradient_norms: list[float]  #: 0, 1, 2, … steps back: ‖∂L/∂(h, c)‖₂ of the last layer, median over the streams


def dynamics(model: LanguageModel, words: Tensor) -> Dynamics:
    """Measure ``model`` on ``words`` (T + 1, streams) from a zero state; dropout is off, quantizers are deterministic.

    L = −log p(last word) of one stream. h and c are what one step hands to the next, so each step back multiplies the
    gradient by the step's Jacobian: again and again by more than 1 it explodes, by less than 1 it vanishes.
    A gate's value is σ of it for i, f and o: saturated below 0.05 and above 0.95; tanh for g: beyond ±0.95.

    Raises:
        FewbitsError: If the model's body has no LSTM, or there are fewer than two words.
    """
    if len(words) < 2:
        raise FewbitsError(f"{len(words)} words a stream; give at least two, one to read and one to predict.")
    rnn = model.body.rnn
    if not isinstance(rnn, nn.LSTM | GatewiseLSTM):
        raise FewbitsError(f"the dynamics are those of an LSTM, and this model has a {type(rnn).__name__}.")
    with evaluating(model), torch.enable_grad():
        lstm = rnn if isinstance(rnn, GatewiseLSTM) else GatewiseLSTM(rnn).eval()
        words = words.to(next(model.parameters()).device, torch.long)
        inputs = model.body.embedding(words[:-1])  # type: ignore[operator]
        zeros = inputs.new_zeros(inputs.shape[1], lstm.hidden_size)
        gates, states = [], []
        for layer in range(lstm.num_layers):
            hidden = cell = zeros
            steps = []
            for x in inputs:
                (step,) = lstm.unrolled(x[None], layer, hidden, cell)
                hidden, cell = step.hidden.clone(), step.cell.clone()  # the state: h and c apart from each other
                steps.append(step)
                states.append((hidden, cell))
            gates.append(torch.stack([step.gates for step in steps]).detach())
            inputs = torch.stack([step.hidden for step in steps]).detach()
        last = states[-len(words) + 1 :]
        loss = model.classifier.nll(last[-1][0], words[-1]).sum()
        found = torch.autograd.grad(loss, [part for state in last for part in state], allow_unused=True)
    norms = [
        torch.cat([part for part in pair if part is not None], dim=1).norm(dim=1).median().item()
        for pair in zip(found[::2], found[1::2], strict=True)
    ]
    return Dynamics(_norms(lstm), _saturated(torch.stack(gates)), norms[::-1])


def _norms(lstm: GatewiseLSTM) -> dict[str, float]:
    with torch.no_grad():
        blocks = torch.stack([torch.stack(lstm.matrix("hh", layer).chunk(4)) for layer in range(lstm.num_layers)])
        largest = torch.linalg.matrix_norm(blocks.double(), 2).amax(dim=0)
    return dict(zip(GATES, largest.tolist(), strict=True))


def _saturated(gates: Tensor) -> dict[str, float]:
    shares = {}
    for gate, values in zip(GATES, gates.chunk(4, dim=-1), strict=True):
        reach = values.tanh().abs() if gate == "g" else (2 * values.sigmoid() - 1).abs()
        bound = 1 - SATURATED if gate == "g" else 1 - 2 * SATURATED
        shares[gate] = float((reach > bound).double().mean())
    return shares
