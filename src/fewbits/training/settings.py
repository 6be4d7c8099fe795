"""How a model is trained: the part of a configuration that the loop reads."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Precision(StrEnum):
    """Arithmetic of the forward and backward pass; weights and updates are always float32."""

    FLOAT32 = "32-true"
    BFLOAT16 = "bf16-mixed"  #: autocast


class Training(BaseModel):
    """Plain SGD that lowers its learning rate when validation stops improving (Zaremba et al. 2014)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(20.0, gt=0)
    decay: float = Field(4.0, gt=1)  #: the learning rate is divided by this after an epoch without improvement
    clip: float = Field(0.25, gt=0)  #: largest norm of all gradients together
    epochs: int = Field(12, ge=1)
    patience: int = Field(4, ge=1)  #: stop after this many epochs in a row without improvement
    precision: Precision = Precision.FLOAT32
