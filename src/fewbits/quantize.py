"""From quantizers to whole models: :func:`quantize`, :func:`pack`, :func:`size_report`.

Quantizing is PyTorch's own parametrization: the float weights stay the trained copy, ``module.weight`` is the quantized
value with a gradient, and fused kernels (``nn.LSTM``, cuDNN) run as before. It works on any ``nn.Module``.
"""

import copy
import re
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim.optimizer import register_optimizer_step_post_hook

from fewbits.activations import (
    called,
    check_outputs,
    check_quantizer,
    default_generator,
    output_quantizers,
    quantize_outputs,
)
from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes, IntegerGrid, Scheme
from fewbits.formats.storage import Storage
from fewbits.packed import FIXED_WIDTH, PackedModel, SizeReport
from fewbits.patterns import choose
from fewbits.quantizers.codebook import Codebook
from fewbits.quantizers.granularity import PerGate
from fewbits.quantizers.quantizer import Quantizer

#: Gates in the rows of a recurrent weight.
GATES = {nn.LSTM: 4, nn.LSTMCell: 4, nn.GRU: 3, nn.GRUCell: 3, nn.RNN: 1, nn.RNNCell: 1}

#: Where PyTorch keeps the float copy of a parametrized weight.
PARAMETRIZED = re.compile(r"parametrizations\.(\w+)\.original$")

__all__ = ["PackedModel", "SizeReport", "pack", "quantize", "size_report", "train_codebooks"]


class QuantizedWeight(nn.Module):
    """The parametrization: a weight's quantized value, computed once for each value of the weight.

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
        value = self._computed(weight)
        if value.requires_grad:
            value.register_hook(_forgetting(weakref.ref(self)))
        self._kept = ([weakref.ref(each) for each in used], (*state, _version(value)), value)
        return value

    def _computed(self, weight: Tensor) -> Tensor:
        if self.integers is not None:
            return self.encode(weight).decode()
        generator = default_generator(weight) if self.training else None
        with _naming(self.name):
            return self.quantizer(weight, importance=self.importance, generator=generator, learned=self.learned)

    def encode(self, weight: Tensor) -> Codes:
        """Return the codes of ``weight`` as the model evaluates."""
        if self.integers is None:
            with _naming(self.name):
                return self.quantizer.encode(weight, importance=self.importance, learned=self.learned)
        codebook = self.learned
        assert codebook is not None
        grid = IntegerGrid(0, codebook.shape[1] - 1)
        return Codes(self.integers, grid, {"codebook": codebook}, len(codebook), Scheme.CODEBOOK, weight.dtype)

    def fix(self, weight: Tensor) -> None:
        """Keep the codes that ``weight`` has now, and learn the codebook; ``weight`` itself is not trained any more."""
        codes = _frozen(self.encode(weight))
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


def quantize(
    model: nn.Module, weights: Mapping[str, Quantizer], activations: Mapping[str, Quantizer] | None = None
) -> nn.Module:
    """Quantize weights, and module outputs, of ``model`` in place and return it.

    Args:
        model: any module; its parameters keep their identity, so an optimizer made before stays valid. It does not
            know the table that a quantizer such as TTQ learns: make the optimizer after this call.
        weights: quantizer for each pattern of parameter names (shell wildcards; a pattern may leave out leading
            modules: ``"rnn.weight_*"`` matches ``body.rnn.weight_ih_l0``). A parameter that several modules share is
            quantized wherever it is used.
        activations: quantizer for each pattern of module names, applied to the module's output.

    Raises:
        FewbitsError: If a pattern matches nothing (the names there are, are listed), two patterns match one weight, a
            weight or output is quantized already, or a quantizer does not fit its weight. The model is then left as it
            was.

    >>> model = nn.LSTM(4, 4)
    >>> from fewbits.quantizers import TWN, PerGate
    >>> quantize(model, {"weight_*": TWN(PerGate())}).weight_hh_l0.unique().numel() <= 12     # 3 values a gate
    True
    """
    known = sites(model)
    chosen = choose(known, weights, "parameter")
    outputs = choose(called(model), activations or {}, "module")
    check_outputs(model, outputs)
    plan: dict[int, Quantizer] = {}
    for name, quantizer in chosen.items():
        owner, attribute = known[name]
        _check(owner, name, getattr(owner, attribute), quantizer)
        if plan.setdefault(id(getattr(owner, attribute)), quantizer) != quantizer:
            raise FewbitsError(f"{name} is shared with a weight that is to have another quantizer; give both the same.")
    made = {
        id(weight): QuantizedWeight(plan[id(weight)], name, plan[id(weight)].learned(weight))
        for name, (owner, attribute) in known.items()
        if not parametrize.is_parametrized(owner, attribute) and id(weight := getattr(owner, attribute)) in plan
    }
    for owner, attribute in known.values():
        if not parametrize.is_parametrized(owner, attribute) and (key := id(getattr(owner, attribute))) in made:
            # "unsafe" leaves out a first call that checks type and shape, for which a stochastic quantizer would draw.
            parametrize.register_parametrization(owner, attribute, made[key], unsafe=True)
            if isinstance(owner, nn.RNNBase):
                type(owner).__deepcopy__ = _copy_recurrent  # type: ignore[attr-defined]  # a class made for this module
    return quantize_outputs(model, outputs)


def sites(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return where each parameter is used: full name to module and attribute; shared parameters have several.

    A quantized weight keeps the name that it had, so that patterns and messages speak of it as people do.
    """
    return {
        PARAMETRIZED.sub(r"\1", f"{prefix}.{attribute}" if prefix else attribute): (module, attribute)
        for prefix, module in model.named_modules(remove_duplicate=False)
        for attribute, parameter in module._parameters.items()
        if parameter is not None and not isinstance(module, QuantizedWeight)
    }


