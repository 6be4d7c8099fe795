import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.data import Labelled
from fewbits.errors import FewbitsError
from fewbits.training.classification import Classification
from fewbits.training.loop import OutOfTime, Trainer
from fewbits.training.settings import Optimizer, Schedule, Training

NUMBER = 23
#: Each image is its own number, so that a batch tells which images it has.
TRAIN = Labelled(torch.arange(NUMBER, dtype=torch.float32)[:, None], torch.arange(NUMBER) % 3)
VALID = Labelled(torch.arange(7, dtype=torch.float32)[:, None] - 3, torch.arange(7) % 3)


class Noting(nn.Module):
    """A linear classifier that notes what it reads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(1, 3)
        self.read: list[list[int]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.read.append([int(number) for number in images.flatten()])
        return self.linear(images / 10)


def task(batch_size: int = 5) -> Classification:
    torch.manual_seed(2)
    return Classification(Noting(), TRAIN, VALID, batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [2, 5, 22, 23])
def test_an_epoch_has_full_batches_of_different_images(batch_size: int) -> None:
    one = task(batch_size)
    assert one.steps == NUMBER // batch_size
    for step in range(one.steps):
        one.loss(step)
    assert [len(batch) for batch in one.model.read] == [batch_size] * one.steps
    seen = [number for batch in one.model.read for number in batch]
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(NUMBER))


def test_each_epoch_has_another_order_and_leaves_out_others() -> None:
    one, epochs = task(), []
    for _ in range(20):
        one.model.read.clear()
        for step in range(one.steps):
            one.loss(step)
        epochs.append([number for batch in one.model.read for number in batch])
    assert len({tuple(epoch) for epoch in epochs}) == 20
    assert set().union(*(set(range(NUMBER)) - set(epoch) for epoch in epochs)) == set(range(NUMBER))


def test_the_loss_is_the_mean_cross_entropy_of_its_batch() -> None:
    one = task()
    for step in range(one.steps):
        found = one.loss(step)
        chosen = torch.tensor(one.model.read[-1])
        logits = one.model.linear(TRAIN.images[chosen] / 10)
        assert torch.equal(found, F.cross_entropy(logits, TRAIN.labels[chosen]))
        assert found.requires_grad


def test_validation_is_the_mean_over_all_its_images() -> None:
    one = task()
    logits = one.model.linear(VALID.images / 10).tolist()
    nats = [math.log(sum(map(math.exp, row))) - row[label] for row, label in zip(logits, VALID.labels, strict=True)]
    assert one.validate() == pytest.approx(math.fsum(nats) / 7, rel=1e-6)  # of logits in float32


@pytest.mark.parametrize("batch_size", [1, 0, NUMBER + 1])
def test_batches_that_cannot_be_are_refused(batch_size: int) -> None:
    with pytest.raises(FewbitsError, match=f"a batch of {batch_size} images cannot be drawn from {NUMBER}"):
        task(batch_size)


def test_stopped_after_every_step_it_ends_the_same(tmp_path) -> None:
    training = Training(optimizer=Optimizer.ADAM, learning_rate=0.1, epochs=2, schedule=Schedule.CONSTANT)
    whole = task()
    expected = Trainer(whole, training, device="cpu", progress=False).fit()
    for stops in range(9):
        one = task()
        trainer = Trainer(
            one,
            training,
            device="cpu",
            progress=False,
            checkpoint=tmp_path / "it.pt",
            deadline=0 if stops < 8 else math.inf,
        )
        if stops < 8:
            with pytest.raises(OutOfTime):
                trainer.fit()
    assert trainer.fit() == expected
    assert torch.equal(one.model.linear.weight, whole.model.linear.weight)
    assert expected[-1]["train_loss"] < expected[0]["train_loss"]
