"""Hugging Face's Marian with the weights of a Transformer of this package: a peer that computes the same."""

from typing import Any

import torch
import transformers

from fewbits.models import Transformer
from fewbits.models.transformer import EncoderLayer, sinusoids

NAMES = {
    "self_attn": "self_attention", "self_attn_layer_norm": "self_norm", "encoder_attn": "cross_attention",
    "encoder_attn_layer_norm": "cross_norm", "fc1": "widen", "fc2": "narrow", "final_layer_norm": "feed_forward_norm",
    "q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output",
}  # fmt: skip


def as_marian(ours: Transformer, most_positions: int) -> Any:
    """Return the Marian of a model that shares all embeddings and whose padding and <sos> are one word."""
    first, size = ours.encoder.layers[0], ours.classifier.hidden_size
    assert isinstance(first, EncoderLayer)
    config = transformers.MarianConfig(
        vocab_size=ours.classifier.vocabulary_size, d_model=size, max_position_embeddings=most_positions,
        encoder_layers=len(ours.encoder.layers), decoder_layers=len(ours.decoder.layers),
        encoder_attention_heads=first.self_attention.heads, decoder_attention_heads=first.self_attention.heads,
        encoder_ffn_dim=first.widen.out_features, decoder_ffn_dim=first.widen.out_features,
        activation_function="relu", scale_embedding=True, pad_token_id=ours.sos, eos_token_id=ours.eos,
        decoder_start_token_id=ours.sos, forced_eos_token_id=None,
    )  # fmt: skip
    model = transformers.MarianMTModel(config).eval()
    own = ours.state_dict()
    weights = {"final_logits_bias": own["classifier.output.bias"][None]}
    for name, tensor in model.state_dict().items():
        parts = name.removeprefix("model.").split(".")
        if parts[1:2] == ["layers"]:
            weights[name] = own[".".join(NAMES.get(part, part) for part in parts)]
        elif name != "final_logits_bias":
            positions = sinusoids(torch.arange(len(tensor)), size)
            weights[name] = positions if "positions" in name else own["classifier.output.weight"]
    model.load_state_dict(weights)
    return model
