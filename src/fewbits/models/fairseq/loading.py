"""A checkpoint of fairseq and its dictionaries become a translator of this package."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fewbits.classifiers import Softmax
from fewbits.errors import FewbitsError
from fewbits.models.conv_seq2seq import ConvSeq2Seq
from fewbits.models.fairseq.checkpoint import Checkpoint, read_checkpoint
from fewbits.models.fairseq.dictionary import Dictionary
from fewbits.models.fairseq.layouts import Parameters, convolutional_layout, transformer_layout
from fewbits.models.transformer import Sharing, Transformer

#: fairseq's names for the Transformer and for ConvS2S with the sizes of an experiment.
TRANSFORMERS = (
    "transformer",
    "transformer_tiny",
    "transformer_iwslt_de_en",
    "transformer_wmt_en_de",
    "transformer_vaswani_wmt_en_de_big",
    "transformer_vaswani_wmt_en_fr_big",
    "transformer_wmt_en_de_big",
    "transformer_wmt_en_de_big_t2t",
)
CONVOLUTIONAL = ("fconv", "fconv_iwslt_de_en", "fconv_wmt_en_ro", "fconv_wmt_en_de", "fconv_wmt_en_fr")

#: Settings of fairseq's Transformer that change what it computes, and their values in ours.
FIXED = {
    **dict.fromkeys(("encoder_normalize_before", "decoder_normalize_before", "layernorm_embedding"), False),
    **dict.fromkeys(("encoder_learned_pos", "decoder_learned_pos", "no_token_positional_embeddings"), False),
    **dict.fromkeys(("no_scale_embedding", "no_cross_attention", "cross_self_attention", "adaptive_input"), False),
    "adaptive_softmax_cutoff": None,
    "activation_fn": "relu",
}


@dataclass(frozen=True)
class FairseqModel:
    """A translator in ``eval()`` with fairseq's numbering of words, and what searching with it needs.

    fairseq translates with the ``sos`` and ``eos`` of the model, which are the same word, and with
    ``Beam(excluded=model.excluded, min_length=1, force_end=True, max_length=min(201, model.longest))``.
    """

    model: Transformer | ConvSeq2Seq
    source: Dictionary
    target: Dictionary
    longest: int  #: most words of a translation, </s> included
    excluded: tuple[int, ...] = (Dictionary.pad,)  #: words that a translation never has


def load_fairseq(model: Path, source_dictionary: Path, target_dictionary: Path) -> FairseqModel:
    """Return fairseq's translator with a `Softmax` of the same scores as fairseq's own.

    The Transformer is read with norms after the sums, ReLU and sinusoids, with separate embeddings, with one matrix for
    target words and output, and with one for all. ConvS2S is read with attention in each layer. Nothing that a file
    names is run (`read_checkpoint`). Weights are float32, weight normalisation is folded.

    Raises:
        FewbitsError: If a file is missing, damaged or not what it should be, the architecture or one of its settings is
            not one of these, a dictionary has not as many words as the model, or a parameter is unknown, missing or of
            another shape.
    """
    checkpoint = read_checkpoint(model)
    source, target = Dictionary.read(source_dictionary), Dictionary.read(target_dictionary)
    if checkpoint.architecture in TRANSFORMERS:
        made: Transformer | ConvSeq2Seq = _transformer(
            checkpoint, (source_dictionary, source), (target_dictionary, target)
        )
    elif checkpoint.architecture in CONVOLUTIONAL:
        made = _convolutional(checkpoint, (source_dictionary, source), (target_dictionary, target))
    else:
        raise FewbitsError(
            f"{model} has the architecture {checkpoint.architecture!r}; these are read: "
            f"{', '.join((*TRANSFORMERS, *CONVOLUTIONAL))}."
        )
    longest = checkpoint.settings.get("max_target_positions") or 1024
    if isinstance(made, ConvSeq2Seq):
        longest = made.decoder.positions.num_embeddings
    return FairseqModel(made.eval(), source, target, _number(checkpoint, "max_target_positions", longest))


Named = tuple[Path, Dictionary]


def _transformer(checkpoint: Checkpoint, source: Named, target: Named) -> Transformer:
    settings = checkpoint.settings
    for name, read in FIXED.items():
        if (value := settings.get(name, read)) != read and (value or read):
            raise FewbitsError(f"{checkpoint.path} has {name} = {value!r}; only Transformers with {read!r} are read.")
    ours = transformer_layout(checkpoint.parameters)
    _check_sizes(checkpoint, ours, source, target)
    heads = {_number(checkpoint, f"{side}_attention_heads") for side in ("encoder", "decoder")}
    if len(heads) > 1:
        raise FewbitsError(f"{checkpoint.path} has {heads} heads; only one number of heads for both sides is read.")
    sharing = Sharing.TARGET if settings.get("share_decoder_input_output_embed") else Sharing.NONE
    sharing = Sharing.ALL if settings.get("share_all_embeddings") else sharing
    _check_shared(checkpoint, ours, sharing)
    made = Transformer(
        len(source[1]),
        Softmax(_shape(ours, "decoder.embedding.weight")[1], len(target[1])),
        sos=target[1].eos,
        eos=target[1].eos,
        encoder_layers=_layers(ours, "encoder"),
        decoder_layers=_layers(ours, "decoder"),
        heads=heads.pop(),
        feed_forward=_shape(ours, "encoder.layers.0.widen.weight")[0],
        sharing=sharing,
        first_position=target[1].pad + 1,
    )
    _fill(checkpoint, made, ours)
    return made


def _convolutional(checkpoint: Checkpoint, source: Named, target: Named) -> ConvSeq2Seq:
    for side in ("encoder", "decoder"):
        _check_residuals(checkpoint, f"{side}_layers")
    ours = convolutional_layout(checkpoint.parameters)
    _check_sizes(checkpoint, ours, source, target)
    convolutions = {
        side: [
            _shape(ours, f"{side}.layers.{number}.gated.convolution.weight") for number in range(_layers(ours, side))
        ]
        for side in ("encoder", "decoder")
    }
    layers = {side: [(shape[0] // 2, shape[2]) for shape in shapes] for side, shapes in convolutions.items()}
    made = ConvSeq2Seq(
        len(source[1]),
        Softmax(_shape(ours, "classifier.output.weight")[1], len(target[1])),
        sos=target[1].eos,
        eos=target[1].eos,
        embedding_size=_shape(ours, "encoder.embedding.weight")[1],
        encoder=layers["encoder"],
        decoder=layers["decoder"],
        max_length=_shape(ours, "decoder.positions.weight")[0],
    )
    made.fold()
    _fill(checkpoint, made, ours)
    return made


def _fill(checkpoint: Checkpoint, made: Transformer | ConvSeq2Seq, ours: Parameters) -> None:
    """Copy the parameters, all of them.

    Raises:
        FewbitsError: If a parameter is left over, missing, or of another shape.
    """
    wanted = made.state_dict()
    lists = {
        "parameters that are not read": sorted(ours.keys() - wanted.keys()),
        "no": sorted(wanted.keys() - ours.keys()),
        "another shape of": [name for name in wanted if name in ours and ours[name].shape != wanted[name].shape],
    }
    if any(lists.values()):
        found = "; ".join(f"{what} {', '.join(names)}" for what, names in lists.items() if names)
        raise FewbitsError(f"{checkpoint.path} has {found}. It is another model than its settings say; it is not read.")
    made.load_state_dict(ours)


def _check_sizes(checkpoint: Checkpoint, ours: Parameters, source: Named, target: Named) -> None:
    for side, (path, dictionary) in (("encoder", source), ("decoder", target)):
        rows = _shape(ours, f"{side}.embedding.weight")[0]
        if rows != len(dictionary):
            raise FewbitsError(
                f"the {side} of {checkpoint.path} has {rows:,} words, {path} has {len(dictionary):,} with the four "
                "that are in no file; take the dictionaries that came with the model."
            )


def _check_shared(checkpoint: Checkpoint, ours: Parameters, sharing: Sharing) -> None:
    shared = ["encoder.embedding.weight"] if sharing is Sharing.ALL else []
    for name in [*shared, "classifier.output.weight"] if sharing is not Sharing.NONE else []:
        if not torch.equal(ours[name], ours["decoder.embedding.weight"]):
            raise FewbitsError(
                f"{checkpoint.path} shares embeddings by its settings, but {name} is not decoder.embedding.weight."
            )


def _check_residuals(checkpoint: Checkpoint, name: str) -> None:
    """Refuse residual connections over several layers: the third number of a layer, which no parameter shows."""
    try:
        written = ast.walk(ast.parse(str(checkpoint.settings.get(name)), mode="eval"))
    except (SyntaxError, ValueError) as problem:
        raise FewbitsError(
            f"{checkpoint.path} has {name} = {checkpoint.settings[name]!r}, which is no list."
        ) from problem
    tuples = [node.elts for node in written if isinstance(node, ast.Tuple)]
    if any(len(layer) > 2 and ast.unparse(layer[2]) != "1" for layer in tuples):
        raise FewbitsError(
            f"{checkpoint.path} has {name} = {checkpoint.settings[name]}; only residual connections over one layer, "
            "(channels, kernel) or (channels, kernel, 1), are read."
        )


def _layers(ours: Mapping[str, Tensor], side: str) -> int:
    found = [re.match(rf"{side}\.layers\.(\d+)\.", name) for name in ours]
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _shape(ours: Parameters, name: str) -> torch.Size:
    if name not in ours:
        raise FewbitsError(
            f"the checkpoint has no parameter for {name}; it has {', '.join(sorted(ours)[:5])} and more."
        )
    return ours[name].shape


def _number(checkpoint: Checkpoint, name: str, value: object = None) -> int:
    value = checkpoint.settings.get(name) if value is None else value
    if not isinstance(value, int):
        raise FewbitsError(f"{checkpoint.path} has {name} = {value!r}; a whole number is needed.")
    return value
