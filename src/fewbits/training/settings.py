"""How a model is trained: the part of a configuration that the loop reads."""

from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Precision(StrEnum):
    """Arithmetic of the forward and backward pass; weights and updates are always float32."""

    FLOAT32 = "32-true"
    BFLOAT16 = "bf16-mixed"  #: autocast


class Optimizer(StrEnum):
    """The rule that turns gradients into steps."""

    SGD = "sgd"
    ADAM = "adam"  #: Kingma and Ba 2015, PyTorch's constants


class Schedule(StrEnum):
    """What validation decides."""

    PLATEAU = "plateau"  #: the learning rate, when to stop, and which weights are kept: the best
    CALENDAR = "calendar"  #: which weights are kept; the rate falls after each epoch from ``constant_epochs`` on
    CONSTANT = "constant"  #: nothing: the rate stays, every epoch is run, the last weights are kept
    #: nothing: over ``warmup_steps`` the rate rises in a line to the learning rate, then it falls as 1 / √step (Vaswani
    #: et al. 2017); every epoch is run, the last weights are kept
    INVERSE_ROOT = "inverse root"


class Training(BaseModel):
    """Plain SGD that lowers its learning rate when validation stops improving (Zaremba et al. 2014), unless told.

    The fields from ``optimizer`` on are left out of a dump at their defaults: the keys of records made before these
    fields existed are hashes of dumps without them.

    >>> list(Training().model_dump())
    ['learning_rate', 'decay', 'clip', 'epochs', 'patience', 'precision']
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(20.0, gt=0)
    decay: float = Field(4.0, gt=1)  #: what the schedule divides the learning rate by
    clip: float = Field(0.25, gt=0)  #: largest norm of all gradients together
    epochs: int = Field(12, ge=1)
    patience: int = Field(4, ge=1)  #: stop after this many epochs in a row without improvement
    precision: Precision = Precision.FLOAT32
    optimizer: Optimizer = Field(Optimizer.SGD, exclude_if=lambda value: value is Optimizer.SGD)
    schedule: Schedule = Field(Schedule.PLATEAU, exclude_if=lambda value: value is Schedule.PLATEAU)
    constant_epochs: int = Field(0, ge=0, exclude_if=lambda value: value == 0)  #: of a calendar, at the first rate
    warmup_steps: int = Field(0, ge=0, exclude_if=lambda value: value == 0)  #: of ``INVERSE_ROOT``, 1 or more
    #: H: after each step the float copies of quantized weights are clipped to ±H (BinaryConnect, with H = 1)
    quantized_limit: float | None = Field(None, gt=0, exclude_if=lambda value: value is None)
    #: whether the rate of each quantized weight is divided by its Glorot coefficient √(1.5 / (inputs + outputs)), with
    #: SGD by its square (BinaryConnect): small weights that have to cross a large distance get large steps
    glorot_rates: bool = Field(False, exclude_if=lambda value: not value)
    #: what the learning rate of each quantized weight is multiplied with (2 √hidden for the LSTMs of Hou et al. 2019)
    quantized_rate: float = Field(1.0, gt=0, exclude_if=lambda value: value == 1)

    @model_validator(mode="after")
    def _steps_to_warm_up(self) -> Self:
        if (self.schedule is Schedule.INVERSE_ROOT) != (self.warmup_steps > 0):
            raise ValueError("warmup_steps, 1 or more, go with the schedule INVERSE_ROOT, and it needs them")
        return self
