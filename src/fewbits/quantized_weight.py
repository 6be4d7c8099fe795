"""The parametrization behind every quantized weight of a model."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim.optimizer import register_optimizer_step_post_hook

from fewbits.activations import default_generator
from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes, IntegerGrid, Scheme
from fewbits.quantizers.quantizer import Quantizer


class QuantizedWeight(nn.Module):
    """A weight's quantized value, computed once for each value of the weight.

    PyTorch asks for a parametrized weight two or three times in one call of ``nn.LSTM``. The answer is kept until the
    weight, or what is used with it, is another tensor or changes (its version counter; the step of any optimizer, as
    fused ones do not count; a move to another type or device), the quantizer is replaced, the answer is written to, a
    gradient has passed through it, or the mode changes (training, grad, frozen). A stochastic quantizer therefore draws
    once a backward pass in training; in ``eval()`` it is deterministic. Writing through ``weight.data`` outside an
    optimizer is invisible; use ``with torch.no_grad():`` on the parameter ``parametrizations.weight.original``.
    """

    steps_taken: ClassVar[int] = 0  #: steps of all optimizers so far

    importance: Tensor | None  #: of each weight, for quantizers that minimise an error
    integers: Tensor | None  #: codes that no longer change: see :func:`train_codebooks`

    def __init__(self, quantizer: Quantizer, name: str, learned: Tensor | None = None) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.name = name  #: of the weight, for messages
        self.learned = None if learned is None else nn.Parameter(learned)  #: the quantizer's table, trained
        self.register_buffer("importance", None)
        self.register_buffer("integers", None)
        self._kept: tuple[list[weakref.ref[Tensor]], tuple[Any, ...], Tensor] | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """Return the quantized ``weight``, same shape and dtype."""
        used = [each for each in (weight, self.learned, self.importance, self.integers) if each is not None]
        if any(each.is_inference() for each in used):  # no version counter: nobody could tell when a value is stale
            return self._computed(weight)
        modes = (self.training, torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        of_used = ((each._version, each.data_ptr(), each.requires_grad) for each in used)
        state = (*of_used, self.steps_taken, *modes, self.quantizer)
        if (
            self._kept is not None
            and self._kept[1] == (*state, _version(self._kept[2]))
            and all(kept() is each for kept, each in zip(self._kept[0], used, strict=True))
        ):
            return self._kept[2]
        # Checkpointing counts what is saved for the backward pass, and finds the kept value when it computes again.
        # So what the value itself saves is not for it to count.
        with saved_tensors_hooks(_unchanged, _unchanged):
            value = self._computed(weight)
        if value.requires_grad:
            value.register_hook(_forgetting(weakref.ref(self)))
        self._kept = ([weakref.ref(each) for each in used], (*state, _version(value)), value)
        return value

    def _computed(self, weight: Tensor) -> Tensor:
        if self.integers is not None:
            return self.encode(weight).decode()
        generator = default_generator(weight) if self.training else None
        with naming(self.name):
            return self.quantizer(weight, importance=self.importance, generator=generator, learned=self.learned)

    def encode(self, weight: Tensor) -> Codes:
        """Return the codes of ``weight`` as the model evaluates."""
        if self.integers is None:
            with naming(self.name):
                return self.quantizer.encode(weight, importance=self.importance, learned=self.learned)
        codebook = self.learned
        assert codebook is not None
        grid = IntegerGrid(0, codebook.shape[1] - 1)
        return Codes(self.integers, grid, {"codebook": codebook}, len(codebook), Scheme.CODEBOOK, weight.dtype)

    def fix(self, weight: Tensor) -> None:
        """Keep the codes that ``weight`` has now, and learn the codebook; ``weight`` itself is not trained any more."""
        codes = detached(self.encode(weight))
        self.integers = codes.integers
        self.learned = nn.Parameter(codes.tables["codebook"])
        weight.requires_grad_(False)
        self.forget()

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Take an assigned weight as the new float copy."""
        return weight

    def forget(self) -> None:
        """Drop the kept value, so that the next call computes it again."""
        self._kept = None

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Forget before ``to()`` and the like, which change a weight's data behind its version counter."""
        self.forget()
        return super()._apply(fn, recurse)  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the kept value out of copies: it belongs to one step of one model."""
        return {**self.__dict__, "_kept": None}

    def extra_repr(self) -> str:
        """Show the quantizer when the model is printed."""
        return repr(self.quantizer)


def _unchanged(saved: Any) -> Any:
    return saved


def _version(value: Tensor) -> int:
    return 0 if value.is_inference() else value._version  # inference tensors do not count their changes


def _count_step(*_: Any) -> None:
    QuantizedWeight.steps_taken += 1


register_optimizer_step_post_hook(_count_step)


def _forgetting(owner: "weakref.ref[QuantizedWeight]") -> Any:
    def hook(gradient: Tensor) -> None:
        if (weight := owner()) is not None:
            weight.forget()

    return hook


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Begin messages with the name of a weight."""
    try:
        yield
    except FewbitsError as error:
        raise FewbitsError(f"{name}: {error}") from error


def detached(codes: Codes) -> Codes:
    """Return the codes with copies of their tables, which no training changes."""
    return replace(codes, tables={name: table.detach().clone() for name, table in codes.tables.items()})
