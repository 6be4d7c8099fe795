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
from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes, IntegerGrid, Scheme

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "fewbits packed model 1"
FILE, CARD = "model.safetensors", "card.md"


@dataclass(frozen=True)
class TensorSize:
    """The size of one stored tensor."""

    name: str
    shape: tuple[int, ...]
    quantizer: str  #: as text; "float" if the tensor is stored as it is
    bits: int  #: exact: payload and tables
    nbytes: int  #: as stored: every payload padded to whole bytes
    float_bits: int  #: the same tensor in its float type


@dataclass(frozen=True)
class SizeReport:
    """Sizes of all tensors; a tensor that several modules share counts once."""

    tensors: tuple[TensorSize, ...]

    @staticmethod
    def of(packed: "PackedModel") -> "SizeReport":
        """Return the sizes of a packed model."""
        rows = [
            TensorSize(
                name=name,
                shape=tuple(codes.shape),
                quantizer=packed.quantizers[name],
                bits=codes.bits,
                nbytes=codes.nbytes,
                float_bits=8 * codes.integers.numel() * codes.dtype.itemsize,
            )
            for name, codes in packed.codes.items()
        ]
        for name, tensor in packed.floats.items():
            nbytes = tensor.numel() * tensor.element_size()
            rows.append(TensorSize(name, tuple(tensor.shape), "float", 8 * nbytes, nbytes, 8 * nbytes))
        return SizeReport(tuple(rows))

    @property
    def bits(self) -> int:
        """Exact size of the model in bits."""
        return sum(row.bits for row in self.tensors)

    @property
    def nbytes(self) -> int:
        """Size of the stored tensors in bytes; the file adds its header, see :attr:`PackedModel.file_bytes`."""
        return sum(row.nbytes for row in self.tensors)

    @property
    def float_bits(self) -> int:
        """Size of the float model in bits."""
        return sum(row.float_bits for row in self.tensors)

    @property
    def ratio(self) -> float:
        """Float size over size."""
        return self.float_bits / self.bits

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

    def save(self, folder: str | Path) -> int:
        """Write ``model.safetensors`` and a readable ``card.md`` into ``folder``; return the bytes of the former.

        Raises:
            FewbitsError: If the folder cannot be written; an older file there is left as it was.
        """
        tensors: dict[str, Tensor] = {f"float/{name}": t.detach().cpu().contiguous() for name, t in self.floats.items()}
        for name, codes in self.codes.items():
            tensors[f"codes/{name}"] = codes.packed()
            tensors |= {f"table/{table}/{name}": t.detach().cpu().contiguous() for table, t in codes.tables.items()}
        header = {
            "format": FORMAT,
            "weights": {name: _described(c, self.quantizers[name]) for name, c in self.codes.items()},
            "aliases": dict(self.aliases),
            "activations": dict(self.activations),
        }
        text = json.dumps(header)
        data = to_safetensors(tensors, {"fewbits": text, "sha256": _digest(text, tensors)})
        atomic.write(Path(folder) / FILE, data)
        atomic.write(Path(folder) / CARD, self._card(len(data)))
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
            if header["format"] != FORMAT:
                raise FewbitsError(f"{path} has format {header['format']!r}, this version reads {FORMAT!r}.")
            if _digest(about["fewbits"], tensors) != about["sha256"]:
                raise ValueError("its SHA-256 is not the one it was saved with")
            codes = {name: _restored(name, row, tensors) for name, row in header["weights"].items()}
        except FileNotFoundError:
            raise FewbitsError(f"there is no {path}; `pack(model).save(folder)` writes one.") from None
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise FewbitsError(f"{path} is no packed model or is damaged ({error}); pack and save it again.") from error
        floats = {name.removeprefix("float/"): t for name, t in tensors.items() if name.startswith("float/")}
        quantizers = {name: row["quantizer"] for name, row in header["weights"].items()}
        return PackedModel(codes, floats, header["aliases"], quantizers, header["activations"])

    def load_into(self, model: nn.Module) -> nn.Module:
        """Set the weights of ``model``, a float model of the same architecture, to the decoded ones, and return it.

        Activation quantizers are put back as well.

        Raises:
            FewbitsError: If names or shapes differ (all differences are listed), or an activation quantizer is none of
                this package's; the model is then left as it was.
        """
        from fewbits.quantize import quantize_outputs
        from fewbits.quantizers.notation import parse

        stored = dict(self.floats) | {name: codes.decode() for name, codes in self.codes.items()}
        stored |= {alias: stored[name] for alias, name in self.aliases.items()}
        own = model.state_dict()
        wrong = sorted(stored.keys() ^ own.keys())
        for name in sorted(stored.keys() & own.keys()):
            if stored[name].shape != own[name].shape:
                wrong.append(f"{name}, packed {tuple(stored[name].shape)}, model {tuple(own[name].shape)}")
        if wrong:
            raise FewbitsError(f"this model has another architecture than the packed one: {'; '.join(wrong)}.")
        quantize_outputs(model, {name: parse(text) for name, text in self.activations.items()})
        model.load_state_dict(stored)
        return model

    def _card(self, file_bytes: int) -> str:
        report = SizeReport.of(self)
        rows = "\n".join(
            f"| `{row.name}` | {'×'.join(map(str, row.shape))} | `{row.quantizer}` "
            f"| {row.bits / max(1, math.prod(row.shape)):.4f} | {row.nbytes:,} |"
            for row in report.tensors
        )
        outputs = "\n".join(f"- output of `{name}`: `{text}`" for name, text in self.activations.items())
        return (
            f"# Packed model\n\n{FORMAT}.\n"
            "Read it with `fewbits.quantize.PackedModel.load(folder).load_into(model)`.\n\n"
            f"| | |\n|---|---|\n| exact size | {report.bits:,} bits |\n| tensors | {report.nbytes:,} bytes |\n"
            f"| {FILE} | {file_bytes:,} bytes |\n| in float | {report.float_bits // 8:,} bytes |\n"
            f"| ratio | {report.ratio:.2f} |\n\n"
            f"| tensor | shape | quantizer | bits a weight | bytes |\n|---|---|---|---|---|\n{rows}\n"
            + (f"\nQuantized while it runs:\n\n{outputs}\n" if outputs else "")
        )


def _digest(header: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the header and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _described(codes: Codes, quantizer: str) -> dict[str, Any]:
    return {
        "shape": list(codes.shape),
        "grid": [codes.grid.low, codes.grid.high, codes.grid.step],
        "groups": codes.groups,
        "scheme": codes.scheme.value,
        "dtype": str(codes.dtype).removeprefix("torch."),
        "tables": sorted(codes.tables),
        "quantizer": quantizer,
    }


def _restored(name: str, row: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Codes:
    grid = IntegerGrid(*row["grid"])
    integers = Codes.unpacked(tensors[f"codes/{name}"], tuple(row["shape"]), grid)
    tables = {table: tensors[f"table/{table}/{name}"] for table in row["tables"]}
    dtype = getattr(torch, row["dtype"])
    if not isinstance(dtype, torch.dtype) or any(len(table) != row["groups"] for table in tables.values()):
        raise ValueError(f"the tables of {name} do not fit its groups")
    return Codes(integers, grid, tables, row["groups"], Scheme(row["scheme"]), dtype)
