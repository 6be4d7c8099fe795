"""From quantizers to whole models: :func:`quantize`, :func:`pack`, :func:`size_report`.

Quantizing is PyTorch's own parametrization: the float weights stay the trained copy, ``module.weight`` is the quantized
value with a gradient, and fused kernels (``nn.LSTM``, cuDNN) run as before. It works on any ``nn.Module``.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from fewbits.activations import (
    called,
    check_outputs,
    check_quantizer,
    output_quantizers,
    quantize_outputs,
)
from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes
from fewbits.formats.storage import Storage
from fewbits.packed import FIXED_WIDTH, PackedModel, SizeReport
from fewbits.patterns import choose
from fewbits.quantized_weight import QuantizedWeight, detached, naming
from fewbits.quantizers.codebook import Codebook
from fewbits.quantizers.granularity import PerGate
from fewbits.quantizers.quantizer import Quantizer

#: Gates in the rows of a recurrent weight.
GATES = {nn.LSTM: 4, nn.LSTMCell: 4, nn.GRU: 3, nn.GRUCell: 3, nn.RNN: 1, nn.RNNCell: 1}

#: Where PyTorch keeps the float copy of a parametrized weight.
PARAMETRIZED = re.compile(r"parametrizations\.(\w+)\.original$")

__all__ = ["PackedModel", "SizeReport", "pack", "quantize", "size_report", "train_codebooks"]


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
    with naming(name):
        quantizer(weight.detach())


def _gates(owner: nn.Module, name: str) -> int | None:
    """Return how many gates are stacked in a recurrent weight; None if ``owner`` is not recurrent."""
    if "weight_hr" in name:
        return 1  # the projection of an LSTM
    return next((gates for kind, gates in GATES.items() if isinstance(owner, kind)), None)


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
            codes[name] = detached(parametrization.encode(weight))
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
