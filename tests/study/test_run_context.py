"""What a computation is given to train with, and what it may give back beside numbers."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from fewbits.study import records
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Configuration, Context, run
from fewbits.training.loop import OutOfTime
from fewbits.training.settings import Training

THREE_EPOCHS = Training(learning_rate=0.5, clip=9.0, epochs=3)


class Falling:
    """One weight w with loss w, in epochs of 4 steps; each step is noted."""

    def __init__(self) -> None:
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.model.weight)
        self.steps = 4
        self.asked: list[int] = []

    def loss(self, step: int) -> Tensor:
        self.asked.append(step)
        return self.model.weight.sum()

    def validate(self) -> float:
        return self.model.weight.item()

    def state(self) -> None:
        """Nothing is carried."""

    def restore(self, state: None) -> None:
        """Nothing is carried."""


class Telling(Configuration):
    """Gives back texts, and what else is to say of its making."""

    experiment: ClassVar[str] = "telling"
    version: ClassVar[int] = 1

    @property
    def name(self) -> str:
        return "it"

    def data_hashes(self) -> dict[str, str]:
        return {}

    def compute(self, context: Context) -> Computed:
        said = {"source": ["je suis là .", ""], "nothing": []}
        made = {"epoch_seconds": [1.5, 2.25], "training_seconds": {"softmax": 3.5}}
        return Computed({}, [], {}, {"w": torch.ones(2)}, texts=said, provenance=made)


def context(checkpoint: Path | None, deadline: float = math.inf, every: int = 500, progress: bool = False) -> Context:
    return Context("cpu", checkpoint, deadline, every, progress)


def test_a_trainer_stops_at_the_deadline_and_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "it.pt"
    first, second = Falling(), Falling()
    with pytest.raises(OutOfTime):
        context(path, deadline=time.monotonic() - 1).trainer(first, THREE_EPOCHS).fit()
    assert (first.asked, path.exists()) == ([0], True)
    history = context(path).trainer(second, THREE_EPOCHS).fit()
    assert second.asked == [1, 2, 3, *range(4), *range(4)]
    assert second.model.weight.item() == -0.5 * 4 * 3
    assert history == context(None).trainer(Falling(), THREE_EPOCHS).fit()


def test_a_trainer_saves_as_often_as_the_context_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "it.pt"
    at: list[int] = []
    real: Callable[[Falling, int], Tensor] = Falling.loss

    def noted(self: Falling, step: int) -> Tensor:
        at.append(torch.load(path, weights_only=True)["at"]["step"] if path.exists() else -1)
        return real(self, step)

    monkeypatch.setattr(Falling, "loss", noted)
    context(path, every=2).trainer(Falling(), THREE_EPOCHS.model_copy(update={"epochs": 1})).fit()
    assert at == [-1, -1, 2, 2]


@pytest.mark.parametrize("progress", [True, False])
def test_a_trainer_shows_progress_only_if_the_context_says_so(
    progress: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    context(None, progress=progress).trainer(Falling(), THREE_EPOCHS).fit()
    assert ("epoch 1/3" in capfd.readouterr().err) is progress


def test_texts_are_part_of_the_result_and_what_is_said_of_the_making_is_not(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWBITS_CACHE", str(checkout / "cache"))
    made = run(Telling(), Profile.FULL, device="cpu")
    assert made.result.texts == {"source": ["je suis là .", ""], "nothing": []}
    said = made.provenance.model_extra
    assert said == {"epoch_seconds": [1.5, 2.25], "training_seconds": {"softmax": 3.5}}
    assert not said.keys() & made.result.model_dump().keys()
    (path,) = (checkout / "data" / "results").rglob("*.json")
    assert records.load(path) == run(Telling(), Profile.FULL, device="cpu") == made
