"""Packed models under every storage: the same model comes back, the sizes are those of the file, lies are noticed."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.formats import FixedWidth, Huffman, IntegerGrid, RelativeIndex, Storage, Trits, unpack_bits
from fewbits.quantize import PackedModel, SizeReport, pack, quantize, size_report
from fewbits.quantizers import TWN, Binary, PerGate, PerRow, Ternary, Uniform

MIXED = {"embedding.weight": Huffman(), "rnn.weight_ih_l0": Trits(), "weight_hh_l0": RelativeIndex(3)}
CHOICES = [FixedWidth(), Huffman(), {"rnn.*": Trits()}, {"*weight_*": RelativeIndex(2)}, MIXED, {}]


def model() -> nn.Module:
    """An embedding of 4 bits, a ternary LSTM, a binary output; the LSTM's bias is float."""
    torch.manual_seed(0)
    parts = nn.ModuleDict({"embedding": nn.Embedding(7, 5), "rnn": nn.LSTM(5, 3), "output": nn.Linear(3, 7)})
    rules = {"embedding.weight": Uniform(4, PerRow(), symmetric=False), "rnn.weight_ih_l0": TWN(PerGate())}
    return quantize(parts, rules | {"rnn.weight_hh_l0": Ternary(0.4), "output.weight": Binary()})


def numbers_of(path: Path) -> int:
    """The bytes of a safetensors file after its header."""
    content = path.read_bytes()
    return len(content) - 8 - int.from_bytes(content[:8], "little")


def assert_same(found: PackedModel, expected: PackedModel) -> None:
    assert found.codes.keys() == expected.codes.keys()
    for name, codes in found.codes.items():
        other = expected.codes[name]
        assert torch.equal(codes.integers, other.integers)
        assert codes.integers.dtype == other.integers.dtype
        assert torch.equal(codes.decode(), other.decode())
    assert found.floats.keys() == expected.floats.keys()
    assert all(torch.equal(tensor, expected.floats[name]) for name, tensor in found.floats.items())
    for part in ("aliases", "quantizers", "activations"):
        assert getattr(found, part) == getattr(expected, part)


# --- around and back, and sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", CHOICES, ids=str)
def test_the_same_model_comes_back_and_the_report_counts_the_file(storage, tmp_path):
    packed = pack(model())
    length = packed.save(tmp_path, storage)
    assert_same(PackedModel.load(tmp_path), packed)
    path = tmp_path / "model.safetensors"
    report = size_report(packed, storage)
    for same in (SizeReport.of(PackedModel.load(tmp_path), storage), size_report(model(), storage)):
        assert set(same.tensors) == set(report.tensors)
    assert length == path.stat().st_size
    assert report.nbytes == numbers_of(path)
    stored = safetensors.torch.load_file(path)
    for row in report.tensors:
        own = [t for name, t in stored.items() if name.split("/")[-1] == row.name]
        assert row.nbytes == sum(t.numel() * t.element_size() for t in own)
        assert row.bits <= 8 * row.nbytes < row.bits + 8 * len(own)


def test_sizes_of_every_storage_are_those_counted_by_hand():
    packed = pack(model())
    rows = {row.name: row for row in size_report(packed, MIXED).tensors}
    trits = 60 // 5  # bytes; the 60 codes are 12 full ones
    assert (rows["rnn.weight_ih_l0"].bits, rows["rnn.weight_ih_l0"].nbytes) == (8 * trits + 4 * 32, trits + 16)
    integers = packed.codes["rnn.weight_hh_l0"].integers.flatten().tolist()
    entries = zeros = 0
    for integer in integers:
        full = integer or zeros == 7
        entries, zeros = entries + bool(full), 0 if full else zeros + 1
    expected = entries * (3 + 2) + 64
    assert (rows["rnn.weight_hh_l0"].bits, rows["rnn.weight_hh_l0"].storage) == (expected, "RelativeIndex(gap_bits=3)")
    assert rows["output.weight"].bits == 21, "no pattern: fixed width"
    assert (rows["output.weight"].storage, rows["output.bias"].storage) == ("FixedWidth()", "float")
    assert size_report(packed, MIXED).table()["storage"].tolist().count("float") == 3


