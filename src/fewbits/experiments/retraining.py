"""Recurrent language models retrained with binary codes for weights and hidden states (Xu et al. 2018)."""

from typing import Any, ClassVar

import torch
from pydantic import Field

from fewbits.evaluation.perplexity import exponential, perplexity
from fewbits.experiments.choice import check_arms, check_counts
from fewbits.experiments.post_training import PostTraining
from fewbits.experiments.post_training import runs as floats
from fewbits.models import Cell
from fewbits.quantize import quantize, size_report
from fewbits.quantizers import BinaryCodes
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Configuration, Context, weights_hash
from fewbits.training.language_modelling import LanguageModelling
from fewbits.training.settings import Schedule, Training

#: Bits of the weights and of the hidden states.
ARMS = {"2/2": (2, 2), "2/3": (2, 3), "3/3": (3, 3)}

MATRICES = ("rnn.weight_*", "embedding.weight", "output.weight")  #: all weights but the biases


class Retraining(Configuration):
    """One retraining of a float model with quantized weights and hidden states."""

    experiment: ClassVar[str] = "retraining"
    version: ClassVar[int] = 1

    start: PostTraining  #: the run whose float weights are the start
    weight_bits: int = Field(ge=1, le=4)
    state_bits: int = Field(ge=1, le=4)
    training: Training = Training(
        learning_rate=2.0, schedule=Schedule.INVERSE_ROOT, warmup_steps=100, epochs=1, quantized_limit=1.0
    )

    @property
    def name(self) -> str:
        """The float run, and the bits."""
        return f"{self.start.name}-w{self.weight_bits}a{self.state_bits}"

    def data_hashes(self) -> dict[str, str]:
        """Return the hashes of the corpus's files."""
        return self.start.data_hashes()

    def compute(self, context: Context) -> Computed:
        """Quantize the float model, evaluate it as it is, retrain it, evaluate it again."""
        weights = context.start(self.start)
        corpus = self.start.load()
        eos = corpus.vocabulary.eos
        model = self.start.model(len(corpus.vocabulary), BinaryCodes(self.state_bits))
        model.load_state_dict(weights)
        quantize(model, {pattern: BinaryCodes(self.weight_bits) for pattern in MATRICES})
        before = perplexity(model, corpus.test, first=eos)
        torch.manual_seed(self.start.seed)
        task = LanguageModelling(model, corpus, batch_size=self.start.batch_size, length=self.start.length)
        history = context.trainer(task, self.training).fit()
        report = size_report(model)
        metrics: dict[str, Any] = {
            "post_training_perplexity": before,
            "test_perplexity": perplexity(model, corpus.test, first=eos),
            "valid_perplexity": exponential(min(row["valid_loss"] for row in history)),
            "epochs": len(history),
            "size_bits": report.bits,
            "float_bits": report.float_bits,
        }
        texts = {"start": [weights_hash(weights)]}
        return Computed(metrics, history, {}, model.state_dict(), texts=texts)


#: How long the small profiles retrain; at full the field defaults hold.
_TRAININGS = {
    Profile.SMOKE: Training(learning_rate=2.0, epochs=1, quantized_limit=1.0),
    Profile.LAPTOP: Training(learning_rate=2.0, epochs=1, quantized_limit=1.0),
}


def runs(
    profile: Profile, *, arms: list[str] | None = None, cells: list[Cell] | None = None, epochs: int | None = None
) -> list[Retraining]:
    """Return the runs of a profile; what is None is what the profile says.

    Args:
        profile: smoke, laptop or full.
        arms: names from :data:`ARMS`; all unless stated, below full the first.
        cells: lstm, gru or both; both unless stated, below full the LSTM.
        epochs: number of epochs of the retraining.

    Raises:
        FewbitsError: If an arm is unknown, ``arms`` is empty, or a number is below 1.
    """
    check_arms(arms, ARMS)
    check_counts(epochs=epochs)
    training = _TRAININGS.get(profile, Retraining.model_fields["training"].default)
    if epochs is not None:
        training = training.model_copy(update={"epochs": epochs})
    full = profile is Profile.FULL
    cells = cells or (list(Cell) if full else [Cell.LSTM])
    return [
        Retraining(start=start, weight_bits=ARMS[arm][0], state_bits=ARMS[arm][1], training=training)
        for start in floats(profile, cells=cells)
        for arm in arms or (list(ARMS) if full else ["2/2"])
    ]
