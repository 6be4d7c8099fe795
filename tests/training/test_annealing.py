"""The sharpness of a soft staircase over a training, and the gradient that it gives."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.quantize import quantize
from fewbits.quantizers import TTQ, SoftStaircase, Uniform
from fewbits.training.annealing import Annealing
from fewbits.training.loop import OutOfTime, Trainer
from fewbits.training.settings import Training


class Regression:
    """A layer that learns to double."""

    def __init__(self, quantizer: Uniform | TTQ | None) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(4, 4)
        if quantizer is not None:
            quantize(self.model, {"weight": quantizer})
        self.steps = 5
        self.inputs = torch.randn(5, 8, 4)

    def loss(self, step: int) -> Tensor:
        return (self.model(self.inputs[step]) - 2 * self.inputs[step]).square().mean()

    def validate(self) -> float:
        return self.loss(0).item()

    def state(self) -> None:
        return None

    def restore(self, state: None) -> None:
        pass


def test_the_sharpness_grows_in_equal_ratios():
    task = Annealing(Regression(Uniform(3)), epochs=2, first=0.5, last=32.0)
    seen = []
    for step in (*range(5), *range(5), 0):
        task.loss(step)
        seen.append(task.model.parametrizations["weight"][0].quantizer.estimator.sharpness)
    assert seen[0] == 0.5
    assert seen[9] == seen[10] == pytest.approx(32.0)
    ratios = [math.log(b / a) for a, b in itertools.pairwise(seen[:10])]
    assert ratios == pytest.approx([math.log(64) / 9] * 9)


def test_the_gradient_is_that_of_the_staircase_with_this_steps_sharpness():
    task = Annealing(Regression(Uniform(3)), epochs=1, first=2.0, last=8.0)
    weight = task.model.parametrizations["weight"].original
    for step in range(3):
        task.model.zero_grad()
        task.loss(step).backward()
        leaf = weight.detach().clone().requires_grad_()
        value = Uniform(3, estimator=SoftStaircase(2.0 * 4 ** (step / 4)))(leaf)
        out = nn.functional.linear(task.task.inputs[step], value, task.model.bias.detach())
        (out - 2 * task.task.inputs[step]).square().mean().backward()
        torch.testing.assert_close(weight.grad, leaf.grad, rtol=0, atol=0)


def test_an_interrupted_training_ends_as_an_uninterrupted_one(tmp_path):
    ends = []
    for stops in (0, 6):
        for deadline in [0.0] * stops + [math.inf]:
            task = Annealing(Regression(Uniform(2)), epochs=3)
            path = tmp_path / "c.pt" if stops else None
            trainer = Trainer(
                task, Training(learning_rate=0.05, epochs=3), device="cpu", checkpoint=path, deadline=deadline,
                progress=False,
            )  # fmt: skip
            try:
                trainer.fit()
            except OutOfTime:
                continue
        ends.append((task.sharpness, task.model.parametrizations["weight"].original.detach()))
    assert ends[0][0] == ends[1][0] == 10.0
    assert torch.equal(ends[0][1], ends[1][1])


@pytest.mark.parametrize(
    ("quantizer", "first", "words"),
    [(None, 1.0, "quantized weights"), (TTQ(), 1.0, "TTQ"), (Uniform(3), 0.0, "positive")],
)
def test_what_cannot_be_annealed_is_refused(quantizer, first, words):
    with pytest.raises(FewbitsError, match=words):
        Annealing(Regression(quantizer), epochs=1, first=first)
