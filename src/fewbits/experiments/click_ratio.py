"""Click ratio of recurrent language models with float, ternary and binary matrices (claims S10, S11, S12, S16)."""

import tempfile
from enum import StrEnum
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fewbits.classifiers import AdaptiveSoftmax, Classifier, Softmax
from fewbits.data import Corpus, Vocabulary, data_hashes, load_corpus
from fewbits.evaluation.click_ratio import SUGGESTIONS, Clicks, Keyboard, clicks
from fewbits.evaluation.perplexity import exponential, perplexity, unigram_perplexity
from fewbits.experiments.choice import Quantizers, check_arms, check_counts, scaled
from fewbits.models import Cell, LanguageModel, RecurrentBody
from fewbits.quantize import pack, quantize, quantized_weights
from fewbits.quantizers import parse
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Configuration, Context
from fewbits.training.language_modelling import LanguageModelling
from fewbits.training.settings import Optimizer, Schedule, Training
from fewbits.training.stretches import Stretches

RECURRENT = ("rnn.weight_ih_*", "rnn.weight_hh_*")  #: what the document quantizes

#: The quantizer of each arm's patterns: the recurrent matrices, or the embeddings.
ARMS: dict[str, dict[str, str]] = {
    "float": {},
    "twn": dict.fromkeys(RECURRENT, "TWN(PerGate({gates}))"),
    "binary": dict.fromkeys(RECURRENT, "Binary()"),
    "embeddings": {"*embedding.weight": "Uniform(8, PerRow())"},
}

#: The document's four models are pictures. These four are ours, in the order of what they change.
MODELS: dict[int, dict[str, Any]] = {
    1: {"layers": 1},
    2: {"layers": 2},
    3: {"layers": 1, "hidden_size": 400, "tied": True},
    4: {"layers": 2, "hidden_size": 400, "projection": 200, "dropout": 0.2},
}

CUTOFFS = (2_000, 10_000)  #: of the output layer; those below the vocabulary's size count
BANDS = (100, 1_000, 10_000)  #: ends of the bands of words by frequency; the last band is open
RANKS = (SUGGESTIONS, 10, 100, 1_000, 10_000)  #: ends of the bands of the true word's place; the last band is open


class Output(StrEnum):
    """The output layer."""

    ADAPTIVE = "adaptive"
    FULL = "full"


