"""The trained weights of runs, kept so that other runs can start from them.

They lie in the user's cache, or, for runs that leave nothing on disk, in the memory of this process.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fewbits import atomic, project

_in_memory: dict[str, dict[str, Tensor]] = {}


def keep(key: str, weights: Mapping[str, Tensor], *, on_disk: bool) -> None:
    """Keep the weights of the run ``key``; a file is written whole or not at all.

    Raises:
        FewbitsError: If the cache cannot be written.
    """
    own = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()}
    if on_disk:
        atomic.write(_path(key), save(own))
    else:
        _in_memory[key] = own


def kept(key: str, *, on_disk: bool) -> dict[str, Tensor] | None:
    """Return the weights of the run ``key``; None if they are not there or the file is damaged."""
    if not on_disk:
        found = _in_memory.get(key)
        return found and {name: tensor.clone() for name, tensor in found.items()}
    try:
        with safe_open(_path(key), "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError):
        return None


def _path(key: str) -> Path:
    return project.cache() / "weights" / f"{key}.safetensors"
