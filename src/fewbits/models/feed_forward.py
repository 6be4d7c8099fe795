"""The feed-forward language model: a fixed number of words in, one hidden layer, the next word out."""

import torch
from torch import Tensor, nn

from fewbits.errors import FewbitsError


class FeedForwardBody(nn.Module):
    """h_t = tanh(d + H [e(w_{t−n+2}), …, e(w_t)]): an n-gram model with shared embeddings e (Bengio et al. 2003).

    The context of n − 1 words moves on by one word a step; words before the text are zero vectors. Embedding weights
    start uniform in ±0.1. There are no direct connections from the embeddings to the output.

    Raises:
        FewbitsError: If ``order`` is below 2.
    """

    def __init__(self, vocabulary_size: int, embedding_size: int, hidden_size: int, order: int = 5) -> None:
        super().__init__()
        if order < 2:
            raise FewbitsError(f"order is {order}; an n-gram model reads n − 1 words, so give 2 or more.")
        self.hidden_size, self.order = hidden_size, order
        self.embedding = nn.Embedding(vocabulary_size + 1, embedding_size, padding_idx=vocabulary_size)
        self.hidden = nn.Linear((order - 1) * embedding_size, hidden_size)
        with torch.no_grad():
            self.embedding.weight[:-1].uniform_(-0.1, 0.1)

    def forward(self, words: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return hidden states (time, batch, H) for ``words`` (time, batch), and the last n − 2 words as the state."""
        if state is None:
            state = words.new_full((self.order - 2, words.shape[1]), self.embedding.num_embeddings - 1)
        text = torch.cat([state, words])
        contexts = self.embedding(text).unfold(0, self.order - 1, 1)  # (time, batch, E, n − 1)
        hidden = torch.tanh(self.hidden(contexts.transpose(-1, -2).flatten(-2)))
        return hidden, text[len(words) :]
