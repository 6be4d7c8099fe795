"""The Transformer for translation (Vaswani et al. 2017), with what its attention keeps from word to word."""

import math
from enum import StrEnum
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.classifiers.classifier import Classifier
from fewbits.errors import FewbitsError
from fewbits.models.translator import Translator, words_of


class Sharing(StrEnum):
    """Which embeddings and output matrix are one matrix (Press and Wolf 2017)."""

    NONE = "none"
    TARGET = "target"  #: the embedding of target words and the output matrix
    ALL = "all"  #: these two and the embedding of source words; both languages have one vocabulary


class KeysValues(NamedTuple):
    """What attention looks at: keys and values, (rows, heads, length, d / heads) each."""

    keys: Tensor
    values: Tensor


class DecoderState(NamedTuple):
    """What the decoder carries from word to word; the memory is kept once for all rows of a sentence."""

    own: tuple[KeysValues, ...]  #: of each layer, of the words read so far, (rows, …)
    memory: tuple[KeysValues, ...]  #: of each layer, of the source words, (sentences, …)
    visible: Tensor  #: which source words are words, (sentences, 1, 1, length)
    rows: int  #: hypotheses in work, the same number for each sentence


def sinusoids(positions: Tensor, size: int) -> Tensor:
    """Return (…, size): the sines of position · 10000^(−i / (h − 1)), i = 0 … h − 1, h = size / 2, then the cosines.

    Vaswani et al. alternate sine and cosine and divide by h; their program (tensor2tensor) and fairseq do this.

    >>> sinusoids(torch.tensor([0, 1]), 4)[1].tolist() == [math.sin(1), math.sin(1e-4), math.cos(1), math.cos(1e-4)]
    False
    >>> [round(value, 4) for value in sinusoids(torch.tensor([1]), 4)[0].tolist()]
    [0.8415, 0.0001, 0.5403, 1.0]
    """
    half = size // 2
    steps = torch.arange(half, device=positions.device)
    angles = positions[..., None] * torch.exp(steps * (-math.log(10_000) / (half - 1)))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Attention(nn.Module):
    """softmax(q kᵀ / √(d / heads)) v in several heads, between a linear map of each and one of the result."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.output = nn.Linear(size, size)
        for part in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(part.weight, gain=math.sqrt(0.5))
            nn.init.zeros_(part.bias)
        _initialise(self.output)

    def remember(self, seen: Tensor) -> KeysValues:
        """Return the keys and values of ``seen`` (rows, length, d)."""
        return KeysValues(self._split(self.key(seen)), self._split(self.value(seen)))

    def forward(self, asking: Tensor, seen: KeysValues, visible: Tensor | None = None, causal: bool = False) -> Tensor:
        """Return (rows, length, d) for ``asking`` (rows, length, d); ``visible`` broadcasts to the weights' shape."""
        queries = self._split(self.query(asking))
        found: Tensor = F.scaled_dot_product_attention(
            queries, seen.keys, seen.values, attn_mask=visible, is_causal=causal
        )
        merged: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return merged

    def _split(self, vectors: Tensor) -> Tensor:
        split: Tensor = vectors.unflatten(-1, (self.heads, -1))  # type: ignore[no-untyped-call]
        return split.transpose(1, 2)


