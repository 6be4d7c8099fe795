"""Packed models of every scheme: the same model comes back, damaged tables are refused, files of before are read."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.formats import FixedWidth, Huffman, IntegerGrid, RelativeIndex, Storage, Trits
from fewbits.quantize import PackedModel, SizeReport, pack, quantize, size_report
from fewbits.quantizers import (
    BinaryCodes,
    Codebook,
    Fixed,
    LeastSquaresTernary,
    Logarithmic,
    PerGate,
    PerGroup,
    PerRow,
    Quantizer,
    Solver,
    Start,
    parse,
)

STORAGES: list[Storage] = [FixedWidth(), Huffman(), RelativeIndex(2)]
QUANTIZERS: list[tuple[Quantizer, list[Storage]]] = [
    (BinaryCodes(1), STORAGES),
    (BinaryCodes(3, granularity=PerGate()), STORAGES),
    (BinaryCodes(2, Solver.REFINED, granularity=PerGroup(1)), STORAGES),
    (Codebook(1), STORAGES),
    (Codebook(3, Start.LINEAR, granularity=PerRow()), STORAGES),
    (Codebook(8, granularity=PerGate()), STORAGES),
    (Logarithmic(2, granularity=PerRow()), [*STORAGES, Trits()]),
    (Logarithmic(5, root=True), STORAGES),
    (Logarithmic(8), STORAGES),
    (Fixed(0, 1), [*STORAGES, Trits()]),
    (Fixed(1, 6), STORAGES),
    (LeastSquaresTernary(PerGate()), [*STORAGES, Trits()]),
]
CASES = [(quantizer, storage) for quantizer, storages in QUANTIZERS for storage in storages]


@pytest.fixture(autouse=True)
def disk(monkeypatch):
    """No waits for a disk: they prove nothing here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def lstm(rule: Quantizer | None = None, dtype: torch.dtype = torch.float32) -> nn.LSTM:
    torch.manual_seed(0)
    model = nn.LSTM(6, 5, num_layers=2).to(dtype)
    return model if rule is None else quantize(model, {"weight_*": rule}).eval()


