"""The recurrent translator with attention of PyTorch's tutorial (2017–2022), for any batch and any classifier."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fewbits.classifiers.classifier import Classifier
from fewbits.errors import FewbitsError

PADDING = -1  #: what follows the end of a sentence in a batch; no word has this number


def padded(sentences: Sequence[Tensor]) -> Tensor:
    """Return ``sentences``, tensors (n,) of word numbers, as the rows of one int64 tensor, padded with ``PADDING``.

    Raises:
        FewbitsError: If there is no sentence, or one has no words.

    >>> padded([torch.tensor([5, 6, 1]), torch.tensor([1])]).tolist()
    [[5, 6, 1], [1, -1, -1]]
    """
    lengths = [len(sentence) for sentence in sentences]
    if not lengths or not min(lengths):
        wrong = f"sentence {lengths.index(0)} has no words" if lengths else "there are no sentences"
        raise FewbitsError(f"{wrong}; a batch needs one or more, each with at least the word that ends it.")
    batch = torch.full((len(lengths), max(lengths)), PADDING)
    for row, sentence in zip(batch, sentences, strict=True):
        row[: len(sentence)] = sentence
    return batch


class Encoder(nn.Module):
    """Embedding and one GRU layer that starts from zeros."""

    def __init__(self, vocabulary_size: int, hidden_size: int, max_length: int) -> None:
        super().__init__()
        self.max_length = max_length
        self.embedding = nn.Embedding(vocabulary_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return all outputs (batch, max_length, H), zero beyond each sentence, and the last state (batch, H).

        Raises:
            FewbitsError: If there are no sentences, or one is empty or longer than ``max_length``.
        """
        lengths = (source != PADDING).sum(1).cpu()
        wrong = lengths[(lengths < 1) | (lengths > self.max_length)].unique().tolist()
        if wrong or not len(lengths):
            what = f"sentences of {', '.join(map(str, wrong))} words" if wrong else "no sentences"
            raise FewbitsError(
                f"the batch has {what}; this model reads one or more sentences of 1 to {self.max_length} words each, "
                "the end included. Leave the others out."
            )
        embedded = self.embedding(source.clamp_min(0)).transpose(0, 1)
        outputs, last = self.gru(pack_padded_sequence(embedded, lengths, enforce_sorted=False))
        memory, _ = pad_packed_sequence(outputs, batch_first=True, total_length=self.max_length)
        return memory, last[0]


class DecoderState(NamedTuple):
    """What the decoder carries from word to word."""

    hidden: Tensor  #: (batch, H)
    memory: Tensor  #: outputs of the encoder, (batch, max_length, H)
    attention: Tensor  #: weights of the step that led here, (batch, max_length); zeros at the start


class AttentionDecoder(nn.Module):
    """One word at a time: a = softmax(A [e; h]), c = Σ_i a_i m_i, then GRU(ReLU(C [e; c]), h).

    e is the embedded word after dropout, h the state, m_1 … m_max_length the outputs of the encoder. The weights depend
    on position only, not on the m_i, and positions beyond the sentence, where m_i = 0, take their share of them.
    """

    def __init__(self, vocabulary_size: int, hidden_size: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, hidden_size)
        self.drop = nn.Dropout(dropout)
        self.attention = nn.Linear(2 * hidden_size, max_length)
        self.combine = nn.Linear(2 * hidden_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size)

    def forward(self, words: Tensor, state: DecoderState) -> DecoderState:
        """Return the state after ``words`` (batch,)."""
        embedded = self.drop(self.embedding(words))
        weights = F.softmax(self.attention(torch.cat([embedded, state.hidden], 1)), dim=1)
        context = torch.bmm(weights[:, None], state.memory)[:, 0]
        value = F.relu(self.combine(torch.cat([embedded, context], 1)))
        _, hidden = self.gru(value[None], state.hidden[None])
        return DecoderState(hidden[0], state.memory, weights)


