"""A Transformer and a ConvS2S, trained with softmax and decoded with softmax and with max-shift (M10)."""

from enum import StrEnum
from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from fewbits.classifiers import Softmax
from fewbits.data import data_hashes
from fewbits.experiments.choice import check_counts, scaled
from fewbits.experiments.transformer_translation import decoding
from fewbits.experiments.transformer_translation.texts import Text
from fewbits.models import ConvSeq2Seq, Sharing, Transformer
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Configuration, Context
from fewbits.training.averaging import Averaging
from fewbits.training.loop import History
from fewbits.training.settings import Optimizer, Schedule, Training
from fewbits.training.teacher_forced import TeacherForced


class Architecture(StrEnum):
    """The two kinds of models in the document's table."""

    TRANSFORMER = "transformer"
    CONVS2S = "convs2s"


#: The small Transformer of Wu et al. 2021 ("Good for misconceived reasons") for this text has this rate and warm-up for
#: batches twice as large.
TRAINING = Training(
    optimizer=Optimizer.ADAM,
    learning_rate=3.5e-3,
    schedule=Schedule.INVERSE_ROOT,
    warmup_steps=2_000,
    epochs=24,
    clip=1.0,
)


class TransformerTranslation(Configuration):
    """One model, and its translations of the tests by each way of search."""

    experiment: ClassVar[str] = "transformer_translation"
    version: ClassVar[int] = 1
    keeps_weights: ClassVar[bool] = True

    architecture: Architecture = Architecture.TRANSFORMER
    corpus: str = "multi30k-en-de"
    pairs: int | None = None  #: the first so many to train on; None is all
    tested: int | None = None  #: the first so many of each test; None is all
    pieces: int = 6_000  #: of both languages together
    hidden_size: int = Field(128, ge=4)  #: d, and with ConvS2S the channels and the width of the embeddings
    layers: int = Field(4, ge=1)  #: on each side
    heads: int = Field(4, ge=1)
    feed_forward: int = Field(256, ge=1)
    dropout: float = Field(0.3, ge=0, lt=1)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    words: int = Field(2_048, ge=1)  #: pieces a side of a batch
    longest: int = Field(100, ge=2)  #: pieces of a translation at most, the end included
    averaged_epochs: int = Field(5, ge=1)  #: the last so many, over whose steps the weights are averaged
    training: Training = TRAINING
    seed: int = 0

    @property
    def name(self) -> str:
        """Corpus, architecture, d and seed."""
        return f"{self.corpus}-{self.architecture}-d{self.hidden_size}-seed{self.seed}"

    @property
    def large_products(self) -> bool:
        """Yes for the convolutions; attention in several heads has many small products."""
        return self.architecture is Architecture.CONVS2S

    def data_hashes(self) -> dict[str, str]:
        """Return the hashes of the sentences."""
        return data_hashes(self.corpus)

    def text(self) -> Text:
        """Return the sentences and their pieces."""
        return Text.load(self.corpus, self.pieces, self.pairs, self.tested)

    def model(self, words: int) -> Transformer | ConvSeq2Seq:
        """Return the model with its first weights, for a vocabulary of ``words`` pieces."""
        classifier = Softmax(self.hidden_size, words, label_smoothing=self.label_smoothing)
        if self.architecture is Architecture.CONVS2S:
            convolutions = ((self.hidden_size, 3),) * self.layers
            return ConvSeq2Seq(
                words,
                classifier,
                sos=Text.sos,
                eos=Text.eos,
                embedding_size=self.hidden_size,
                dropout=self.dropout,
                encoder=convolutions,
                decoder=convolutions,
            )
        return Transformer(
            words,
            classifier,
            sos=Text.sos,
            eos=Text.eos,
            encoder_layers=self.layers,
            decoder_layers=self.layers,
            heads=self.heads,
            feed_forward=self.feed_forward,
            dropout=self.dropout,
            sharing=Sharing.ALL,
        )

    def compute(self, context: Context) -> Computed:
        """Train, average the weights, translate the tests by each search, score, and test searches against greedy."""
        text = self.text()
        model, history, metrics = self._trained(context, text)
        weights = _copied(model)
        if isinstance(model, ConvSeq2Seq):
            model.fold()
        written, same = decoding.translate(model, cast(Softmax, model.classifier), text, self.longest)
        numbers, intervals, texts = decoding.score(written, text)
        metrics |= {"pieces": len(text.subwords), "parameters": sum(p.numel() for p in model.parameters())} | same
        return Computed(metrics | numbers, history, intervals, weights, texts=texts)

    def train(self, context: Context) -> dict[str, Tensor]:
        """Return the averaged weights without the translations."""
        return _copied(self._trained(context, self.text())[0])

    def _trained(self, context: Context, text: Text) -> tuple[Transformer | ConvSeq2Seq, History, dict[str, Any]]:
        torch.manual_seed(self.seed)
        pairs = text.numbers("train"), text.numbers("valid")
        task = TeacherForced(self.model(len(text.subwords)), *pairs, words=self.words)
        averaging = Averaging(task, since=max(self.training.epochs - self.averaged_epochs, 0))
        history = context.trainer(averaging, self.training).fit()
        averaged = cast(Transformer | ConvSeq2Seq, averaging.averaged)
        losses = {"valid_loss": task.validate()}
        losses["averaged_valid_loss"] = TeacherForced(averaged, *pairs, words=self.words).validate()
        return averaged, history, losses


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


