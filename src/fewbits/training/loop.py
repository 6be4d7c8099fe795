"""The training loop: every step of it in one place."""

import io
import math
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fewbits import atomic
from fewbits.errors import FewbitsError
from fewbits.quantize import quantized_weights
from fewbits.training.settings import Optimizer, Precision, Schedule, Training

History = list[dict[str, float | int]]

#: what reading and taking in a file raises that was cut, changed, or made by another training
_NO_CHECKPOINT = (
    OSError, EOFError, RuntimeError, LookupError, TypeError, ValueError, AttributeError,
    zipfile.BadZipFile, pickle.UnpicklingError,
)  # fmt: skip


class OutOfTime(FewbitsError):
    """The deadline passed; a checkpoint was written."""


class Diverged(FewbitsError):
    """The training loss or the validation loss is not finite."""


class Task(Protocol):
    """What is learned: steps with a loss, and a validation loss."""

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""

    @property
    def steps(self) -> int:
        """Steps an epoch."""

    def loss(self, step: int) -> Tensor:
        """Return the training loss of step 0, 1, … of an epoch; called in order."""

    def validate(self) -> float:
        """Return the loss that decides which weights are kept."""

    def state(self) -> Any:
        """Return what a later step needs from earlier ones, as tensors, for a checkpoint."""

    def restore(self, state: Any) -> None:
        """Go on from ``state``."""