def _check(owner: nn.Module, name: str, weight: Tensor, quantizer: Quantizer) -> None:
    check_quantizer(name, quantizer)
    if isinstance(owner, parametrize.ParametrizationList):
        if any(isinstance(each, QuantizedWeight) for each in owner):
            raise FewbitsError(f"{name} is quantized already; start from a float model.")
        kinds = ", ".join(type(each).__name__.lstrip("_") for each in owner)
        raise FewbitsError(f"{name} is computed by {kinds}; remove that (torch.nn.utils.parametrize) before.")
    if isinstance(owner, (nn.Embedding, nn.EmbeddingBag)) and owner.max_norm is not None:
        raise FewbitsError(f"{name} is changed by max_norm whenever it is read; quantize with max_norm=None.")
    gates = _gates(owner, name)
    if isinstance(quantizer.granularity, PerGate) and gates and quantizer.granularity.gates != gates:
        right = f"{gates} gates: use PerGate({gates})" if gates > 1 else "no gates: use PerTensor() or PerRow()"
        raise FewbitsError(f"{name} stacks {right}.")
    with _naming(name):
        quantizer(weight.detach())


def _gates(owner: nn.Module, name: str) -> int | None:
    """Return how many gates are stacked in a recurrent weight; None if ``owner`` is not recurrent."""
    if "weight_hr" in name:
        return 1  # the projection of an LSTM
    return next((gates for kind, gates in GATES.items() if isinstance(owner, kind)), None)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Begin messages with the name of a weight."""
    try:
        yield
    except FewbitsError as error:
        raise FewbitsError(f"{name}: {error}") from error


def _gone() -> None:
    return None


def _copy_recurrent(module: nn.RNNBase, memo: dict[int, Any]) -> nn.RNNBase:
    """Deep copy without the weights that ``nn.LSTM`` keeps from its last call: they are part of a graph."""
    replica = module.__new__(type(module))
    memo[id(module)] = replica
    count = len(module._flat_weights_names)
    fresh = {"_flat_weights": [None] * count, "_flat_weight_refs": [_gone] * count}
    replica.__dict__ = copy.deepcopy({**module.__dict__, **fresh}, memo)
    return replica


def quantized_weights(model: nn.Module) -> Iterator[tuple[str, Tensor, QuantizedWeight]]:
    """Yield name, float weight and parametrization of each quantized weight; a shared one under each of its names."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        if parametrize.is_parametrized(module):
            for attribute, chain in module.parametrizations.items():  # type: ignore[union-attr,operator]
                if isinstance(chain[0], QuantizedWeight):
                    yield f"{prefix}.{attribute}" if prefix else attribute, chain.original, chain[0]


def pack(model: nn.Module) -> PackedModel:
    """Return the integers of a quantized model, as it evaluates: what is stored and shipped.

    Weights without a quantizer, and buffers, are kept as they are. ``pack(model).load_into(fresh)`` gives a model whose
    weights equal the quantized ones bit for bit.

    Raises:
        FewbitsError: If nothing in the model is quantized.
    """
    codes: dict[str, Codes] = {}
    names: dict[int, str] = {}
    aliases: dict[str, str] = {}
    quantizers: dict[str, str] = {}
    own: set[int] = set()  # what belongs to the parametrizations and is part of the codes, or of training only
    for name, weight, parametrization in quantized_weights(model):
        own |= {id(tensor) for tensor in parametrization.state_dict(keep_vars=True).values()}
        if (first := names.setdefault(id(weight), name)) != name:
            aliases[name] = first
        else:
            codes[name] = _frozen(parametrization.encode(weight))
            quantizers[name] = repr(parametrization.quantizer)
    if not codes:
        raise FewbitsError("nothing in this model is quantized; call quantize(model, weights={…}) first.")
    floats: dict[str, Tensor] = {}
    own |= set(names)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in own:
            continue
        if (first := names.setdefault(id(tensor), name)) != name:
            aliases[name] = first
        else:
            floats[name] = tensor.detach().clone()
    return PackedModel(codes, floats, aliases, quantizers, output_quantizers(model))


def _frozen(codes: Codes) -> Codes:
    return replace(codes, tables={name: table.detach().clone() for name, table in codes.tables.items()})


def train_codebooks(model: nn.Module) -> nn.Module:
    """From here on train the numbers of the codebooks of ``model`` and nothing else of these weights; in place.

    Each weight keeps the code that it has now, and the gradient of a number of a codebook is the sum of the gradients
    of the weights that share it (Han et al. 2016). Make the optimizer after this call: the codebooks are new
    parameters.

    Raises:
        FewbitsError: If no weight of the model has a :class:`~fewbits.quantizers.Codebook`.
    """
    found = [each for each in quantized_weights(model) if isinstance(each[2].quantizer, Codebook)]
    if not found:
        raise FewbitsError("no weight of this model has a codebook; call quantize(model, weights={…: Codebook(4)}).")
    for parametrization, weight in {each[2]: each[1] for each in found}.items():
        parametrization.fix(weight)
    return model


def size_report(model: nn.Module | PackedModel, storage: Storage | Mapping[str, Storage] = FIXED_WIDTH) -> SizeReport:
    """Return the exact size of each tensor in bits, quantized and in float, and the totals.

    Args:
        model: a quantized model or a packed one.
        storage: how integers become bytes, for all weights or by patterns of their names, see ``PackedModel.save``.

    Raises:
        FewbitsError: If nothing in the model is quantized, or a storage does not fit.
    """
    return SizeReport.of(model if isinstance(model, PackedModel) else pack(model), storage)
