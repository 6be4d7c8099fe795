"""fairseq's checkpoints, read without running anything that is in them.

A checkpoint is a pickle, and a pickle names functions that its reader calls. Here every name stands for one and the
same class, which keeps what it is given and does nothing. So ``argparse.Namespace`` of 2018 and omegaconf's
``DictConfig`` of 2020 are read as what they hold, without that library. Names that no checkpoint of fairseq has are
refused.
"""

import pickle
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from fewbits.errors import FewbitsError

#: Where the names are from that a checkpoint of fairseq may have, beside those that torch reads.
PACKAGES = ("argparse.", "omegaconf.", "fairseq.", "typing.", "enum.", "collections.", "numpy.")
BUILT_IN = ("builtins.dict", "builtins.list", "builtins.int", "builtins.str", "builtins.float", "builtins.bool")
NUMBERS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype", "_codecs.encode")
METERS = tuple(f"fairseq.meters.{name}Meter" for name in ("Average", "Time", "Stopwatch"))
#: What the files of 2018 may name: they are no zip archives, and torch does not list their names before it reads them.
OF_2018 = ("argparse.Namespace", *METERS, *NUMBERS)


class Stored:
    """Any object of a checkpoint that is neither a tensor nor built in: its state, and no behaviour."""

    state: object = None

    def __new__(cls, *arguments: object) -> "Stored":
        """Return an object without state, whatever the arguments."""
        return super().__new__(cls)

    def __init__(self, *arguments: object) -> None:
        self.state = arguments

    def __setstate__(self, state: object) -> None:
        self.state = state


@dataclass(frozen=True)
class Checkpoint:
    """What a model is made of."""

    path: Path
    settings: Mapping[str, object]  #: of the model, as fairseq names them, such as ``encoder_attention_heads``
    parameters: Mapping[str, Tensor]  #: as fairseq names them, in float32

    @property
    def architecture(self) -> str:
        """The name that fairseq gave to the model with these settings."""
        return str(self.settings.get("arch") or self.settings.get("_name"))


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the settings and parameters of a checkpoint of fairseq, of 2018 (``args``) or newer (``cfg``).

    Raises:
        FewbitsError: If there is no such file, it is damaged or no checkpoint, or it names what no checkpoint needs. Of
            what it names nothing is run.
    """
    if not path.is_file():
        raise FewbitsError(f"there is no file {path}; give a model.pt or checkpoint_best.pt of fairseq.")
    try:
        names = get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else list(OF_2018)
        known = {*BUILT_IN, *NUMBERS}
        strange = sorted(name for name in names if not name.startswith(PACKAGES) and name not in known)
        if not strange:
            with safe_globals([(Stored, name) for name in names]):
                read = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # a damaged file may make the reader raise anything
        raise FewbitsError(_unreadable(path, problem)) from problem
    if strange:
        raise FewbitsError(_malicious(path, ", ".join(strange)))
    return _checkpoint(path, read)


def _malicious(path: Path, names: str) -> str:
    return (
        f"{path} asks for {names}, which no checkpoint of fairseq needs. Nothing of it was run. Take the file from "
        "where it was published, and compare its hash."
    )


def _unreadable(path: Path, problem: Exception) -> str:
    if isinstance(problem, pickle.UnpicklingError) and "GLOBAL" in str(problem):
        return _malicious(path, str(problem).partition("GLOBAL ")[2].partition(" ")[0])
    what = (str(problem).splitlines() or ["it ends too early"])[0]
    return (
        f"{path} is no checkpoint, or only a part of one ({what}). "
        "Compare its size and hash with those of the published file, and fetch it again."
    )


def _checkpoint(path: Path, read: object) -> Checkpoint:
    parts = read if isinstance(read, dict) else {}
    settings = _plain(parts.get("args")) or _plain(parts.get("cfg"))
    if isinstance(settings, dict) and isinstance(settings.get("model"), dict):
        settings = settings["model"]
    parameters = parts.get("model")
    if not isinstance(settings, dict) or not isinstance(parameters, dict):
        raise FewbitsError(
            f"{path} has no {'settings' if isinstance(parameters, dict) else 'model'}; a checkpoint of fairseq is a "
            "dict with `model` and with `args` or `cfg`."
        )
    tensors = {name: value.float() for name, value in parameters.items() if isinstance(value, Tensor)}
    return Checkpoint(path, settings, tensors)


def _plain(value: object) -> object:
    """Return what stored objects hold: a DictConfig its content, a node its value, a Namespace its attributes."""
    if isinstance(value, Stored | Namespace):  # a program may have told torch that it trusts the real Namespace
        state = value.state if isinstance(value, Stored) else vars(value)
        if not isinstance(state, dict):
            return None
        return _plain(state.get("_content", state.get("_val", state)))
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
