"""From quantizers to whole models: :func:`quantize`, :func:`pack`, :func:`size_report`.

Quantizing is PyTorch's own parametrization: the float weights stay the trained copy, ``module.weight`` is the quantized
value with a gradient, and fused kernels (``nn.LSTM``, cuDNN) run as before. It works on any ``nn.Module``.
"""

import copy
import re
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim.optimizer import register_optimizer_step_post_hook

from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes
from fewbits.formats.storage import Storage
from fewbits.packed import FIXED_WIDTH, PackedModel, SizeReport, choose
from fewbits.quantizers.granularity import PerGate
from fewbits.quantizers.quantizer import Quantizer

#: Where PyTorch keeps the float copy of a parametrized weight.
PARAMETRIZED = re.compile(r"parametrizations\.(\w+)\.original$")

__all__ = ["PackedModel", "SizeReport", "pack", "quantize", "size_report"]


class QuantizedWeight(nn.Module):
    """The parametrization: a weight's quantized value, computed once for each value of the weight.

    PyTorch asks for a parametrized weight two or three times in one call of ``nn.LSTM``. The answer is kept until the
    weight changes (its version counter; the step of any optimizer, as fused ones do not count; a move to another type
    or device), a gradient has passed through it, or the mode changes (training, grad, frozen). A stochastic quantizer
    therefore draws once a step in training; in ``eval()`` it is deterministic. Writing through ``weight.data`` outside
    an optimizer is invisible; use ``with torch.no_grad():``.
    """

    steps_taken: ClassVar[int] = 0  #: steps of all optimizers so far

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer
        self._kept: tuple[weakref.ref[Tensor], tuple[Any, ...], Tensor] | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """Return the quantized ``weight``, same shape and dtype."""
        if weight.is_inference():  # has no version counter, so nobody could tell when the kept value is stale
            return self._computed(weight)
        modes = (self.training, torch.is_grad_enabled(), torch.is_inference_mode_enabled(), weight.requires_grad)
        state = (weight._version, weight.data_ptr(), self.steps_taken, *modes)
        if self._kept is not None and self._kept[0]() is weight and self._kept[1] == state:
            return self._kept[2]
        value = self._computed(weight)
        if value.requires_grad:
            value.register_hook(_forgetting(weakref.ref(self)))
        self._kept = (weakref.ref(weight), state, value)
        return value

    def _computed(self, weight: Tensor) -> Tensor:
        return self.quantizer(weight, generator=_generator(weight) if self.training else None)

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


def _count_step(*_: Any) -> None:
    QuantizedWeight.steps_taken += 1


register_optimizer_step_post_hook(_count_step)


def _forgetting(owner: "weakref.ref[QuantizedWeight]") -> Any:
    def hook(gradient: Tensor) -> None:
        if (weight := owner()) is not None:
            weight.forget()

    return hook


def _generator(tensor: Tensor) -> torch.Generator:
    """PyTorch's own generator for the device, so that seeds and checkpoints cover stochastic quantizers too."""
    if tensor.is_cuda:
        return torch.cuda.default_generators[tensor.get_device()]
    return torch.default_generator