def digest(text: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the header, then each tensor by name: "name type shape" and its bytes."""
    whole = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return whole.hexdigest()


def write(folder: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    text = json.dumps(header)
    about = {"fewbits": text, "sha256": digest(text, tensors)}
    safetensors.torch.save_file(tensors, folder / "model.safetensors", about)


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["fewbits"]), safetensors.torch.load_file(path)


# --- around and back -------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(("rule", "storage"), CASES, ids=repr)
def test_an_lstm_comes_back_bit_for_bit(rule, storage, tmp_path):
    model, words = lstm(rule), torch.randn(3, 2, 6, generator=torch.Generator().manual_seed(1))
    packed = pack(model)
    length = packed.save(tmp_path, storage)
    found = PackedModel.load(tmp_path)
    assert found.codes.keys() == packed.codes.keys() == {f"weight_{part}_l{n}" for part in ("ih", "hh") for n in (0, 1)}
    for name, codes in found.codes.items():
        other = packed.codes[name]
        assert torch.equal(codes.integers, other.integers)
        for part in ("grid", "groups", "scheme", "dtype", "shape"):
            assert getattr(codes, part) == getattr(other, part)
        assert codes.tables.keys() == other.tables.keys()
        assert all(torch.equal(table, other.tables[key]) for key, table in codes.tables.items())
        assert torch.equal(codes.decode(), getattr(model, name))
    assert torch.equal(found.load_into(lstm())(words)[0], model(words)[0])
    assert {parse(text) for text in found.quantizers.values()} == {rule}
    report = size_report(packed, storage)
    assert set(SizeReport.of(found, storage).tensors) == set(report.tensors)
    assert report.nbytes == sum(t.numel() * t.element_size() for t in read(tmp_path)[1].values())
    assert length == (tmp_path / "model.safetensors").stat().st_size


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("rule", [rule for rule, _ in QUANTIZERS], ids=repr)
def test_other_float_types(rule, dtype, tmp_path):
    model = lstm(rule, dtype)
    pack(model).save(tmp_path)
    fresh = PackedModel.load(tmp_path).load_into(lstm(dtype=dtype))
    assert fresh.weight_hh_l1.dtype == dtype
    assert torch.equal(fresh.weight_hh_l1, model.weight_hh_l1)


def test_sizes_are_those_counted_by_hand():
    planes = {row.name: row for row in size_report(lstm(BinaryCodes(3))).tensors}["weight_ih_l0"]
    assert (planes.bits, planes.nbytes) == (120 * 3 + 20 * 3 * 32, 45 + 20 * 12)  # 20 × 6, three coefficients a row
    book = {row.name: row for row in size_report(lstm(Codebook(2, granularity=PerGate()))).tensors}["weight_hh_l0"]
    assert (book.bits, book.nbytes) == (100 * 2 + 4 * 4 * 32, 25 + 64)  # 20 × 5, four numbers a gate
    powers = {row.name: row for row in size_report(lstm(Logarithmic(3))).tensors}["weight_hh_l0"]
    assert (powers.bits, powers.nbytes) == (100 * 3 + 32, 38 + 4)


# --- damage ----------------------------------------------------------------------------------------------------------

SCHEMES = {
    "coefficients": BinaryCodes(2),
    "codebook": Codebook(2, granularity=PerGate()),
    "scale": Logarithmic(4, granularity=PerGate()),
}
NAME = "weight_ih_l0"
DAMAGED = r"model\.safetensors is no packed model or is damaged"


@pytest.fixture(scope="module")
def contents(tmp_path_factory) -> dict[str, tuple[str, dict[str, Tensor]]]:
    """For each table, the header and the tensors of a file that has it."""
    found = {}
    for table, rule in SCHEMES.items():
        folder = tmp_path_factory.mktemp(table)
        pack(lstm(rule)).save(folder)
        header, tensors = read(folder)
        found[table] = json.dumps(header), tensors
    return found


@pytest.mark.parametrize("table", SCHEMES)
@pytest.mark.parametrize(
    "change",
    [
        lambda table: table[:1],
        lambda table: table[:-1],
        lambda table: torch.cat([table, table]),
        lambda table: table.unsqueeze(-1),
        lambda table: table.reshape(1, -1),
        lambda table: table[..., :-1],
        lambda table: torch.stack([table, table], dim=-1),
        lambda table: table.flatten()[0],
        lambda table: table.int(),
        lambda table: table.to(torch.int8),
        lambda table: table > 0,
        lambda table: None,
    ],
)
def test_a_damaged_table_is_refused(table, change, contents, tmp_path):
    header, tensors = json.loads(contents[table][0]), dict(contents[table][1])
    damaged = change(tensors.pop(f"table/{table}/{NAME}"))
    if damaged is not None:
        tensors[f"table/{table}/{NAME}"] = damaged.contiguous()
    write(tmp_path, header, tensors)
    with pytest.raises(FewbitsError, match=DAMAGED):
        PackedModel.load(tmp_path)


@pytest.mark.parametrize("table", SCHEMES)
@pytest.mark.parametrize(
    ("key", "lie"),
    [
        *(("scheme", lie) for lie in ("root", "Scheme.CODEBOOK", "", None, [], {}, 3)),
        *(("tables", lie) for lie in ([], ["zero_point"], ["codebook", "scale"], ["coefficients", "codebook"], [[]])),
        *(("groups", lie) for lie in (0, -20, 1, 3, 2, 10**15, "4", None)),
        *(("grid", lie) for lie in ([0, 32, 1], [0, 64, 1], [0, 3], [0, 2**31, 1])),
    ],
)
def test_a_header_that_lies_about_a_table_is_refused(table, key, lie, contents, tmp_path):
    header, tensors = json.loads(contents[table][0]), dict(contents[table][1])
    header["weights"][NAME][key] = lie
    write(tmp_path, header, tensors)
    with pytest.raises(FewbitsError, match=DAMAGED):
        PackedModel.load(tmp_path)


@pytest.mark.parametrize("table", SCHEMES)
@pytest.mark.parametrize("scheme", ["affine", "powers", "root powers", "codebook", "planes"])
def test_tables_belong_to_their_scheme(table, scheme, contents, tmp_path):
    header, tensors = json.loads(contents[table][0]), dict(contents[table][1])
    header["weights"][NAME]["scheme"] = scheme
    write(tmp_path, header, tensors)
    if {"codebook": "codebook", "planes": "coefficients"}.get(scheme, "scale") == table:
        assert PackedModel.load(tmp_path).codes[NAME].scheme == scheme
    else:
        with pytest.raises(FewbitsError, match="does not describe weight_ih_l0"):
            PackedModel.load(tmp_path)


@pytest.mark.parametrize(
    ("rule", "scheme", "grids"),
    [
        (BinaryCodes(2), "planes", [(-1, 2, 1), (1, 4, 1), (0, 6, 2), (0, 2, 1)]),
        (Logarithmic(3), "powers", [(-4, 2, 1), (0, 6, 1), (-2, 3, 1), (-6, 6, 2)]),
        (Logarithmic(3, root=True), "root powers", [(-4, 2, 1), (0, 6, 1), (-2, 3, 1), (-6, 6, 2)]),
    ],
    ids=repr,
)
def test_a_grid_that_its_scheme_does_not_have_is_refused(rule, scheme, grids, tmp_path):
    """All codes are the lowest point, which each of these grids can store, and the tables are as wide as theirs."""
    pack(lstm(rule)).save(tmp_path)
    header, tensors = read(tmp_path)
    row = header["weights"][NAME]
    tensors[f"codes/{NAME}"] = torch.zeros_like(tensors[f"codes/{NAME}"])
    write(tmp_path, header, tensors)
    assert PackedModel.load(tmp_path).codes[NAME].scheme == scheme == row["scheme"]
    for grid in grids:
        row["grid"] = list(grid)
        assert IntegerGrid(*grid).bits == rule.bits
        write(tmp_path, header, tensors)
        with pytest.raises(FewbitsError, match=f"the scheme '{scheme}' has no IntegerGrid"):
            PackedModel.load(tmp_path)


def test_more_tables_than_the_scheme_has_are_refused(tmp_path):
    pack(lstm(Codebook(2))).save(tmp_path)
    header, tensors = read(tmp_path)
    write(tmp_path, header, tensors | {f"table/scale/{NAME}": torch.ones(1)})
    with pytest.raises(FewbitsError, match="belongs to no weight"):
        PackedModel.load(tmp_path)


# --- files of before and after ---------------------------------------------------------------------------------------


def test_a_file_says_the_lowest_format_that_has_its_schemes(tmp_path):
    """A reader of format 2 has no other scheme than the affine one: it has to be told."""
    for rule, _ in QUANTIZERS:
        pack(lstm(rule)).save(tmp_path)
        header, _ = read(tmp_path)
        affine = {row["scheme"] for row in header["weights"].values()} == {"affine"}
        assert affine == isinstance(rule, Fixed | LeastSquaresTernary)
        assert header["format"] == f"fewbits packed model {2 if affine else 3}"
        assert f"{header['format']}.\n" in (tmp_path / "card.md").read_text()
    mixed = quantize(lstm(), {"weight_ih_*": Fixed(0, 3), "weight_hh_l1": Codebook(2), "weight_hh_l0": Fixed(0, 3)})
    pack(mixed).save(tmp_path)
    assert read(tmp_path)[0]["format"] == "fewbits packed model 3"


@pytest.mark.parametrize("table", SCHEMES)
def test_a_file_of_format_2_with_a_scheme_of_format_3_is_read(table, contents, tmp_path):
    """Such files were written before there was a format 3."""
    header, tensors = json.loads(contents[table][0]), contents[table][1]
    assert header["format"] == "fewbits packed model 3"
    write(tmp_path, header, tensors)
    expected = PackedModel.load(tmp_path).codes[NAME]
    write(tmp_path, header | {"format": "fewbits packed model 2"}, tensors)
    found = PackedModel.load(tmp_path).codes[NAME]
    assert torch.equal(found.decode(), expected.decode())


def affine_file() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A file of the time when the affine scheme was the only one, written by hand."""
    row = {"shape": [2, 3], "grid": [-1, 1, 1], "groups": 2, "scheme": "affine", "dtype": "float32"}
    row |= {"quantizer": "TWN(granularity=PerRow(), estimator=StraightThrough())", "storage": "FixedWidth()"}
    tables = {"scaled": ["scale"], "plain": [], "shifted": ["scale", "zero_point"]}
    weights = {name: row | {"tables": known} for name, known in tables.items()}
    word = 0 | 1 << 2 | 2 << 4 | 2 << 6 | 0 << 8 | 1 << 10  # −1 0 1 | 1 −1 0, two bits each, lowest first
    tensors = {f"codes/{name}": torch.tensor([word & 255, word >> 8], dtype=torch.uint8) for name in weights}
    tensors |= {f"table/scale/{name}": torch.tensor([0.5, 2.0]) for name in ("scaled", "shifted")}
    tensors["table/zero_point/shifted"] = torch.tensor([1, -1], dtype=torch.int8)
    return {"weights": weights, "aliases": {}, "activations": {}}, tensors


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_the_affine_scheme_is_read(version, tmp_path):
    header, tensors = affine_file()
    header["format"] = f"fewbits packed model {version}"
    for row in header["weights"].values():
        if version == 1:
            del row["storage"]
    write(tmp_path, header, tensors)
    found = {name: codes.decode().tolist() for name, codes in PackedModel.load(tmp_path).codes.items()}
    assert found == {
        "scaled": [[-0.5, 0.0, 0.5], [2.0, -2.0, 0.0]],
        "plain": [[-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]],
        "shifted": [[-1.0, -0.5, 0.0], [4.0, 0.0, 2.0]],
    }
