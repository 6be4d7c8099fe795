"""Activation quantizers: hooks that quantize what modules put out."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear as ReadByAttention

from fewbits.errors import FewbitsError
from fewbits.quantizers.quantizer import Quantizer
from fewbits.quantizers.ranges import Given, MovingAverage
from fewbits.quantizers.uniform import Uniform, follows


class QuantizedOutput:
    """The forward hook of an activation quantizer: quantizes a module's output, or the first tensor of a tuple.

    A tuple with names, such as a packed sequence, stays what it is.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = quantizer

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Return the output with its tensor quantized; a range is read from each batch anew, or a moving average."""
        if isinstance(output, tuple) and output:
            changed = (self(module, inputs, output[0]), *output[1:])
            return output._make(changed) if hasattr(output, "_make") else changed
        if not isinstance(output, Tensor):
            raise FewbitsError(
                f"the output of {type(module).__name__} is, or begins with, a {type(output).__name__}, not a tensor; "
                "quantize the output of a module inside it."
            )
        quantizer = self._following(module, output) if follows(self.quantizer) else self.quantizer
        return quantizer(output, generator=default_generator(output) if module.training else None)

    def _following(self, module: nn.Module, tensor: Tensor) -> Quantizer:
        """Move the mean range in training, and return the quantizer over it."""
        assert isinstance(self.quantizer, Uniform)
        assert isinstance(self.quantizer.range, MovingAverage)
        mean = module.get_buffer("output_range")
        if module.training and tensor.numel() and (after := self.quantizer.range.after(mean, tensor)).isfinite().all():
            mean.copy_(after)  # a batch with NaN or infinity, which is refused below, leaves no trace
        low, high = mean.tolist()
        if math.isnan(low) and not module.training:
            raise FewbitsError("the range of this activation was never seen: pass a batch in training mode first.")
        low, high = min(low, 0.0), max(high, 0.0)  # as every grid has it, so that one number alone is a range too
        return replace(self.quantizer, range=Given(low, high)) if low < high else self.quantizer


def quantize_outputs(model: nn.Module, outputs: Mapping[str, Quantizer]) -> nn.Module:
    """Quantize the outputs of the modules of these full names, in place, and return ``model``.

    Raises:
        FewbitsError: If a module is not there or its output is quantized already; the model is then left as it was.
    """
    check_outputs(model, outputs)
    for name, quantizer in outputs.items():
        module = model.get_submodule(name)
        module.register_forward_hook(QuantizedOutput(quantizer))
        if follows(quantizer):
            module.register_buffer("output_range", torch.full((2,), math.nan))
    return model


def check_outputs(model: nn.Module, outputs: Mapping[str, Quantizer]) -> None:
    """Refuse names of no module, and of modules whose output is quantized already; and what is no quantizer.

    Raises:
        FewbitsError: With the name, and the names that there are.
    """
    modules, quantized = called(model), output_quantizers(model)
    for name, quantizer in outputs.items():
        check_quantizer(name or "the model", quantizer)
        if name not in modules:
            raise FewbitsError(f"there is no module {name!r}; there are: {', '.join(filter(None, modules)) or 'none'}.")
        if name in quantized:
            raise FewbitsError(f"the output of {name or 'the model'} is quantized already; start from a float model.")


def called(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules whose outputs can be quantized, by their full names.

    Lists of modules have no output, the projection inside ``nn.MultiheadAttention`` is never called, and the
    parametrizations of a quantized weight are no part of the user's model.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if type(module).forward is not nn.Module.forward
        and not isinstance(module, ReadByAttention)
        and "parametrizations" not in name.split(".")
    }


def check_quantizer(name: str, quantizer: Any) -> None:
    """Refuse what is no quantizer.

    Raises:
        FewbitsError: With the name that it was to have.
    """
    if not isinstance(quantizer, Quantizer):
        raise FewbitsError(f"{name}: {quantizer!r} is no quantizer; give one, such as TWN(PerRow()), or parse(text).")


def output_quantizers(model: nn.Module) -> dict[str, str]:
    """Return the quantizer, as text, of each module whose output is quantized."""
    return {
        name: repr(hook.quantizer)
        for name, module in model.named_modules()
        for hook in module._forward_hooks.values()
        if isinstance(hook, QuantizedOutput)
    }


def default_generator(tensor: Tensor) -> torch.Generator:
    """Return PyTorch's own generator for the device, so that seeds and checkpoints cover stochastic quantizers too."""
    if tensor.is_cuda:
        return torch.cuda.default_generators[tensor.get_device()]
    return torch.default_generator
