"""The convolutional translator ConvS2S (Gehring et al. 2017), with what its convolutions keep from word to word."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from fewbits.classifiers.classifier import Classifier
from fewbits.errors import FewbitsError
from fewbits.models.translator import Translator, words_of

Convolutions = Sequence[tuple[int, int]]  # channels and kernel width of each layer

_HALF = math.sqrt(0.5)  # keeps the variance of a sum of two


class Memory(NamedTuple):
    """What attention looks at, a row for each hypothesis."""

    keys: Tensor  #: outputs of the encoder, (rows, length, E)
    values: Tensor  #: √½ · (these + the embedded source words), (rows, length, E)
    visible: Tensor  #: which source words are words, (rows, length)


class DecoderState(NamedTuple):
    """What the decoder carries from word to word."""

    before: tuple[Tensor, ...]  #: the last k − 1 inputs of each convolution, (rows, k − 1, channels)
    memory: Memory
    read: int  #: words that were read, the same number in all rows


class GatedConvolution(nn.Module):
    """GLU(W * x + b) = a ⊗ σ(g), where the first half of the outputs of the convolution is a and the second g."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(inputs, 2 * outputs, kernel)
        self.kernel = kernel
        _normalised(self.convolution, math.sqrt(4 * (1 - dropout) / (kernel * inputs)))

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, length, outputs) for ``x`` (batch, length + k − 1, inputs)."""
        # A product with unfolded windows: for one word at a time it is faster than a call of a convolution.
        windows = x.unfold(1, self.kernel, 1).flatten(2)
        return F.glu(F.linear(windows, self.convolution.weight.flatten(1), self.convolution.bias), dim=-1)


class EncoderLayer(nn.Module):
    """x ← √½ · (GLU(W * x + b) + P x), the windows centred; P is the identity where the width stays the same."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.gated = GatedConvolution(inputs, outputs, kernel, dropout)
        self.residual = nn.Identity() if inputs == outputs else _linear(inputs, outputs)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        """Return the next (batch, length, outputs); what is not in ``words`` (batch, length) is read as zeros."""
        kernel = self.gated.kernel
        read = self.drop(x.masked_fill(~words[..., None], 0))
        padded = F.pad(read, (0, 0, (kernel - 1) // 2, kernel // 2))
        found: Tensor = self.gated(padded) + self.residual(x)
        return found * _HALF


class DecoderLayer(nn.Module):
    """The same with windows that end at the word, and attention after the convolution.

    y = GLU(W * x + b), q = √½ · (Q y + e) with the embedded word e, c = √n Σ_i softmax_i(q · key_i) value_i over the n
    source words, x ← √½ · (√½ · (y + C c) + P x).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, embedding_size: int, dropout: float) -> None:
        super().__init__()
        self.gated = GatedConvolution(inputs, outputs, kernel, dropout)
        self.residual = nn.Identity() if inputs == outputs else _linear(inputs, outputs)
        self.query, self.context = _linear(outputs, embedding_size), _linear(embedding_size, outputs)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, embedded: Tensor, before: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Return the next (rows, length, outputs) and the last k − 1 inputs of the convolution."""
        seen = torch.cat([before, self.drop(x)], dim=1)
        attended = self._attended(self.gated(seen), embedded, memory)
        return (attended + self.residual(x)) * _HALF, seen[:, seen.shape[1] - self.gated.kernel + 1 :]

    def _attended(self, y: Tensor, embedded: Tensor, memory: Memory) -> Tensor:
        query = (self.query(y) + embedded) * _HALF
        scores = torch.bmm(query, memory.keys.transpose(1, 2)).masked_fill(~memory.visible[:, None], -math.inf)
        length = memory.visible.sum(1)[:, None, None].to(scores.dtype)
        found = torch.bmm(F.softmax(scores, dim=-1), memory.values) * length.sqrt()
        attended: Tensor = (self.context(found) + y) * _HALF
        return attended


class Side(nn.Module):
    """Embeddings of words and positions, a linear map into the first layer, the layers, a linear map out of them."""

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        layers: Sequence[nn.Module],
        ends: tuple[int, int],
        output_size: int,
        max_length: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embedding, self.positions = (nn.Embedding(n, embedding_size) for n in (vocabulary_size, max_length))
        for embedding in (self.embedding, self.positions):
            nn.init.normal_(embedding.weight, std=0.1)
        self.drop = nn.Dropout(dropout)
        self.widen = _linear(embedding_size, ends[0], dropout)
        self.layers = nn.ModuleList(layers)
        self.narrow = _linear(ends[1], output_size)

    def embedded(self, words: Tensor, before: int) -> Tensor:
        """Return the embedded ``words`` (rows, length) after ``before`` others, (rows, length, E).

        Raises:
            FewbitsError: If there are more words than positions.
        """
        most, last = self.positions.num_embeddings, before + words.shape[1]
        if last > most:
            raise FewbitsError(
                f"a sentence has {last} words or more; this model has learned positions for {most}, the end included. "
                "Leave longer sentences out, and search for no longer ones."
            )
        positions = self.positions(torch.arange(before, last, device=words.device))
        embedded: Tensor = self.drop(self.embedding(words) + positions)
        return embedded


class ConvSeq2Seq(Translator[DecoderState]):
    """Encoder and decoder of gated convolutions, attention in each decoder layer, and a classifier.

    "Convolutional sequence to sequence learning", Gehring et al. 2017, as fairseq builds it (``fconv``). Every matrix
    and every kernel but those of embeddings and classifier is w = g v / ‖v‖, with one g for each output. Kernels start
    as N(0, 4 (1 − p) / (k · inputs)) with the dropout p, matrices as N(0, 1 / inputs), that of the embedded words as
    N(0, (1 − p) / inputs), biases as 0, embeddings as N(0, 0.01); the classifier as it is. The gradient of the encoder
    is divided by twice the number of attentions that read it.

    The classifier's hidden size is the width of the linear map before the output matrix. What the padding is does not
    change a number beyond rounding.

    >>> from fewbits.classifiers import Softmax
    >>> model = ConvSeq2Seq(9, Softmax(hidden_size=4, vocabulary_size=7), sos=0, eos=1, embedding_size=6)
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
        embedding_size: int = 128,
        encoder: Convolutions = ((128, 3),) * 4,
        decoder: Convolutions = ((128, 3),) * 3,
        dropout: float = 0.2,
        max_length: int = 1024,
    ) -> None:
        """Build a model from words of a source language to those of the classifier.

        Args:
            source_size: words of the source language.
            classifier: owns the output matrix.
            sos: the target word that a translation starts after.
            eos: the target word that ends it.
            embedding_size: E, of the words and positions of both sides.
            encoder: channels and kernel width of each layer over the source words.
            decoder: channels and kernel width of each layer over the target words.
            dropout: of the embedded words, of what each convolution reads, and of what the classifier reads.
            max_length: most words of a sentence, <eos> included; positions are learned.

        Raises:
            FewbitsError: If a side has no layers, or a layer no channels or a kernel of no width.
        """
        super().__init__(sos, eos)
        if not encoder or not decoder or min(min(layer) for layer in (*encoder, *decoder)) < 1:
            raise FewbitsError(
                f"an encoder of {list(encoder)} and a decoder of {list(decoder)} do not translate; each has one layer "
                "(channels, kernel) or more, with numbers of 1 or more."
            )
        shape = (max_length, dropout)
        layers = [EncoderLayer(inputs, *layer, dropout) for inputs, layer in _inputs(encoder)]
        self.encoder = Side(source_size, embedding_size, layers, _ends(encoder), embedding_size, *shape)
        readers = [DecoderLayer(inputs, *layer, embedding_size, dropout) for inputs, layer in _inputs(decoder)]
        self.kept = tuple((kernel - 1, inputs) for inputs, (_, kernel) in _inputs(decoder))
        sizes = classifier.vocabulary_size, embedding_size
        self.decoder = Side(*sizes, readers, _ends(decoder), classifier.hidden_size, *shape)
        self.classifier = classifier

    def fold(self) -> None:
        """Replace each g v / ‖v‖ by its value, for good: what is computed stays the same, and a search is faster."""
        for module in self.modules():
            if is_parametrized(module, "weight"):
                remove_parametrizations(module, "weight")

    def start(self, source: Tensor) -> DecoderState:
        """Return the state before the first word of the translations of ``source`` (batch, length).

        Raises:
            FewbitsError: If there is no sentence, one has no words, or one has more than ``max_length``.
        """
        words = words_of(source)
        embedded = self.encoder.embedded(source.clamp_min(0), 0)
        x = self.encoder.widen(embedded)
        for layer in self.encoder.layers:
            x = layer(x, words)
        keys = self.encoder.narrow(x)
        if keys.requires_grad:
            keys.register_hook(lambda gradient: gradient / (2 * len(self.decoder.layers)))
        memory = Memory(keys, (keys + embedded) * _HALF, words)
        before = tuple(keys.new_zeros(len(source), *kept) for kept in self.kept)
        return DecoderState(before, memory, 0)

    def reorder(self, state: DecoderState, rows: Tensor) -> DecoderState:
        """Return the state of the given rows, in their order; a row may come several times."""
        memory = Memory(*(part.index_select(0, rows) for part in state.memory))
        return DecoderState(tuple(part.index_select(0, rows) for part in state.before), memory, state.read)

    def _read(self, words: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read ``words`` (rows, length) after those of ``state``; return (rows, length, H) and the state."""
        embedded = self.decoder.embedded(words, state.read)
        x, kept = self.decoder.widen(embedded), []
        for layer, before in zip(self.decoder.layers, state.before, strict=True):
            x, last = layer(x, embedded, before, state.memory)
            kept.append(last)
        hidden = self.decoder.drop(self.decoder.narrow(x))
        return hidden, DecoderState(tuple(kept), state.memory, state.read + words.shape[1])


def _inputs(convolutions: Convolutions) -> list[tuple[int, tuple[int, int]]]:
    """Return each layer with its input channels; the linear map before the first one gives as many as it writes."""
    channels = [convolutions[0][0], *(layer[0] for layer in convolutions)]
    return list(zip(channels, convolutions, strict=False))


def _ends(convolutions: Convolutions) -> tuple[int, int]:
    return convolutions[0][0], convolutions[-1][0]


def _linear(inputs: int, outputs: int, dropout: float = 0.0) -> nn.Linear:
    made = nn.Linear(inputs, outputs)
    _normalised(made, math.sqrt((1 - dropout) / inputs))
    return made


def _normalised(module: nn.Linear | nn.Conv1d, deviation: float) -> None:
    nn.init.normal_(module.weight, std=deviation)
    nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    weight_norm(module)
