"""What a user would take instead: PyTorch's own int8 converters on the seminar's LSTM (claim S18)."""

import contextlib
import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.ao import quantization

from fewbits.data import Corpus
from fewbits.evaluation.perplexity import mean_nll, perplexity
from fewbits.evaluation.timing import take_turns
from fewbits.experiments.lstm_perplexity import LstmPerplexity
from fewbits.experiments.lstm_perplexity import runs as trainings
from fewbits.models import LanguageModel
from fewbits.models.recurrent import State
from fewbits.quantize import pack, quantize
from fewbits.quantizers import PerRow, Uniform
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Configuration, Context, weights_hash

ENGINE = "x86"  #: PyTorch's kernels for int8 on such processors


class TorchConverters(Configuration):
    """One float model, converted in every way.

    Metrics are ``WAY_test_perplexity``, ``WAY_cost`` (that minus float's) and ``WAY_file_bytes``.

    Ways: ``float``; ``dynamic``, int8 weights of LSTM and output layer, activations quantized as they come; ``static``,
    activations on grids fixed beforehand, every operation of the LSTM in int8; ``ours``, the same matrices through
    ``Uniform(8, PerRow())``, computed in float. Words a second, of ``streams`` texts at a time and of one, are in the
    provenance.
    """

    experiment: ClassVar[str] = "torch_converters"
    version: ClassVar[int] = 1
    processor_only: ClassVar[bool] = True

    start: LstmPerplexity  #: the run that trains the float model
    calibration_tokens: int = Field(20_000, ge=1)  #: of the training text, from which ``static`` takes its grids
    timed_tokens: int = Field(2_000, ge=1)  #: of the test text
    streams: int = Field(20, ge=1)
    rounds: int = Field(5, ge=1)

    @property
    def name(self) -> str:
        """The name of the float run."""
        return f"{self.start.name}-converted"

    @property
    def large_products(self) -> bool:
        """As the run that it starts from."""
        return self.start.large_products

    def data_hashes(self) -> dict[str, str]:
        """Return the hashes of the corpus's files."""
        return self.start.data_hashes()

    def compute(self, context: Context) -> Computed:
        """Convert, evaluate, save and time."""
        trained = context.start(self.start)
        corpus = self.start.load()
        model = self.start.float_model(len(corpus.vocabulary)).eval()
        model.load_state_dict(trained)
        ways = {"float": model, "dynamic": dynamic(model), "static": static(model, partial(self._read, corpus))}
        ways["ours"] = copy.deepcopy(model)
        quantize(ways["ours"], {name: Uniform(8, PerRow()) for name in MATRICES})
        eos = corpus.vocabulary.eos
        metrics: dict[str, Any] = {}
        for way, converted in ways.items():
            metrics[f"{way}_test_perplexity"] = perplexity(converted, corpus.test, first=eos)
            metrics[f"{way}_cost"] = metrics[f"{way}_test_perplexity"] - metrics["float_test_perplexity"]
            metrics[f"{way}_file_bytes"] = _file_bytes(converted, packed=way == "ours")
        text = corpus.test[: self.timed_tokens]
        speeds = {
            f"words_per_second_{streams}": {
                way: len(text) / each for way, each in self._times(ways, text, eos, streams)
            }
            for streams in (self.streams, 1)
        }
        texts = {"start": [weights_hash(trained)]}
        return Computed(metrics, [], {}, {}, provenance=speeds, texts=texts)

    def _read(self, corpus: Corpus, model: LanguageModel) -> None:
        text = corpus.train[: self.calibration_tokens]
        mean_nll(model, text, first=corpus.vocabulary.eos, streams=self.streams, length=self.start.length)

    def _times(self, ways: dict[str, LanguageModel], text: Tensor, eos: int, streams: int) -> Any:
        forms = {way: partial(perplexity, each, text, first=eos, streams=streams) for way, each in ways.items()}
        return take_turns(forms, self.rounds).items()


MATRICES = ("rnn.weight_*", "output.weight")


def dynamic(model: LanguageModel) -> LanguageModel:
    """Return a copy of ``model`` with PyTorch's dynamic int8 in its LSTM and its output layer."""
    with _own_engine():
        return quantization.quantize_dynamic(model, {nn.LSTM, nn.Linear}, dtype=torch.qint8)  # type: ignore[no-any-return]


def static(model: LanguageModel, read: Callable[[LanguageModel], None]) -> LanguageModel:
    """Return a copy of ``model`` with PyTorch's static int8 in its LSTM and its output layer.

    ``read`` lets the model read the text from which the grids of the activations are taken.
    """
    model = copy.deepcopy(model)
    model.body.rnn = _Stubbed(model.body.rnn)  # type: ignore[arg-type]
    output = quantization.QuantWrapper(model.classifier.output)  # type: ignore[arg-type]
    model.classifier.output = output
    with _own_engine():
        for part in (model.body.rnn, output):
            part.qconfig = quantization.get_default_qconfig(ENGINE)  # type: ignore[assignment]
        quantization.prepare(model, inplace=True)
        read(model)
        quantization.convert(model, inplace=True)
    return model


class _Stubbed(nn.Module):
    """The layers of an LSTM one by one: together, PyTorch's static ones give a state back on the first one's grid."""

    def __init__(self, rnn: nn.LSTM) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_layer(rnn, number) for number in range(rnn.num_layers))
        self.hidden, self.cell = (
            nn.ModuleList(quantization.QuantStub() for _ in range(rnn.num_layers)) for _ in range(2)
        )
        self.inputs, self.floats = quantization.QuantStub(), quantization.DeQuantStub()

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        values, ends = self.inputs(inputs), []
        for number, layer in enumerate(self.layers):
            stubs = (self.hidden[number], self.cell[number])
            given = state and tuple(stub(part[number, None]) for stub, part in zip(stubs, state, strict=True))
            values, end = layer(values, given)
            ends.append([self.floats(part) for part in end])
        hidden, cell = (torch.cat(parts) for parts in zip(*ends, strict=True))
        return self.floats(values), (hidden, cell)


def _layer(rnn: nn.LSTM, number: int) -> nn.LSTM:
    weights = {
        name.replace(f"_l{number}", "_l0"): weight
        for name, weight in rnn.state_dict().items()
        if name.endswith(f"_l{number}")
    }
    layer = nn.LSTM(weights["weight_ih_l0"].shape[1], rnn.hidden_size)
    layer.load_state_dict(weights)
    return layer


@contextlib.contextmanager
def _own_engine() -> Iterator[None]:
    """Choose the kernels, and leave out PyTorch's notes on what moves to torchao."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = ENGINE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.quantized.engine = before


def _file_bytes(model: LanguageModel, *, packed: bool) -> int:
    with tempfile.TemporaryDirectory() as folder:
        if packed:
            return pack(model).save(folder)
        path = Path(folder) / "model.pt"
        torch.save(model.state_dict(), path)
        return path.stat().st_size


_SCALES: dict[Profile, dict[str, Any]] = {
    Profile.SMOKE: {"calibration_tokens": 1_000, "timed_tokens": 300, "rounds": 1},
    Profile.LAPTOP: {"calibration_tokens": 5_000, "timed_tokens": 1_000, "rounds": 3},
    Profile.FULL: {},
}


def runs(profile: Profile, *, corpus: str | None = None, epochs: int | None = None) -> list[TorchConverters]:
    """Return the runs of a profile: one for each float model of ``lstm_perplexity``, with its corpus and epochs."""
    starts = trainings(profile, arms=["float"], corpus=corpus, epochs=epochs)
    return [TorchConverters(start=start, **_SCALES[profile]) for start in starts]
