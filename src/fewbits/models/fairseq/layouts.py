"""How fairseq names the parameters of a Transformer and of a ConvS2S, in 2018 and later, and how this package does."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from fewbits.models.fairseq.dictionary import Dictionary

Parameters = dict[str, Tensor]

_TRANSFORMER = (
    (r"^(\w+)\.embed_tokens\.", r"\1.embedding."),
    (r"^decoder\.output_projection\.", "classifier.output."),
    (r"\.self_attn\.", ".self_attention."),
    (r"\.encoder_attn\.", ".cross_attention."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.out_proj\.", ".output."),
    (r"\.self_attn_layer_norm\.", ".self_norm."),
    (r"\.encoder_attn_layer_norm\.", ".cross_norm."),
    (r"\.final_layer_norm\.", ".feed_forward_norm."),
    (r"\.fc1\.", ".widen."),
    (r"\.fc2\.", ".narrow."),
)
_CONVOLUTIONAL = (
    (r"^(\w+)\.embed_tokens\.", r"\1.embedding."),
    (r"^(\w+)\.embed_positions\.", r"\1.positions."),
    (r"^(\w+)\.fc1\.", r"\1.widen."),
    (r"^(\w+)\.fc2\.", r"\1.narrow."),
    (r"^decoder\.fc3\.", "classifier.output."),
    (r"^(\w+)\.convolutions\.(\d+)\.", r"\1.layers.\2.gated.convolution."),
    (r"^(\w+)\.projections\.(\d+)\.", r"\1.layers.\2.residual."),
    (r"^decoder\.attention\.(\d+)\.in_projection\.", r"decoder.layers.\1.query."),
    (r"^decoder\.attention\.(\d+)\.out_projection\.", r"decoder.layers.\1.context."),
)
_NORMS = {"encoder": ("self_attn", "final"), "decoder": ("self_attn", "encoder_attn", "final")}
#: Of the layout's version, and tables of sinusoids, which are computed.
_NO_PARAMETERS = re.compile(r"^(\w+)\.(version|embed_positions\.(_float_tensor|weights))$")


def transformer_layout(theirs: Mapping[str, Tensor]) -> Parameters:
    """Return the parameters of fairseq's ``transformer`` by the names of `Transformer`; unknown ones keep theirs.

    The layout of 2018 has one matrix for queries, keys and values, numbers for the norms of a layer, and ``embed_out``
    for the output matrix, or none where it is the embedding. fairseq's output has no bias: it is 0 here.
    """
    found: Parameters = {}
    for name, value in theirs.items():
        if _NO_PARAMETERS.match(name):
            continue
        joined = re.match(r"(.*\.)in_proj_(weight|bias)$", name)
        if joined:
            for kind, part in zip("qkv", value.chunk(3), strict=True):
                found[f"{joined[1]}{kind}_proj.{joined[2]}"] = part
            continue
        norm = re.match(r"((\w+)\.layers\.\d+)\.layer_norms\.(\d)\.(\w+)$", name)
        if norm and int(norm[3]) < len(_NORMS.get(norm[2], ())):
            name = f"{norm[1]}.{_NORMS[norm[2]][int(norm[3])]}_layer_norm.{norm[4]}"
        found["decoder.output_projection.weight" if name == "decoder.embed_out" else name] = value
    if "decoder.output_projection.weight" not in found and "decoder.embed_tokens.weight" in found:
        found["decoder.output_projection.weight"] = found["decoder.embed_tokens.weight"]
    ours = _renamed(found, _TRANSFORMER)
    if (output := ours.get("classifier.output.weight")) is not None:
        ours["classifier.output.bias"] = output.new_zeros(len(output))
    return ours


def convolutional_layout(theirs: Mapping[str, Tensor]) -> Parameters:
    """Return the parameters of fairseq's ``fconv`` by the names of a folded `ConvSeq2Seq`; unknown ones keep theirs.

    A weight is g v / ‖v‖, with a norm over every axis along which g has one number: of kernels (k, inputs, outputs)
    all but the outputs, in decoders of before 2018 all but k. Positions are numbered from the one after padding.
    """
    found: Parameters = {}
    for name, value in theirs.items():
        if name.endswith(".weight_v") and (scale := theirs.get(f"{name[:-1]}g")) is not None:
            axes = [axis for axis, size in enumerate(scale.shape) if size == 1]
            name, value = name[:-2], value * (scale / torch.linalg.vector_norm(value, dim=axes, keepdim=True))
        elif name.endswith(".weight_g") and f"{name[:-1]}v" in theirs:
            continue
        if re.search(r"\.convolutions\.\d+\.weight$", name):
            value = value.permute(2, 1, 0)
        if name.endswith(".embed_positions.weight"):
            value = value[Dictionary.pad + 1 :]
        if not _NO_PARAMETERS.match(name):
            found[name] = value
    return _renamed(found, _CONVOLUTIONAL)


def _renamed(parameters: Parameters, rules: tuple[tuple[str, str], ...]) -> Parameters:
    ours = {}
    for name, value in parameters.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        ours[name] = value
    return ours
