"""How an LSTM starts: the numbers that its weights, biases and gains have before the first step."""

from enum import StrEnum

import torch
from torch import nn

from fewbits.models import GatewiseLSTM


class Initialiser(StrEnum):
    """How the LSTM starts."""

    PYTORCH = "pytorch"  #: uniform in ±1/√hidden, or ±``initial_range``
    #: W uniform with variance 2 / (inputs + 4 hidden), U orthogonal, biases 0 but 1 for the forget gate
    KERAS = "keras"


def start_as_keras(lstm: nn.LSTM) -> None:
    """Give ``lstm`` the start of :attr:`Initialiser.KERAS`, in place."""
    with torch.no_grad():
        for name, parameter in lstm.named_parameters():
            if "weight_ih" in name:
                nn.init.xavier_uniform_(parameter)
            elif "weight_hh" in name:
                nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)
                if "bias_ih" in name:
                    parameter[lstm.hidden_size : 2 * lstm.hidden_size] = 1


def usual_gains(lstm: GatewiseLSTM, initial_range: float) -> None:
    """Give the gains the size that they have after the usual start, whatever the range of the weights."""
    with torch.no_grad():
        for name, parameter in lstm.named_parameters():
            if name.startswith("gain"):
                parameter.div_(initial_range * lstm.hidden_size**0.5)