class Seq2Seq(nn.Module):
    """A GRU encoder, a GRU decoder with attention, and a classifier over the words of the target language.

    Robertson, "Translation with a sequence to sequence network and attention" (PyTorch tutorials, 2017 to 2022); all
    vectors have the classifier's hidden size, 256 there. Weights start as PyTorch's modules do. Sentences are rows of
    int64 word numbers that end in <eos> and are padded with ``PADDING``; what the padding is does not change a number.

    >>> from fewbits.classifiers import Softmax
    >>> model = Seq2Seq(source_size=9, classifier=Softmax(hidden_size=4, vocabulary_size=7), sos=0, eos=1)
    >>> model(torch.tensor([[5, 6, 1], [8, 1, -1]]), torch.tensor([[3, 1], [2, 1]])).shape
    torch.Size([2, 2, 4])
    """

    def __init__(
        self,
        source_size: int,
        classifier: Classifier,
        *,
        sos: int,
        eos: int,
        dropout: float = 0.1,
        max_length: int = 10,
    ) -> None:
        """Build a model from words of a source language to those of the classifier.

        Args:
            source_size: words of the source language.
            classifier: owns the output matrix; its sizes are those of the decoder.
            sos: the target word that a translation starts after.
            eos: the target word that ends it.
            dropout: of the embedded target words.
            max_length: longest source sentence, <eos> included; the attention has a weight for each position.
        """
        super().__init__()
        hidden_size, target_size = classifier.hidden_size, classifier.vocabulary_size
        self.sos, self.eos = sos, eos
        self.encoder = Encoder(source_size, hidden_size, max_length)
        self.decoder = AttentionDecoder(target_size, hidden_size, max_length, dropout)
        self.classifier = classifier

    def start(self, source: Tensor) -> DecoderState:
        """Return the state before the first word of the translations of ``source`` (batch, length)."""
        memory, hidden = self.encoder(source)
        return DecoderState(hidden, memory, memory.new_zeros(memory.shape[:2]))

    def step(self, words: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Return what the classifier reads to predict the word after ``words`` (batch,), (batch, H), and the state."""
        state = self.decoder(words, state)
        return state.hidden, state

    def reorder(self, state: DecoderState, rows: Tensor) -> DecoderState:
        """Return the state of the given rows, in their order; a row may come several times."""
        return DecoderState(*(part[rows] for part in state))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Return the hidden states (batch, words, H) that predict each word of ``target`` from the words before it."""
        return self._read(source, target, teacher_forcing=True)[0]

    def attention(self, source: Tensor, target: Tensor) -> Tensor:
        """Return the attention weights (batch, words, max_length) while each word of ``target`` is predicted."""
        return torch.stack([state.attention for state in self._states(source, target)], dim=1)

    def loss(self, source: Tensor, target: Tensor, *, teacher_forcing: bool = True) -> Tensor:
        """Return the classifier's loss, summed over the words of a sentence, averaged over the sentences.

        With teacher forcing each word is predicted from the right words before it. Without, from the model's own best
        words; as in the tutorial, words after its own <eos> are not counted. The gradient does not pass through the
        choice of a word.
        """
        hidden, counted = self._read(source, target, teacher_forcing=teacher_forcing)
        wanted = target[:, : hidden.shape[1]]
        return self.classifier.loss(hidden[counted], wanted[counted]) * (counted.sum() / len(target))

    def _read(self, source: Tensor, target: Tensor, *, teacher_forcing: bool) -> tuple[Tensor, Tensor]:
        """Return the hidden state before each word of ``target`` and whether that word counts."""
        if teacher_forcing:
            hidden = torch.stack([state.hidden for state in self._states(source, target)], dim=1)
            return hidden, target != PADDING
        state, words = self.start(source), target.new_full((len(target),), self.sos)
        read, counted, open_ = [], [], torch.ones_like(words, dtype=torch.bool)
        for wanted in target.unbind(1):
            hidden, state = self.step(words, state)
            read.append(hidden)
            counted.append(open_ & (wanted != PADDING))
            words = self._choice(hidden)
            open_ = open_ & (words != self.eos)
            if not open_.any():
                break
        return torch.stack(read, dim=1), torch.stack(counted, dim=1)

    def _states(self, source: Tensor, target: Tensor) -> list[DecoderState]:
        first = target.new_full((len(target), 1), self.sos)
        states = [self.start(source)]
        for words in torch.cat([first, target[:, :-1].clamp_min(0)], dim=1).unbind(1):
            states.append(self.decoder(words, states[-1]))
        return states[1:]

    @torch.no_grad()
    def _choice(self, hidden: Tensor) -> Tensor:
        return self.classifier.scores(hidden).argmax(-1)