def test_huffman_beats_fixed_width_where_codes_are_skewed_and_not_where_they_are_even(tmp_path):
    torch.manual_seed(0)
    linear = quantize(nn.Sequential(nn.Linear(200, 200)), {"0.weight": Uniform(8)})
    nn.init.normal_(linear[0].parametrizations.weight.original)
    report = size_report(linear, Huffman())
    codes = pack(linear).codes["0.weight"]
    payload = report.tensors[0].bits - 32 - 6 * 255  # without the scale and the 255 lengths
    assert codes.entropy <= payload / 40000 < codes.entropy + 1
    assert report.bits < size_report(linear).bits
    binary = quantize(nn.Linear(8, 8), {"weight": Binary()})
    assert size_report(binary, Huffman()).bits == size_report(binary).bits + 2 * 6


def test_safetensors_and_text_alone_can_read_huffman_words(tmp_path):
    """Decoding needs the lengths and nothing else: words counted up by length, then by symbol."""
    packed = pack(model())
    packed.save(tmp_path, {"embedding.weight": Huffman()})
    stored = safetensors.torch.load_file(tmp_path / "model.safetensors")
    lengths = unpack_bits(stored["lengths/embedding.weight"], 6, 16).tolist()
    word, symbols = 0, {}
    for length in range(1, 16):
        for symbol in (s for s in range(16) if lengths[s] == length):
            symbols[f"{word:0{length}b}"] = symbol
            word += 1
        word *= 2
    text, found = "", []
    for bit in "".join(f"{byte:08b}" for byte in stored["codes/embedding.weight"].tolist()):
        text += bit
        if text in symbols and len(found) < 35:
            found.append(symbols[text])
            text = ""
    grid = packed.codes["embedding.weight"].grid
    assert [grid.low + symbol for symbol in found] == packed.codes["embedding.weight"].integers.flatten().tolist()


def test_the_card_names_the_storages(tmp_path):
    pack(model()).save(tmp_path, MIXED)
    card = (tmp_path / "card.md").read_text(encoding="utf-8")
    for storage in (*MIXED.values(), FixedWidth()):
        assert f"| `{storage!r}` |" in card


# --- choices that do not fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        (Trits(), r"embedding.weight: .*16 points; trits have three values"),
        ({"output.weight": RelativeIndex(4)}, r"output.weight: 0 is not on"),
        ({"rnn": Huffman()}, r"'rnn' matches no quantized weight; there are: embedding.weight, "),
        ({"output.bias": Huffman()}, r"'output.bias' matches no quantized weight"),
        ({"rnn.*": Trits(), "weight_hh_*": Huffman()}, r"two patterns match rnn.weight_hh_l0"),
        (Huffman, r"is no storage; give one, for example Huffman\(\)"),
        ({"rnn.*": "Trits()"}, r"rnn.weight_ih_l0: 'Trits\(\)' is no storage"),
    ],
)
def test_a_choice_that_does_not_fit_is_explained_and_writes_nothing(storage, words, tmp_path):
    packed = pack(model())
    with pytest.raises(FewbitsError, match=words):
        packed.save(tmp_path / "new", storage)
    assert not (tmp_path / "new").exists()
    with pytest.raises(FewbitsError, match=words):
        size_report(packed, storage)


# --- damage and lies -------------------------------------------------------------------------------------------------