class Trainer:
    """Trains the model of a task; can be interrupted at any moment and goes on from its last checkpoint.

    On one machine with one number of threads, an interrupted training ends with the same weights as an uninterrupted
    one: a checkpoint holds weights, best weights, task state, random state and position.
    """

    def __init__(
        self,
        task: Task,
        training: Training,
        *,
        device: str = "auto",
        checkpoint: Path | None = None,
        every: int = 500,
        deadline: float = math.inf,
        progress: bool = True,
    ) -> None:
        """Prepare: ``device`` is auto, cpu or cuda, ``every`` counts steps, ``deadline`` is a monotonic time.

        Raises:
            FewbitsError: If the processor cannot compute in the precision asked for.
        """
        from lightning_fabric import Fabric

        self.fabric = Fabric(accelerator=device, devices=1, precision=training.precision.value)
        _check_arithmetic(self.fabric.device, training.precision)
        self.task, self.training, self.checkpoint, self.every = task, training, checkpoint, every
        self.deadline, self.progress = deadline, progress
        self.model = self.fabric.to_device(task.model)
        self.optimizer = _optimizer(self.model, training)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]  #: what a warm-up rises to
        self.best = _copy(self.model)
        self.at: dict[str, Any] = {"epoch": 0, "step": 0, "stale": 0, "loss": 0.0, "best": math.inf, "history": []}

    def fit(self) -> History:
        """Train, leave the weights that the schedule keeps in the model, return one row an epoch.

        Raises:
            Diverged: If a loss is not finite; the last checkpoint is kept.
            FewbitsError: If the checkpoint is damaged or that of another training, or it cannot be written.
            OutOfTime: If the deadline passed.
        """
        if self.checkpoint is not None and self.checkpoint.exists():
            self._resume(self.checkpoint)
        while self.at["epoch"] < self.training.epochs and self.at["stale"] < self.training.patience:
            self._epoch()
            self._validate()
            self._save()
        self.model.load_state_dict(self.best)
        return list(self.at["history"])

    def _epoch(self) -> None:
        self.model.train()
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        for step in self._steps():
            with self.fabric.autocast():
                loss = self.task.loss(step)
            self.optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(loss)
            nn.utils.clip_grad_norm_(parameters, self.training.clip)
            self._warm_up(step)
            self.optimizer.step()
            self._limit()
            self._count(loss, step)

    def _warm_up(self, step: int) -> None:
        if self.training.schedule is Schedule.INVERSE_ROOT:
            passed, warm = self.at["epoch"] * self.task.steps + step + 1, self.training.warmup_steps
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * min(passed / warm, math.sqrt(warm / passed))

    def _limit(self) -> None:
        if (limit := self.training.quantized_limit) is not None:
            with torch.no_grad():
                for _, weight, _ in quantized_weights(self.model):
                    weight.clamp_(-limit, limit)

    def _steps(self) -> Any:
        first, total = self.at["step"], self.task.steps
        label = f"epoch {self.at['epoch'] + 1}/{self.training.epochs}"
        quiet = not self.progress
        return tqdm(range(first, total), label, total, initial=first, leave=False, disable=quiet, mininterval=1)

    def _count(self, loss: Tensor, step: int) -> None:
        self.at["loss"] += loss.item()
        if not math.isfinite(self.at["loss"]):
            raise Diverged(
                f"the training loss is {loss.item()} in epoch {self.at['epoch'] + 1}, step {step + 1}: it diverged. "
                + self._remedy()
            )
        self.at["step"] = step + 1
        late = time.monotonic() > self.deadline
        if late or self.at["step"] % self.every == 0:
            self._save()
        if late:
            raise OutOfTime("the time budget is used up; run the same command again to go on from the checkpoint.")

    def _validate(self) -> None:
        valid = self.task.validate()
        if not math.isfinite(valid):
            raise Diverged(
                f"the validation loss is {valid} after epoch {self.at['epoch'] + 1}, step {self.task.steps}: "
                f"training diverged. {self._remedy()}"
            )
        train = self.at["loss"] / self.task.steps
        rate = self.optimizer.param_groups[0]["lr"]
        row = {"epoch": self.at["epoch"] + 1, "learning_rate": rate, "train_loss": train, "valid_loss": valid}
        self.at["history"].append(row)
        schedule = self.training.schedule
        self.at |= {"epoch": self.at["epoch"] + 1, "step": 0, "loss": 0.0}
        if valid < self.at["best"] or schedule in (Schedule.CONSTANT, Schedule.INVERSE_ROOT):
            self.at |= {"best": valid, "stale": 0}
            self.best = _copy(self.model)
        elif schedule is Schedule.PLATEAU:
            self.at["stale"] += 1
            self._slow_down()
        if schedule is Schedule.CALENDAR and self.at["epoch"] >= self.training.constant_epochs:
            self._slow_down()

    def _slow_down(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] /= self.training.decay

    def _remedy(self) -> str:
        rate, clip = self.optimizer.param_groups[0]["lr"], self.training.clip
        return f"Lower the learning rate (now {rate:g}) or the gradient clip ({clip:g})."

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        random = {"cpu": torch.get_rng_state(), "cuda": cuda}
        content = {"model": self.model.state_dict(), "best": self.best, "optimizer": self.optimizer.state_dict()}
        file = io.BytesIO()
        torch.save({**content, "task": self.task.state(), "random": random, "at": self.at}, file)
        atomic.write(self.checkpoint, file.getvalue())

    def _resume(self, path: Path) -> None:
        try:
            self._restore(_load(path, self.fabric.device))
        except _NO_CHECKPOINT as error:
            raise FewbitsError(
                f"{path} is no checkpoint of this training ({error}). Delete it to start anew."
            ) from error

    def _restore(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.best, self.at = saved["best"], saved["at"]
        self.task.restore(saved["task"])
        torch.set_rng_state(saved["random"]["cpu"].cpu())
        if torch.cuda.is_available() and len(saved["random"]["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([state.cpu() for state in saved["random"]["cuda"]])


def _optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    groups = _groups(model, training)
    match training.optimizer:
        case Optimizer.SGD:
            return torch.optim.SGD(groups, lr=training.learning_rate)
        case Optimizer.ADAM:
            return torch.optim.Adam(groups, lr=training.learning_rate, fused=True)


def _groups(model: nn.Module, training: Training) -> Any:
    """Return the parameters; with their own rates, those of quantized weights after all others."""
    if not training.glorot_rates and training.quantized_rate == 1:
        return model.parameters()
    quantized = {id(weight): weight for _, weight, _ in quantized_weights(model)}
    power = (2 if training.optimizer is Optimizer.SGD else 1) if training.glorot_rates else 0
    rate = training.learning_rate * training.quantized_rate
    own = [{"params": [weight], "lr": rate / _glorot(weight) ** power} for weight in quantized.values()]
    return [{"params": [p for p in model.parameters() if id(p) not in quantized]}, *own]


def _glorot(weight: Tensor) -> float:
    """Return √(1.5 / (inputs + outputs)) of a matrix or a bank of filters."""
    if weight.dim() < 2:
        raise FewbitsError(f"a quantized weight of shape {tuple(weight.shape)} has no inputs and outputs to scale by.")
    field = weight[0, 0].numel()
    return math.sqrt(1.5 / (field * (weight.shape[0] + weight.shape[1])))


def _check_arithmetic(device: torch.device, precision: Precision) -> None:
    """Refuse bfloat16 where the processor's LSTM kernel has none; torch itself fails there without saying so."""
    supported = device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if precision is Precision.BFLOAT16 and not supported:
        raise FewbitsError(
            "this processor has no bfloat16 kernels (on x86 they need AVX-512). Train on another machine or on CUDA, "
            f"or set the precision to {Precision.FLOAT32.value}, which is another run with a record of its own."
        )


def _load(path: Path, device: torch.device) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:  # torch.load itself does not look at the checksums
        if damaged := archive.testzip():
            raise ValueError(f"its part {damaged} is damaged")
    saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return saved


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
