"""Packed models: integer codes on disk in safetensors, a card to read, and exact sizes."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from fewbits import atomic
from fewbits.activations import quantize_outputs
from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes, IntegerGrid, Scheme
from fewbits.formats.storage import FixedWidth, Payload, Storage
from fewbits.patterns import choose
from fewbits.quantizers.notation import parse
from fewbits.quantizers.uniform import follows

if TYPE_CHECKING:
    import pandas as pd

#: What is read. In format 1 every code is of fixed width; format 3 may have schemes other than the affine one.
READABLE = ("fewbits packed model 1", "fewbits packed model 2", "fewbits packed model 3")
FILE, CARD = "model.safetensors", "card.md"
FIXED_WIDTH = FixedWidth()


@dataclass(frozen=True)
class TensorSize:
    """The size of one stored tensor."""

    name: str
    shape: tuple[int, ...]
    quantizer: str  #: as text; "float" if the tensor is stored as it is
    storage: str  #: as text; "float" if the tensor is stored as it is
    bits: int  #: exact: payload, its own tables and the quantizer's
    nbytes: int  #: as stored: every payload padded to whole bytes
    float_bits: int  #: the same tensor in its float type


@dataclass(frozen=True)
class SizeReport:
    """Sizes of all tensors; a tensor that several modules share counts once."""

    tensors: tuple[TensorSize, ...]

    @staticmethod
    def of(packed: "PackedModel", storage: Storage | Mapping[str, Storage] = FIXED_WIDTH) -> "SizeReport":
        """Return the sizes of a packed model that is saved with ``storage``.

        Raises:
            FewbitsError: As :meth:`PackedModel.save`.
        """
        return SizeReport._of(packed, _payloads(packed.codes, storage))

    @staticmethod
    def _of(packed: "PackedModel", payloads: Mapping[str, tuple[Storage, Payload]]) -> "SizeReport":
        rows = []
        for name, (storage, payload) in payloads.items():
            codes = packed.codes[name]
            tables = sum(_nbytes(table) for table in codes.tables.values())
            bits, nbytes = payload.bits + 8 * tables, payload.nbytes + tables
            float_bits = 8 * codes.integers.numel() * codes.dtype.itemsize
            quantizer = packed.quantizers[name]
            rows.append(TensorSize(name, tuple(codes.shape), quantizer, repr(storage), bits, nbytes, float_bits))
        for name, tensor in packed.floats.items():
            nbytes = _nbytes(tensor)
            rows.append(TensorSize(name, tuple(tensor.shape), "float", "float", 8 * nbytes, nbytes, 8 * nbytes))
        return SizeReport(tuple(rows))

    @property
    def bits(self) -> int:
        """Exact size of the model in bits."""
        return sum(row.bits for row in self.tensors)

    @property
    def nbytes(self) -> int:
        """Size of the stored tensors in bytes; the file adds its header, which :meth:`PackedModel.save` returns."""
        return sum(row.nbytes for row in self.tensors)

    @property
    def float_bits(self) -> int:
        """Size of the float model in bits."""
        return sum(row.float_bits for row in self.tensors)

    @property
    def ratio(self) -> float:
        """Float size over size; 1 for a model without parameters."""
        return self.float_bits / self.bits if self.bits else 1.0

    def table(self) -> "pd.DataFrame":
        """Return one row a tensor, for notebooks."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.tensors])

    def __str__(self) -> str:
        """One line a tensor, largest first, and the total."""
        lines = [
            f"{row.bits / 8:14,.0f} B  {row.float_bits / row.bits:5.1f}×  {row.name}  {row.quantizer}"
            for row in sorted(self.tensors, key=lambda row: -row.bits)
            if row.bits
        ]
        return "\n".join([*lines, f"{self.bits / 8:14,.0f} B  {self.ratio:5.1f}×  all"])