class ClickRatio(Configuration):
    """One training on a fixed number of words, and what could be clicked after each part of it."""

    experiment: ClassVar[str] = "click_ratio"
    version: ClassVar[int] = 2
    keeps_weights: ClassVar[bool] = True

    model: int = Field(1, ge=1, le=4)  #: number in :data:`MODELS`, for the name
    arm: str  #: which weights are quantized, in a word
    weights: Quantizers = Field({})  #: quantizer of each pattern of parameter names
    corpus: str = "polish"
    vocabulary_size: int = Field(10_000, ge=3)
    valid_tokens: int | None = 40_000  #: of the validation text, which is read after each part of the training
    test_tokens: int | None = 160_000
    cell: Cell = Cell.LSTM
    hidden_size: int = Field(200, ge=1)  #: and that of the embeddings where there is no projection
    layers: int = Field(1, ge=1)
    projection: int = Field(0, ge=0)  #: numbers of a projected hidden state, and of the embeddings; 0 is none
    tied: bool = False  #: whether embeddings are the rows of the output layer
    output: Output = Output.ADAPTIVE
    dropout: float = Field(0.0, ge=0, lt=1)
    batch_size: int = Field(32, ge=1)
    length: int = Field(35, ge=1)  #: words a window of truncated backpropagation
    visits: int = Field(4_000_000, ge=1)  #: words that are read in training
    training: Training = Training(
        optimizer=Optimizer.ADAM,
        learning_rate=8e-3,
        schedule=Schedule.INVERSE_ROOT,
        warmup_steps=200,
        epochs=5,
        clip=1.0,
    )  #: an epoch is an equal part of the visits, after which the model is looked at. The highest rate was tried with
    #: 20,000 words, LSTM, float: at 0.004, 0.008, 0.016 validation perplexity is 183, 165, 167 with one layer, and
    #: 202, 194, 223 with two
    seed: int = 0

    @property
    def name(self) -> str:
        """Corpus, words, model, cell, output layer where it is not the usual one, arm and seed."""
        full = "-full" if self.output is Output.FULL else ""
        return f"{self.corpus}-{self.vocabulary_size}-{self.cell}{self.model}{full}-{self.arm}-seed{self.seed}"

    @property
    def large_products(self) -> bool:
        """Yes: those with the output layer."""
        return True

    def data_hashes(self) -> dict[str, str]:
        """Return the hashes of the corpus's files."""
        return data_hashes(self.corpus)

    def compute(self, context: Context) -> Computed:
        """Train; look at the validation text after each part, at the test text in the end."""
        corpus = self.load()
        keyboard = Keyboard(corpus.vocabulary.words)
        model, task, history = self._trained(corpus, keyboard, context)
        eos = corpus.vocabulary.eos
        found = clicks(model, corpus.test, keyboard)
        metrics: dict[str, Any] = {
            "test_perplexity": perplexity(model, corpus.test, first=eos),
            "valid_perplexity": exponential(history[-1]["valid_loss"]),
            "unigram_test_perplexity": unigram_perplexity(corpus.train, corpus.test, len(corpus.vocabulary)),
            "unknown": 100 * found.unknown / found.words,
            "test_words": found.words,
            "epochs_of_text": self.visits / len(corpus.train),
            "train_tokens": len(corpus.train),
            "parameters": sum(p.numel() for p in model.parameters()),
            "file_bytes": _file_bytes(model),
            **_numbers(found),
        }
        arrays = {name: [row[name] for row in task.seen] for name in task.seen[0]}
        arrays["visits"] = [task.length * self.batch_size * self.length * part for part in range(1, len(task.seen) + 1)]
        return Computed(metrics, history, arrays | _losses(found), model.state_dict())

    def train(self, context: Context) -> dict[str, Tensor]:
        """Return the weights without what is measured on the test text."""
        corpus = self.load()
        return self._trained(corpus, Keyboard(corpus.vocabulary.words), context)[0].state_dict()

    def _trained(
        self, corpus: Corpus, keyboard: Keyboard, context: Context
    ) -> tuple[LanguageModel, Stretches, list[dict[str, float | int]]]:
        model = self.build(corpus)

        def look() -> dict[str, float]:
            return _numbers(clicks(model, corpus.valid, keyboard))

        words = LanguageModelling(model, corpus, batch_size=self.batch_size, length=self.length)
        steps = self.visits / (self.batch_size * self.length * self.training.epochs)
        task = Stretches(words, max(1, round(steps)), look)
        return model, task, context.trainer(task, self.training).fit()

    def load(self) -> Corpus:
        """Return the corpus with its most frequent words, and stretches from everywhere in the evaluated texts."""
        return load_corpus(self.corpus, self.vocabulary_size).sampled(self.valid_tokens, self.test_tokens)

    def build(self, corpus: Corpus) -> LanguageModel:
        """Return the untrained model that ``seed`` gives."""
        torch.manual_seed(self.seed)
        size = len(corpus.vocabulary)
        width = self.projection or self.hidden_size
        body = RecurrentBody(
            size, width, self.hidden_size, self.layers, self.cell, self.dropout, projection=self.projection
        )
        classifier: Classifier
        if self.output is Output.ADAPTIVE:
            counts = torch.bincount(corpus.train.long(), minlength=size)
            cutoffs = [end for end in CUTOFFS if end < size] or [size // 2]
            classifier = AdaptiveSoftmax(width, counts, cutoffs, divisor=1.0 if self.tied else 4.0)
        else:
            classifier = Softmax(width, size)
        if self.tied:
            assert isinstance(classifier, AdaptiveSoftmax)
            body.embedding = TiedEmbedding(classifier)  # type: ignore[assignment]
        model = LanguageModel(body, classifier)
        if self.weights:
            quantize(model, {pattern: parse(text) for pattern, text in self.weights.items()})
        return model


class TiedEmbedding(nn.Module):
    """The output layer's vector of each word (Press and Wolf 2017; Inan et al. 2017)."""

    def __init__(self, classifier: AdaptiveSoftmax) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, words: Tensor) -> Tensor:
        """Return (…, H) for ``words`` (…)."""
        return self.classifier.embedded(words)


