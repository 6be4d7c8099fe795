"""Loss-aware quantization against numpy's running mean of squared gradients and a search over all codes."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from fewbits.errors import FewbitsError
from fewbits.quantize import pack, quantize
from fewbits.quantizers import TWN, Binary, LeastSquaresTernary, Scale
from fewbits.training.loop import OutOfTime, Trainer
from fewbits.training.loss_aware import LossAware
from fewbits.training.settings import Training

TRAINING = Training(learning_rate=0.05, clip=1e9, epochs=3)
STEPS = 4


class Regression:
    """A quantized layer on made-up data."""

    def __init__(self, quantizer: Binary | LeastSquaresTernary | TWN) -> None:
        torch.manual_seed(0)
        self.model = quantize(nn.Linear(3, 2), {"weight": quantizer})
        self.steps = STEPS
        source = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(STEPS, 5, 3, generator=source) * torch.tensor([5.0, 1.0, 0.2])
        self.target = torch.randn(STEPS, 5, 2, generator=source)

    def loss(self, step: int) -> Tensor:
        return (self.model(self.inputs[step]) - self.target[step]).square().mean()

    def validate(self) -> float:
        return (self.model(self.inputs) - self.target).square().mean().item()

    def state(self) -> None:
        return None

    def restore(self, state: None) -> None:
        pass


def trained(quantizer, folder: Path | None = None, stop_after: int | None = None):
    """The model after training, and the gradients of every step as the optimizer saw them."""
    task = LossAware(Regression(quantizer))
    seen: list[np.ndarray] = []

    def note(optimizer, *_):
        seen.append(next(p for g in optimizer.param_groups for p in g["params"] if p.dim() == 2).grad.numpy().copy())

    handle = register_optimizer_step_post_hook(note)
    path = None if folder is None else folder / "c.pt"
    try:
        for deadline in ([0.0] * stop_after if stop_after else []) + [float("inf")]:
            task = LossAware(Regression(quantizer))
            trainer = Trainer(task, TRAINING, device="cpu", checkpoint=path, deadline=deadline, progress=False)
            try:
                trainer.fit()
            except OutOfTime:
                continue
    finally:
        handle.remove()
    return task, seen


def importance(gradients: list[np.ndarray], beta: float = 0.999) -> np.ndarray:
    """√v + 1e-8 by the formula."""
    squares = np.zeros_like(gradients[0], dtype=np.float64)
    for gradient in gradients:
        squares = beta * squares + (1 - beta) * gradient.astype(np.float64) ** 2
    return np.sqrt(squares) + 1e-8


@pytest.mark.parametrize(
    ("quantizer", "values"), [(Binary(Scale.MEAN_ABSOLUTE), (-1, 1)), (LeastSquaresTernary(), (-1, 0, 1))]
)
def test_the_codes_minimise_the_weighted_error(quantizer, values):
    """LAB and LAT, against all codes with the best scale of each."""
    task, gradients = trained(quantizer)
    parametrization = task.model.parametrizations["weight"]
    weight = parametrization.original.detach().double().numpy().ravel()
    kept = parametrization[0].importance.double().numpy()
    each_epoch = [importance(gradients[:count]) for count in range(STEPS, len(gradients) + 1, STEPS)]
    assert any(np.allclose(kept, expected, rtol=1e-5) for expected in each_epoch)  # of the epoch that was kept
    mass = kept.ravel()

    def cost(codes: np.ndarray) -> float:
        power = (mass * codes**2).sum()
        scale = max(0.0, (mass * weight * codes).sum() / power) if power else 0.0
        return float((mass * (weight - scale * codes) ** 2).sum())

    least = min(cost(np.array(codes)) for codes in itertools.product(values, repeat=6))
    value = task.model.weight.detach().double().numpy().ravel()
    assert (mass * (weight - value) ** 2).sum() == pytest.approx(least, rel=1e-5)
    plain = quantizer(torch.from_numpy(weight)).numpy()
    assert (mass * (weight - plain) ** 2).sum() > least  # the importance made a difference


def test_an_interrupted_training_ends_as_an_uninterrupted_one(tmp_path):
    whole, _ = trained(LeastSquaresTernary())
    parts, _ = trained(LeastSquaresTernary(), tmp_path, stop_after=7)
    for (name, one), other in zip(whole.model.state_dict().items(), parts.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_what_is_packed_is_what_was_evaluated():
    task, _ = trained(LeastSquaresTernary())
    packed = pack(task.model)
    assert torch.equal(packed.codes["weight"].decode(), task.model.weight)
    assert set(packed.floats) == {"bias"}
    assert torch.equal(packed.load_into(nn.Linear(3, 2)).weight, task.model.weight)


def test_a_model_whose_quantizers_minimise_nothing_is_refused():
    with pytest.raises(FewbitsError, match="minimises an error"):
        LossAware(Regression(TWN()))