@dataclass(frozen=True, eq=False)
class PackedModel:
    """The integers of a quantized model and everything else that it needs to be evaluated."""

    codes: Mapping[str, Codes]  #: quantized weights by parameter name
    floats: Mapping[str, Tensor]  #: all other parameters and buffers
    aliases: Mapping[str, str] = field(default_factory=dict)  #: names that share the tensor of another name
    quantizers: Mapping[str, str] = field(default_factory=dict)  #: the quantizer of each weight, as text
    activations: Mapping[str, str] = field(default_factory=dict)  #: the quantizer of each module output, as text

    def save(self, folder: str | Path, storage: Storage | Mapping[str, Storage] = FIXED_WIDTH) -> int:
        """Write ``model.safetensors`` and a readable ``card.md`` into ``folder``; return the bytes of the former.

        Args:
            folder: is made if it is missing.
            storage: how integers become bytes, for all weights or for each pattern of their names (as in ``quantize``;
                the others are stored at fixed width). What is loaded again does not depend on it.

        Raises:
            FewbitsError: If the folder cannot be written, a pattern matches no quantized weight or one that another
                matches, or a storage cannot serve a weight's grid; an older file there is left as it was.
        """
        tensors: dict[str, Tensor] = {f"float/{name}": t.detach().cpu().contiguous() for name, t in self.floats.items()}
        payloads = _payloads(self.codes, storage)
        for name, codes in self.codes.items():
            tensors |= {f"{part}/{name}": tensor for part, tensor in payloads[name][1].parts.items()}
            tensors |= {f"table/{table}/{name}": t.detach().cpu().contiguous() for table, t in codes.tables.items()}
        rows = {name: _described(c, self.quantizers[name], payloads[name][0]) for name, c in self.codes.items()}
        header = {
            "format": self._format,
            "weights": rows,
            "aliases": dict(self.aliases),
            "activations": dict(self.activations),
        }
        text = json.dumps(header)
        data = to_safetensors(tensors, {"fewbits": text, "sha256": _digest(text, tensors)})
        atomic.write(Path(folder) / FILE, data)
        atomic.write(Path(folder) / CARD, self._card(SizeReport._of(self, payloads), len(data)))
        return len(data)

    @staticmethod
    def load(folder: str | Path) -> "PackedModel":
        """Read what :meth:`save` wrote; the card is not needed.

        Raises:
            FewbitsError: If the file is missing, truncated, damaged or not a packed model; nothing is loaded then.
        """
        path = Path(folder) / FILE
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            header = json.loads(about["fewbits"])
            if header["format"] not in READABLE:
                raise FewbitsError(f"{path} has format {header['format']!r}, this version reads {', '.join(READABLE)}.")
            if _digest(about["fewbits"], tensors) != about["sha256"]:
                raise ValueError("its SHA-256 is not the one it was saved with")
            return _restored(header, tensors)
        except FileNotFoundError:
            raise FewbitsError(f"there is no {path}; `pack(model).save(folder)` writes one.") from None
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise FewbitsError(f"{path} is no packed model or is damaged ({error}); pack and save it again.") from error

    def load_into(self, model: nn.Module) -> nn.Module:
        """Set the weights of ``model``, a float model of the same architecture, to the decoded ones, and return it.

        Activation quantizers are put back as well.

        Raises:
            FewbitsError: If names or shapes differ, a type of the model does not hold its values, or the model shares
                what the packed one does not (all differences are listed); or an activation quantizer is none of this
                package's. The model is then left as it was.
        """
        stored = dict(self.floats) | {name: codes.decode() for name, codes in self.codes.items()}
        stored |= {alias: stored[name] for alias, name in self.aliases.items()}
        own = model.state_dict() | {name: stored[name] for name in self._ranges() & stored.keys()}
        place: dict[tuple[int, torch.Size], str] = {}
        wrong = sorted(stored.keys() ^ own.keys())
        for name in sorted(stored.keys() & own.keys()):
            value, target = stored[name], own[name]
            if value.shape != target.shape:
                wrong.append(f"{name}, packed {tuple(value.shape)}, model {tuple(target.shape)}")
            elif not _same(value, value.to(target.dtype)):
                wrong.append(f"{name}, which {target.dtype} does not hold exactly: convert the model to {value.dtype}")
            elif not _same(value, stored[first := place.setdefault((target.data_ptr(), target.shape), name)]):
                wrong.append(f"{name}, which this model shares with {first} and the packed one does not")
        if wrong:
            raise FewbitsError(f"this model has another architecture than the packed one: {'; '.join(wrong)}.")
        quantize_outputs(model, {name: parse(text) for name, text in self.activations.items()})
        model.load_state_dict(stored)
        return model

    def _ranges(self) -> set[str]:
        """The names of the buffers that activation quantizers bring along."""
        following = (name for name, text in self.activations.items() if follows(parse(text)))
        return {f"{name}.output_range".removeprefix(".") for name in following}

    @property
    def _format(self) -> str:
        """The lowest that says everything, so that older versions read what they can."""
        return READABLE[1 if all(codes.scheme is Scheme.AFFINE for codes in self.codes.values()) else 2]

    def _card(self, report: SizeReport, file_bytes: int) -> str:
        rows = "\n".join(
            f"| `{row.name}` | {'×'.join(map(str, row.shape))} | `{row.quantizer}` "
            f"| {row.bits / max(1, math.prod(row.shape)):.4f} | {row.nbytes:,} | `{row.storage}` |"
            for row in report.tensors
        )
        outputs = "\n".join(f"- output of `{name}`: `{text}`" for name, text in self.activations.items())
        return (
            f"# Packed model\n\n{self._format}.\n"
            "Read it with `fewbits.quantize.PackedModel.load(folder).load_into(model)`.\n\n"
            f"| | |\n|---|---|\n| exact size | {report.bits:,} bits |\n| tensors | {report.nbytes:,} bytes |\n"
            f"| {FILE} | {file_bytes:,} bytes |\n| in float | {report.float_bits // 8:,} bytes |\n"
            f"| ratio | {report.ratio:.2f} |\n\n"
            f"| tensor | shape | quantizer | bits a weight | bytes | storage |\n|---|---|---|---|---|---|\n{rows}\n"
            + (f"\nQuantized while it runs:\n\n{outputs}\n" if outputs else "")
        )


