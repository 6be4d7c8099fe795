"""Token numbers of whole data sets, kept so that a text is tokenised once.

A file is the SHA-256 of a safetensors file, then that file. It is used only if the hash is right: a file that was cut
or changed counts as absent.
"""

import hashlib
import json
import unicodedata
import warnings
from pathlib import Path

import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from fewbits import atomic, project
from fewbits.data import tokenization
from fewbits.data.registry import Split
from fewbits.data.vocabulary import Vocabulary
from fewbits.errors import FewbitsError

_DIGEST_BYTES = hashlib.sha256().digest_size


def path(name: str, rule: tokenization.Tokenization, hashes: dict[str, str]) -> Path:
    """Return the file for the tokens of ``name``: another one for other data, another rule or other Unicode tables."""
    identity = json.dumps([tokenization.VERSION, rule, unicodedata.unidata_version, hashes], sort_keys=True)
    return project.cache() / "tokens" / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:32]}"


def load(path: Path) -> tuple[Vocabulary, dict[Split, Tensor]] | None:
    """Return what was saved in ``path``, or ``None`` if the file is absent, unreadable or not as it was saved."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        return None
    tensors = from_safetensors(payload)
    words = tensors["words"].numpy().tobytes().decode().split("\n")
    return Vocabulary(tuple(words)), {split: tensors[split] for split in Split}


def save(tokens: tuple[Vocabulary, dict[Split, Tensor]], path: Path) -> None:
    """Write ``tokens`` to ``path``, whole or not at all; warn, and go on, if that is not possible."""
    vocabulary, ids = tokens
    words = torch.frombuffer(bytearray("\n".join(vocabulary.words).encode()), dtype=torch.uint8)
    payload = to_safetensors({"words": words, **{split.value: numbers for split, numbers in ids.items()}})
    try:
        atomic.write(path, hashlib.sha256(payload).digest() + payload)
    except FewbitsError as error:
        warnings.warn(f"the tokens were not kept for the next time: {error}", stacklevel=3)
