"""The trained weights of runs, kept in the user's cache so that other runs can start from them."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fewbits import atomic, project


def keep(key: str, weights: Mapping[str, Tensor]) -> None:
    """Write the weights of the run ``key``, whole or not at all.

    Raises:
        FewbitsError: If the cache cannot be written.
    """
    atomic.write(_path(key), save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}))


def kept(key: str) -> dict[str, Tensor] | None:
    """Return the weights of the run ``key``; None if they are not there or the file is damaged."""
    try:
        with safe_open(_path(key), "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError):
        return None


def _path(key: str) -> Path:
    return project.cache() / "weights" / f"{key}.safetensors"
