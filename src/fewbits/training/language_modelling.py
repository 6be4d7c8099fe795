"""Language modelling as a task: windows of text, a state carried from one to the next."""

from typing import Any

import torch
from torch import Tensor

from fewbits.data import Corpus, contiguous
from fewbits.evaluation.perplexity import mean_nll
from fewbits.models.language_model import LanguageModel
from fewbits.models.recurrent import State


class LanguageModelling:
    """Truncated backpropagation through time: ``batch_size`` streams of text in windows of ``length`` words."""

    def __init__(self, model: LanguageModel, corpus: Corpus, *, batch_size: int = 20, length: int = 35) -> None:
        self.model, self.corpus, self.length = model, corpus, length
        self.text = contiguous(corpus.train, batch_size)
        self.recurrent: State | None = None

    @property
    def steps(self) -> int:
        """Windows an epoch."""
        return -(-(len(self.text) - 1) // self.length)

    def loss(self, step: int) -> Tensor:
        """Return the mean loss of window ``step``; the state comes from the window before, without its gradient."""
        device = next(self.model.parameters()).device
        start = step * self.length
        window = self.text[start : start + self.length + 1].to(device, torch.long)
        state = None if step == 0 or self.recurrent is None else _detached(self.recurrent)
        loss, self.recurrent = self.model.loss(window[:-1], window[1:], state)
        return loss

    def validate(self) -> float:
        """Return the mean −log p of the validation text in nats."""
        return mean_nll(self.model, self.corpus.valid, first=self.corpus.vocabulary.eos)

    def state(self) -> Any:
        """Return the recurrent state."""
        return None if self.recurrent is None else _detached(self.recurrent)

    def restore(self, state: Any) -> None:
        """Take the recurrent state."""
        self.recurrent = state


def _detached(state: State) -> State:
    return state.detach() if isinstance(state, Tensor) else (state[0].detach(), state[1].detach())