def _digest(header: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the header and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _same(value: Tensor, other: Tensor) -> bool:
    """Return whether two tensors hold the same numbers; a range that was never seen is NaN."""
    return torch.allclose(value, other.to(value), rtol=0, atol=0, equal_nan=True)


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _payloads(
    codes: Mapping[str, Codes], storage: Storage | Mapping[str, Storage]
) -> dict[str, tuple[Storage, Payload]]:
    """The integers of each weight as bytes, by the storage chosen for it."""
    if isinstance(storage, Mapping):
        chosen = choose(codes, storage, "quantized weight")
    else:
        chosen = dict.fromkeys(codes, storage)
    payloads: dict[str, tuple[Storage, Payload]] = {}
    for name, code in codes.items():
        kind = chosen.get(name, FIXED_WIDTH)
        if not isinstance(kind, Storage):
            raise FewbitsError(f"{name}: {kind!r} is no storage; give one, for example Huffman().")
        try:
            payloads[name] = kind, kind.pack(code.integers, code.grid)
        except FewbitsError as error:
            raise FewbitsError(f"{name}: {error}") from error
    return payloads


def _described(codes: Codes, quantizer: str, storage: Storage) -> dict[str, Any]:
    return {
        "shape": list(codes.shape),
        "grid": [codes.grid.low, codes.grid.high, codes.grid.step],
        "groups": codes.groups,
        "scheme": codes.scheme.value,
        "dtype": str(codes.dtype).removeprefix("torch."),
        "tables": sorted(codes.tables),
        "quantizer": quantizer,
        "storage": repr(storage),
    }


def _restored(header: Any, tensors: dict[str, Tensor]) -> PackedModel:
    """The model of a header and its tensors, which say the same, or an error: the digest only says they were saved."""
    match header:
        case {"weights": dict(rows), "aliases": dict(aliases), "activations": dict(activations)}:
            codes = {name: _restored_codes(name, row, tensors) for name, row in rows.items()}
        case _:
            raise ValueError("its header has no weights, aliases or activations")
    if foreign := [name for name in tensors if not name.startswith("float/")]:
        raise ValueError(f"{foreign[0]} belongs to no weight")
    floats = {name.removeprefix("float/"): tensor for name, tensor in tensors.items()}
    own = codes.keys() | floats.keys()
    if codes.keys() & floats.keys() or aliases.keys() & own or not {*aliases.values()} <= own:
        raise ValueError("two tensors have one name, or a name has no tensor")
    if not all(isinstance(text, str) for text in activations.values()):
        raise ValueError("an activation quantizer is no text")
    return PackedModel(codes, floats, aliases, {name: row["quantizer"] for name, row in rows.items()}, activations)


def _restored_codes(name: str, row: Any, tensors: dict[str, Tensor]) -> Codes:
    """The codes of one weight; its tensors are taken out of ``tensors``."""
    match row:
        case {
            "shape": [*shape], "grid": [int(low), int(high), int(step)], "groups": int(groups), "scheme": scheme,
            "dtype": str(word), "tables": [*known], "quantizer": str(),
        } if tuple(known) in Scheme(scheme).tables:  # fmt: skip
            dtype = getattr(torch, word, None)
        case _:
            raise ValueError(f"its header does not describe {name}")
    try:
        storage, grid = Storage.parse(row.get("storage", "FixedWidth()")), IntegerGrid(low, high, step)
        if not Scheme(scheme).takes(grid):
            raise FewbitsError(f"the scheme {scheme!r} has no {grid}.")
        integers = storage.unpack({part: tensors.pop(f"{part}/{name}") for part in storage.parts}, shape, grid)
    except FewbitsError as error:
        raise ValueError(f"{name}: {error}") from error
    tables = {table: tensors.pop(f"table/{table}/{name}") for table in known}
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"{name} is of type {word}, which is no floating-point type")
    if integers.numel() and (groups < 1 or integers.numel() % groups):
        raise ValueError(f"{name} has {integers.numel()} codes, which are not {groups} equal groups")
    rows = {"codebook": (groups, grid.points), "coefficients": (groups, grid.bits)}
    for table, tensor in tables.items():
        if tensor.shape != rows.get(table, (groups,)) or tensor.is_floating_point() != (table != "zero_point"):
            raise ValueError(f"the table {table} of {name} does not fit its groups and grid")
    return Codes(integers, grid, tables, groups, Scheme(scheme), dtype)