class EncoderLayer(nn.Module):
    """x ← norm(x + self-attention(x)), x ← norm(x + narrow(ReLU(widen(x)))): normalised after each sum."""

    def __init__(self, size: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.self_attention, self.self_norm = Attention(size, heads), nn.LayerNorm(size)
        self.widen, self.narrow = nn.Linear(size, feed_forward), nn.Linear(feed_forward, size)
        self.feed_forward_norm = nn.LayerNorm(size)
        self.drop = nn.Dropout(dropout)
        _initialise(self.widen, self.narrow)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """Return the next (sentences, length, d)."""
        x = self.self_norm(x + self.drop(self.self_attention(x, self.self_attention.remember(x), visible)))
        return self.fed_forward(x)

    def fed_forward(self, x: Tensor) -> Tensor:
        """Return norm(x + narrow(ReLU(widen(x))))."""
        normed: Tensor = self.feed_forward_norm(x + self.drop(self.narrow(F.relu(self.widen(x)))))
        return normed


class DecoderLayer(EncoderLayer):
    """The same with attention to the source words between the two."""

    def __init__(self, size: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__(size, heads, feed_forward, dropout)
        self.cross_attention, self.cross_norm = Attention(size, heads), nn.LayerNorm(size)

    def read(self, x: Tensor, own: KeysValues, memory: KeysValues, visible: Tensor, *, causal: bool) -> Tensor:
        """Return the next (rows, length, d); ``causal`` if each word is to see only itself and those before it."""
        x = self.self_norm(x + self.drop(self.self_attention(x, own, causal=causal)))
        # All rows of a sentence look at the same memory: they stand side by side as its queries.
        asking = x.reshape(len(visible), -1, x.shape[-1])
        found = self.cross_attention(asking, memory, visible).view_as(x)
        return self.fed_forward(self.cross_norm(x + self.drop(found)))


class Stack(nn.Module):
    """The embedding and the layers of one side."""

    def __init__(self, vocabulary_size: int, size: int, layers: list[EncoderLayer], dropout: float) -> None:
        super().__init__()
        self.embedding = _embedding(vocabulary_size, size)
        self.drop = nn.Dropout(dropout)
        self.layers = nn.ModuleList(layers)


class Transformer(Translator[DecoderState]):
    """Encoder and decoder of attention layers, and a classifier over the words of the target language.

    "Attention is all you need", Vaswani et al. 2017, as fairseq builds it: layers are normalised after each sum,
    embeddings are multiplied by √d, positions are `sinusoids`. d is the classifier's hidden size. Matrices start as
    Glorot and Bengio's uniform (queries, keys and values at √½ of it), embeddings as N(0, 1/d). What the padding is
    does not change a number beyond rounding.

    >>> from fewbits.classifiers import Softmax
    >>> model = Transformer(9, Softmax(hidden_size=8, vocabulary_size=7), sos=0, eos=1, heads=2)
    >>> model(torch.tensor([[5, 6, 1], [8, 1, -1]]), torch.tensor([[3, 1], [2, 1]])).shape
    torch.Size([2, 2, 8])
    """

    def __init__(
        self,
        source_size: int,
        classifier: Classifier,
        *,
        sos: int,
        eos: int,
        encoder_layers: int = 4,
        decoder_layers: int = 4,
        heads: int = 4,
        feed_forward: int = 256,
        dropout: float = 0.3,
        sharing: Sharing = Sharing.NONE,
        first_position: int = 0,
    ) -> None:
        """Build a model from words of a source language to those of the classifier.

        Args:
            source_size: words of the source language.
            classifier: owns the output matrix, as ``output``; its hidden size is d.
            sos: the target word that a translation starts after.
            eos: the target word that ends it.
            encoder_layers: layers over the source words.
            decoder_layers: layers over the target words.
            heads: of each attention; they divide d.
            feed_forward: width between the two linear maps of a layer.
            dropout: of the embedded words, and of what each part of a layer adds.
            sharing: which embeddings and output matrix are one.
            first_position: number of the first word's position; fairseq's is the number of its padding word plus one.

        Raises:
            FewbitsError: If d is odd or below 4 or not a multiple of the heads, or vocabularies that shall share a
                matrix differ in size.
        """
        super().__init__(sos, eos)
        size, target_size = classifier.hidden_size, classifier.vocabulary_size
        if size % 2 or size < 4 or size % heads:
            raise FewbitsError(f"d is {size} with {heads} heads; it must be even, 4 or more, and a multiple of heads.")
        if sharing is Sharing.ALL and source_size != target_size:
            raise FewbitsError(
                f"a vocabulary of {source_size:,} and one of {target_size:,} words cannot share one matrix; "
                "build one vocabulary for both languages, or share less."
            )
        self.first_position = first_position
        shape = (size, heads, feed_forward, dropout)
        self.encoder = Stack(source_size, size, [EncoderLayer(*shape) for _ in range(encoder_layers)], dropout)
        self.decoder = Stack(target_size, size, [DecoderLayer(*shape) for _ in range(decoder_layers)], dropout)
        self.classifier = classifier
        if sharing is not Sharing.NONE:
            self.decoder.embedding.weight = _output(classifier).weight
            nn.init.normal_(self.decoder.embedding.weight, std=size**-0.5)
            nn.init.zeros_(_output(classifier).bias)
        if sharing is Sharing.ALL:
            self.encoder.embedding.weight = self.decoder.embedding.weight

    def start(self, source: Tensor) -> DecoderState:
        """Return the state before the first word of the translations of ``source`` (batch, length).

        Raises:
            FewbitsError: If there is no sentence, or one has no words.
        """
        words = words_of(source)
        visible = words[:, None, None]
        x = self._embedded(self.encoder, source.clamp_min(0), 0)
        for layer in self.encoder.layers:
            x = layer(x, visible)
        memory = tuple(layer.cross_attention.remember(x) for layer in self._decoder_layers)
        empty = memory[0].keys.new_empty(len(source), memory[0].keys.shape[1], 0, memory[0].keys.shape[3])
        return DecoderState(tuple(KeysValues(empty, empty) for _ in memory), memory, visible, len(source))

    def reorder(self, state: DecoderState, rows: Tensor) -> DecoderState:
        """Return the state of the given rows, in their order; a row may come several times."""
        sentence = rows // (state.rows // len(state.visible))
        kept, counts = sentence.unique_consecutive(return_counts=True)
        if not (counts == counts[0]).all():  # then each row has a memory of its own
            kept = sentence
        own = tuple(KeysValues(*(part.index_select(0, rows) for part in layer)) for layer in state.own)
        if torch.equal(kept, torch.arange(len(state.visible), device=rows.device)):
            return DecoderState(own, state.memory, state.visible, len(rows))
        memory = tuple(KeysValues(*(part.index_select(0, kept) for part in layer)) for layer in state.memory)
        return DecoderState(own, memory, state.visible[kept], len(rows))

    def _read(self, words: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read ``words`` (rows, length), the first ones or one more; return (rows, length, d) and the state."""
        before, own = state.own[0].keys.shape[2], []
        x = self._embedded(self.decoder, words, before)
        for layer, past, memory in zip(self._decoder_layers, state.own, state.memory, strict=True):
            new = layer.self_attention.remember(x)
            own.append(KeysValues(*(torch.cat(parts, dim=2) for parts in zip(past, new, strict=True))))
            x = layer.read(x, own[-1], memory, state.visible, causal=before == 0)
        return x, state._replace(own=tuple(own), rows=len(words))

    @property
    def _decoder_layers(self) -> list[DecoderLayer]:
        return cast(list[DecoderLayer], list(self.decoder.layers))

    def _embedded(self, side: Stack, words: Tensor, before: int) -> Tensor:
        size = side.embedding.embedding_dim
        first = self.first_position + before
        positions = torch.arange(first, first + words.shape[1], device=words.device)
        embedded: Tensor = side.drop(side.embedding(words) * math.sqrt(size) + sinusoids(positions, size))
        return embedded


def _embedding(number: int, size: int) -> nn.Embedding:
    embedding = nn.Embedding(number, size)
    nn.init.normal_(embedding.weight, std=size**-0.5)
    return embedding


def _initialise(*parts: nn.Linear) -> None:
    for part in parts:
        nn.init.xavier_uniform_(part.weight)
        nn.init.zeros_(part.bias)


def _output(classifier: Classifier) -> nn.Linear:
    output: nn.Linear = classifier.get_submodule("output")  # type: ignore[assignment]
    return output