def _numbers(found: Clicks) -> dict[str, float]:
    """Return percents: with three suggestions before a letter and after some, with one, and of keystrokes saved."""
    ratios = {f"click_ratio_after_{typed}": found.ratio(typed=typed) for typed in (1, 2, 3)}
    shares = {"click_ratio": found.ratio(), **ratios, "click_ratio_of_1": found.ratio(1), "savings": found.savings()}
    return {name: 100 * share for name, share in shares.items()}


def _losses(found: Clicks) -> dict[str, list[float]]:
    """Return how many words of each band of frequency occur and can be clicked, and in which bands of places."""
    frequency = torch.bucketize(found.target - Vocabulary.eos, torch.tensor(BANDS))
    place = torch.bucketize(found.ranks[:, 0] + 1, torch.tensor(RANKS))
    clicked = place == 0
    return {
        "band_words": torch.bincount(frequency, minlength=len(BANDS) + 1).tolist(),
        "band_clicked": torch.bincount(frequency[clicked], minlength=len(BANDS) + 1).tolist(),
        "place_words": torch.bincount(place, minlength=len(RANKS) + 1).tolist(),
    }


def _file_bytes(model: LanguageModel) -> int:
    """Return the bytes on disk: of the packed model, or in float32 where nothing is quantized."""
    if not any(True for _ in quantized_weights(model)):
        return 4 * sum(p.numel() for p in model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        return pack(model).save(folder)


#: What differs from the full scale, which the field defaults hold.
_SCALES: dict[Profile, dict[str, Any]] = {
    Profile.SMOKE: {
        "corpus": "news", "valid_tokens": 3_000, "test_tokens": 3_000, "visits": 80_000, "batch_size": 16,
        "hidden_size": 32,
        "training": ClickRatio.model_fields["training"].default.model_copy(
            update={"learning_rate": 2e-2, "warmup_steps": 20, "epochs": 3}
        ),
    },
    Profile.LAPTOP: {
        "corpus": "news", "valid_tokens": 10_000, "test_tokens": 20_000, "visits": 300_000, "hidden_size": 100,
        "training": ClickRatio.model_fields["training"].default.model_copy(
            update={"learning_rate": 1e-2, "warmup_steps": 40, "epochs": 3}
        ),
    },
    Profile.FULL: {},
}  # fmt: skip

#: The highest rate of the GRU at full scale. With 10,000 words, one layer, float, validation perplexity is 107, 101,
#: 113 at 0.002, 0.004, 0.008.
_GRU_RATE = 4e-3

_TEXT = "polish"  #: in place of the document's corpus
_FLOAT_AND_TWN = ("float", "twn")
#: The cells of the full grid: corpus, model, cell, vocabularies, arms, seeds; the most valuable first.
_GRID: tuple[tuple[str, int, Cell, tuple[int, ...], tuple[str, ...], range], ...] = (
    (_TEXT, 1, Cell.LSTM, (10_000, 20_000, 50_000, 100_000), _FLOAT_AND_TWN, range(1)),
    (_TEXT, 2, Cell.LSTM, (20_000,), (*_FLOAT_AND_TWN, "binary"), range(1)),
    (_TEXT, 1, Cell.GRU, (10_000, 50_000), _FLOAT_AND_TWN, range(1)),
    (_TEXT, 1, Cell.LSTM, (10_000, 100_000), _FLOAT_AND_TWN, range(1, 3)),
    (_TEXT, 2, Cell.LSTM, (10_000, 50_000), _FLOAT_AND_TWN, range(1)),
    (_TEXT, 1, Cell.LSTM, (20_000, 50_000), _FLOAT_AND_TWN, range(1, 3)),
    ("news", 1, Cell.LSTM, (10_000, 20_000, 50_000), _FLOAT_AND_TWN, range(1)),
    (_TEXT, 2, Cell.LSTM, (20_000,), (*_FLOAT_AND_TWN, "binary"), range(1, 3)),
    (_TEXT, 2, Cell.GRU, (10_000, 50_000), _FLOAT_AND_TWN, range(1)),
    (_TEXT, 1, Cell.LSTM, (10_000, 50_000), ("embeddings",), range(1)),
    (_TEXT, 3, Cell.LSTM, (10_000, 50_000), _FLOAT_AND_TWN, range(1)),
    (_TEXT, 4, Cell.LSTM, (10_000, 50_000), _FLOAT_AND_TWN, range(1)),
    (_TEXT, 1, Cell.GRU, (10_000,), _FLOAT_AND_TWN, range(1, 3)),
    (_TEXT, 2, Cell.LSTM, (10_000, 50_000), _FLOAT_AND_TWN, range(1, 3)),
    ("news", 2, Cell.LSTM, (20_000,), _FLOAT_AND_TWN, range(1)),
    ("news", 1, Cell.GRU, (20_000,), _FLOAT_AND_TWN, range(1)),
    ("news", 2, Cell.GRU, (20_000,), _FLOAT_AND_TWN, range(1)),
)
_FULL_OUTPUT = (1, Cell.LSTM, 20_000, 0)  #: what is trained with a full output layer as well

_SMALL = {Profile.SMOKE: (500,), Profile.LAPTOP: (2_000, 20_000)}  #: vocabularies of the small profiles


def runs(
    profile: Profile,
    *,
    arms: list[str] | None = None,
    seeds: int | None = None,
    corpus: str | None = None,
    vocabularies: list[int] | None = None,
) -> list[ClickRatio]:
    """Return the runs of a profile; what is None is what the profile says.

    Args:
        profile: smoke, laptop or full.
        arms: names from :data:`ARMS`.
        seeds: how many, counted from 0. At full, None is three for the cells of the claims and one for the others;
            else, and with ``vocabularies``, one.
        corpus: name of a corpus of running text; at full, the Polish grid is trained on it.
        vocabularies: sizes; with them, model 1 is trained on each with each arm, as the small profiles do.

    Raises:
        FewbitsError: If an arm is unknown, ``arms`` is empty, or a number is below 1.
    """
    check_arms(arms, ARMS)
    check_counts(seeds=seeds, **{f"vocabularies[{place}]": size for place, size in enumerate(vocabularies or ())})
    scale = scaled(ClickRatio, _SCALES[profile])
    full = profile is Profile.FULL and vocabularies is None
    if full:
        grid = tuple((corpus or cells[0], *cells[1:]) for cells in _GRID if not corpus or cells[0] == _TEXT)
    else:
        text = corpus or scale.get("corpus", _TEXT)
        sizes = tuple(vocabularies or _SMALL.get(profile, (ClickRatio.model_fields["vocabulary_size"].default,)))
        grid = ((text, 1, Cell.LSTM, sizes, tuple(ARMS), range(seeds or 1)),)
    found = [
        ClickRatio(
            model=model, cell=cell, arm=arm, seed=seed,
            **(scale | _architecture(model, scale)
               | {"corpus": text, "vocabulary_size": size, "weights": _weights(arm, cell)}),
        )
        for text, model, cell, sizes, tried, numbers in grid
        for seed in numbers
        if seeds is None or seed < seeds
        for size in sizes
        for arm in tried
        if arms is None or arm in arms
    ]  # fmt: skip
    if full:
        found = [run if run.cell is Cell.LSTM else _gru(run) for run in found]
        alike = [run for run in found if (run.model, run.cell, run.vocabulary_size, run.seed) == _FULL_OUTPUT]
        found += [run.model_copy(update={"output": Output.FULL}) for run in alike if run.corpus == (corpus or _TEXT)]
    return found


def _gru(run: ClickRatio) -> ClickRatio:
    return run.model_copy(update={"training": run.training.model_copy(update={"learning_rate": _GRU_RATE})})


def _weights(arm: str, cell: Cell) -> dict[str, str]:
    gates = 4 if cell is Cell.LSTM else 3
    return {pattern: quantizer.format(gates=gates) for pattern, quantizer in ARMS[arm].items()}


def _architecture(model: int, scale: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a model; a small profile keeps its own width."""
    return {name: value for name, value in MODELS[model].items() if name != "hidden_size" or name not in scale}