#: What differs from the full scale, which the field defaults hold.
_SCALES: dict[Profile, dict[str, Any]] = {
    Profile.SMOKE: {
        "corpus": "bible-en-fr", "pairs": 800, "tested": 12, "pieces": 600, "hidden_size": 32, "layers": 1,
        "feed_forward": 64, "longest": 30, "words": 300, "dropout": 0.0, "averaged_epochs": 1,
        "training": TRAINING.model_copy(update={"learning_rate": 0.01, "epochs": 4, "warmup_steps": 40}),
    },
    Profile.LAPTOP: {
        "corpus": "bible-en-fr", "tested": 100, "pieces": 2_000, "hidden_size": 64, "layers": 2, "heads": 2,
        "feed_forward": 128, "longest": 60, "words": 600, "averaged_epochs": 3,
        "training": TRAINING.model_copy(update={"learning_rate": 5e-3, "epochs": 16, "warmup_steps": 300}),
    },
    Profile.FULL: {},
}  # fmt: skip

CORPORA = ("multi30k-en-de", "multi30k-en-fr")
#: Into French the validation loss still fell after the epochs that were enough for German, and BLEU was too low.
_LONGER = {"multi30k-en-fr": 48}


def runs(
    profile: Profile, *, seeds: int | None = None, corpus: str | None = None, epochs: int | None = None
) -> list[TransformerTranslation]:
    """Return the runs of a profile; what is None is what the profile says.

    Args:
        profile: smoke, laptop or full.
        seeds: how many models of each kind and corpus, counted from 0; None is three at full, one else.
        corpus: the name of a data set of sentences; None is both of :data:`CORPORA` at full.
        epochs: number of epochs; None is twice as many for French as for German at full.

    Raises:
        FewbitsError: If a number is below 1.
    """
    check_counts(seeds=seeds, epochs=epochs)
    scale, full = _SCALES[profile], profile is Profile.FULL
    chosen = corpus or scale.get("corpus")
    texts = {
        name: scaled(TransformerTranslation, scale, corpus=name, epochs=epochs or (_LONGER.get(name) if full else None))
        for name in ([chosen] if chosen else CORPORA)
    }
    return [
        TransformerTranslation(architecture=architecture, seed=seed, **fields)
        for seed in range(seeds or (3 if full else 1))
        for architecture in Architecture
        for fields in texts.values()
    ]