class QuantizedOutput:
    """The forward hook of an activation quantizer: quantizes a module's output, or the first tensor of a tuple."""

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = quantizer

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Return the output with its tensor quantized; the range is read from each batch anew."""
        tensor = output[0] if isinstance(output, tuple) else output
        value = self.quantizer(tensor, generator=_generator(tensor) if module.training else None)
        return (value, *output[1:]) if isinstance(output, tuple) else value


def quantize(
    model: nn.Module, weights: Mapping[str, Quantizer], activations: Mapping[str, Quantizer] | None = None
) -> nn.Module:
    """Quantize weights, and module outputs, of ``model`` in place and return it.

    Args:
        model: any module; its parameters keep their identity, so an optimizer made before stays valid.
        weights: quantizer for each pattern of parameter names (shell wildcards; a pattern may leave out leading
            modules: ``"rnn.weight_*"`` matches ``body.rnn.weight_ih_l0``). A parameter that several modules share is
            quantized wherever it is used.
        activations: quantizer for each pattern of module names, applied to the module's output.

    Raises:
        FewbitsError: If a pattern matches nothing (the names there are, are listed), two patterns match one weight, a
            weight or output is quantized already, or a granularity does not fit. The model is then left as it was.

    >>> model = nn.LSTM(4, 4)
    >>> from fewbits.quantizers import TWN, PerGate
    >>> quantize(model, {"weight_*": TWN(PerGate())}).weight_hh_l0.unique().numel() <= 12     # 3 values a gate
    True
    """
    sites = _sites(model)
    chosen = choose(sites, weights, "parameter")
    outputs = choose(dict(model.named_modules()), activations or {}, "module")
    _check_outputs(model, outputs)
    plan: dict[int, Quantizer] = {}
    for name, quantizer in chosen.items():
        owner, attribute = sites[name]
        _check(owner, name, getattr(owner, attribute), quantizer)
        if plan.setdefault(id(getattr(owner, attribute)), quantizer) != quantizer:
            raise FewbitsError(f"{name} is shared with a weight that is to have another quantizer; give both the same.")
    made = {key: QuantizedWeight(quantizer) for key, quantizer in plan.items()}
    for owner, attribute in sites.values():
        if not parametrize.is_parametrized(owner, attribute) and (key := id(getattr(owner, attribute))) in made:
            parametrize.register_parametrization(owner, attribute, made[key])
            if isinstance(owner, nn.RNNBase):
                type(owner).__deepcopy__ = _copy_recurrent  # type: ignore[attr-defined]  # a class made for this module
    return quantize_outputs(model, outputs)


def quantize_outputs(model: nn.Module, outputs: Mapping[str, Quantizer]) -> nn.Module:
    """Quantize the outputs of the modules of these full names, in place, and return ``model``.

    Raises:
        FewbitsError: If a module is not there or its output is quantized already; the model is then left as it was.
    """
    _check_outputs(model, outputs)
    for name, quantizer in outputs.items():
        model.get_submodule(name).register_forward_hook(QuantizedOutput(quantizer))
    return model


def _check_outputs(model: nn.Module, names: Iterable[str]) -> None:
    modules, quantized = dict(model.named_modules()), _activations(model)
    for name in names:
        if name not in modules:
            raise FewbitsError(f"there is no module {name!r}; there are: {', '.join(filter(None, modules)) or 'none'}.")
        if name in quantized:
            raise FewbitsError(f"the output of {name or 'the model'} is quantized already; start from a float model.")


def _sites(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Where each parameter is used: full name to module and attribute; shared parameters have several.

    A quantized weight keeps the name that it had, so that patterns and messages speak of it as people do.
    """
    return {
        PARAMETRIZED.sub(r"\1", f"{prefix}.{attribute}" if prefix else attribute): (module, attribute)
        for prefix, module in model.named_modules(remove_duplicate=False)
        for attribute, parameter in module._parameters.items()
        if parameter is not None
    }


def _check(owner: nn.Module, name: str, weight: Tensor, quantizer: Quantizer) -> None:
    if isinstance(owner, parametrize.ParametrizationList):
        raise FewbitsError(f"{name} is quantized already; start from a float model.")
    if isinstance(owner, nn.GRU) and isinstance(quantizer.granularity, PerGate) and quantizer.granularity.gates != 3:
        raise FewbitsError(f"{name} belongs to a GRU, which has 3 gates: use PerGate(3).")
    try:
        quantizer.encode(weight)
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


def quantized_weights(model: nn.Module) -> Iterator[tuple[str, Tensor, Quantizer]]:
    """Yield name, float weight and quantizer of each quantized weight; a shared one under each of its names."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        if parametrize.is_parametrized(module):
            for attribute, chain in module.parametrizations.items():  # type: ignore[union-attr,operator]
                if isinstance(chain[0], QuantizedWeight):
                    yield f"{prefix}.{attribute}" if prefix else attribute, chain.original, chain[0].quantizer


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
    for name, weight, quantizer in quantized_weights(model):
        if (first := names.setdefault(id(weight), name)) != name:
            aliases[name] = first
        else:
            codes[name], quantizers[name] = quantizer.encode(weight), repr(quantizer)
    if not codes:
        raise FewbitsError("nothing in this model is quantized; call quantize(model, weights={…}) first.")
    floats: dict[str, Tensor] = {}
    quantized = set(names)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in quantized:
            continue
        if (first := names.setdefault(id(tensor), name)) != name:
            aliases[name] = first
        else:
            floats[name] = tensor.detach().clone()
    return PackedModel(codes, floats, aliases, quantizers, _activations(model))


def _activations(model: nn.Module) -> dict[str, str]:
    return {
        name: repr(hook.quantizer)
        for name, module in model.named_modules()
        for hook in module._forward_hooks.values()
        if isinstance(hook, QuantizedOutput)
    }


def size_report(model: nn.Module | PackedModel, storage: Storage | Mapping[str, Storage] = FIXED_WIDTH) -> SizeReport:
    """Return the exact size of each tensor in bits, quantized and in float, and the totals.

    Args:
        model: a quantized model or a packed one.
        storage: how integers become bytes, for all weights or by patterns of their names, see ``PackedModel.save``.

    Raises:
        FewbitsError: If nothing in the model is quantized, or a storage does not fit.
    """
    return SizeReport.of(model if isinstance(model, PackedModel) else pack(model), storage)