def digest(text: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the header, then each tensor by name: "name type shape" and its bytes."""
    whole = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return whole.hexdigest()


def rewrite(folder: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], object]) -> None:
    """Save the file again with another header or other tensors and the digest that goes with them."""
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["fewbits"])
    tensors = safetensors.torch.load_file(path)
    change(header, tensors)
    text = json.dumps(header)
    safetensors.torch.save_file(tensors, path, {"fewbits": text, "sha256": digest(text, tensors)})


@pytest.fixture
def saved(tmp_path) -> Path:
    pack(model()).save(tmp_path, MIXED)
    return tmp_path


def test_every_single_byte_is_guarded(tmp_path):
    """Each byte of a small file with one bit flipped, one at a time: an error, or the same model."""
    torch.manual_seed(0)
    tiny = nn.ModuleDict({"a": nn.Linear(3, 2, bias=False), "b": nn.Linear(4, 2, bias=False), "c": nn.Linear(3, 3)})
    rules = {"a.weight": Uniform(2), "b.weight": TWN(), "c.weight": TWN()}
    expected = pack(quantize(tiny, rules))
    expected.save(tmp_path, {"a.weight": Huffman(), "b.weight": Trits(), "c.weight": RelativeIndex(2)})
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    header, harmless = len(whole) - numbers_of(path), 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = PackedModel.load(tmp_path)
        except FewbitsError:
            pass
        else:
            harmless += 1
            assert place < header, "a changed number is always noticed"
            assert_same(found, expected)
    assert harmless < 10
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(FewbitsError, match="is damaged"):
            PackedModel.load(tmp_path)


def test_random_bytes_are_no_packed_model(tmp_path):
    draw = np.random.default_rng(0)
    for length in (0, 1, 7, 8, 9, 100, 10000):
        (tmp_path / "model.safetensors").write_bytes(draw.bytes(length))
        with pytest.raises(FewbitsError, match=r"model\.safetensors is no packed model"):
            PackedModel.load(tmp_path)


def test_a_file_of_format_1_is_read(tmp_path):
    """It had no storages, and every code was of fixed width."""
    expected = pack(model())
    expected.save(tmp_path)

    def older(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        header["format"] = "fewbits packed model 1"
        for row in header["weights"].values():
            del row["storage"]

    rewrite(tmp_path, older)
    assert_same(PackedModel.load(tmp_path), expected)


@pytest.mark.parametrize("name", ["fewbits packed model 0", "fewbits packed model 4", 2, None, []])
def test_other_formats_are_named(name, saved):
    rewrite(saved, lambda header, tensors: header.update(format=name))
    with pytest.raises(FewbitsError, match=r"this version reads fewbits packed model 1, .*model 2, .*model 3"):
        PackedModel.load(saved)


#: What a header could say of a weight that is not so.
LIES = [
    ("shape", [10**15, 1]), ("shape", [2**62, 2**62]), ("shape", [10**9]), ("shape", [-7, -5]), ("shape", [7, 5.0]),
    ("shape", 35), ("shape", None), ("shape", ["7", 5]), ("shape", [0, 10**30]), ("shape", [10**30]), ("shape", []),
    ("grid", [0, 2]), ("grid", [0, 2**40, 1]), ("grid", [0, 2**20, 1]), ("grid", [1, 0, 1]), ("grid", [0, 1, 0]),
    ("grid", [0, 1.0, 1]), ("grid", "012"), ("grid", [10, 10**9, 3]), ("grid", [0, 8, 1]),
    ("groups", 0), ("groups", -1), ("groups", 5), ("groups", 10**15), ("groups", "1"), ("groups", 2.0),
    ("scheme", "logarithmic"), ("scheme", None), ("scheme", []),
    ("dtype", "int8"), ("dtype", "load"), ("dtype", "nn"), ("dtype", 32), ("dtype", "complex64"),
    ("tables", []), ("tables", ["zero_point"]), ("tables", ["scale", "codebook"]), ("tables", "scale"),
    ("quantizer", 3), ("storage", "Zip()"), ("storage", 3), ("storage", None), ("storage", "Storage()"),
]  # fmt: skip


@pytest.mark.parametrize("weight", ["embedding.weight", "rnn.weight_ih_l0", "rnn.weight_hh_l0", "output.weight"])
def test_a_header_that_lies_about_a_weight_is_refused(weight, saved):
    """The digest fits, so that only the content can tell; nothing large is allocated on the way."""
    whole = (saved / "model.safetensors").read_bytes()
    true = json.loads(safe_open(saved / "model.safetensors", "pt").metadata()["fewbits"])["weights"][weight]
    others: list[Storage] = [FixedWidth(), Trits(), Huffman(), RelativeIndex(3), RelativeIndex(16)]
    lies = [*LIES, *(("storage", repr(other)) for other in others if repr(other) != true["storage"])]
    for key, lie in lies:
        if true[key] == lie:
            continue
        rewrite(saved, lambda header, tensors, key=key, lie=lie: header["weights"][weight].update({key: lie}))
        with pytest.raises(FewbitsError, match=r"model\.safetensors is no packed model or is damaged"):
            PackedModel.load(saved)
        (saved / "model.safetensors").write_bytes(whole)


@pytest.mark.parametrize(
    "change",
    [
        lambda header, tensors: header.pop("weights"),
        lambda header, tensors: header.update(weights=[]),
        lambda header, tensors: header.update(weights={"output.weight": 3}),
        lambda header, tensors: header["weights"].pop("output.weight"),
        lambda header, tensors: header["weights"].update(more=header["weights"]["output.weight"]),
        lambda header, tensors: header["weights"]["output.weight"].pop("shape"),
        lambda header, tensors: header.update(aliases=[]),
        lambda header, tensors: header.update(aliases={"tied.weight": "nowhere.weight"}),
        lambda header, tensors: header.update(aliases={"output.bias": "output.weight"}),
        lambda header, tensors: header.update(aliases={"tied.weight": ["output.weight"]}),
        lambda header, tensors: header.update(activations={"rnn": 8}),
        lambda header, tensors: header.update(activations=None),
        lambda header, tensors: tensors.pop("lengths/embedding.weight"),
        lambda header, tensors: tensors.pop("table/scale/embedding.weight"),
        lambda header, tensors: tensors.update({"codes/more": torch.zeros(1, dtype=torch.uint8)}),
        lambda header, tensors: tensors.update({"weight": torch.zeros(1)}),
        lambda header, tensors: tensors.update({"float/output.weight": torch.zeros(7, 3)}),
        lambda header, tensors: tensors.update({"table/scale/embedding.weight": torch.zeros(7, 1)}),
        lambda header, tensors: tensors.update({"table/scale/embedding.weight": torch.zeros(7, dtype=torch.int32)}),
        lambda header, tensors: tensors.update({"table/zero_point/embedding.weight": torch.zeros(7)}),
        lambda header, tensors: tensors.update({"entries/rnn.weight_hh_l0": torch.tensor([10**15])}),
        lambda header, tensors: tensors.update({"lengths/embedding.weight": torch.zeros(12, dtype=torch.uint8)}),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(change, saved):
    rewrite(saved, change)
    with pytest.raises(FewbitsError, match=r"model\.safetensors is no packed model or is damaged"):
        PackedModel.load(saved)


@pytest.mark.parametrize("storage", [Huffman(), RelativeIndex(4), Trits()], ids=repr)
def test_a_constant_weight_cannot_be_made_endless(storage, tmp_path):
    """All codes alike is where few bytes stand for many codes; the shape must still agree with them."""
    zeros = quantize(nn.Linear(8, 8, bias=False), {"weight": Ternary(9.0)})
    pack(zeros).save(tmp_path, storage)
    assert torch.equal(PackedModel.load(tmp_path).codes["weight"].integers, torch.zeros(8, 8, dtype=torch.int8))
    for shape in ([10**15], [10**9], [8, 8, 8], [0]):
        rewrite(tmp_path, lambda header, tensors, shape=shape: header["weights"]["weight"].update(shape=shape))
        with pytest.raises(FewbitsError, match="weight: "):
            PackedModel.load(tmp_path)


def test_grids_are_those_that_the_header_names(saved):
    found = PackedModel.load(saved)
    grids = {name: codes.grid for name, codes in found.codes.items()}
    assert grids["output.weight"] == IntegerGrid(-1, 1, 2)
    assert grids["rnn.weight_hh_l0"] == grids["rnn.weight_ih_l0"] == IntegerGrid(-1, 1)
