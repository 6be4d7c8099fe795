"""Packed models: what comes back is what went in, sizes are exact, damage is noticed, a failed save harms nothing."""

import copy
import errno
import json
import os
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.quantize import PackedModel, pack, quantize, size_report
from fewbits.quantizers import (
    TWN,
    Binary,
    PerGate,
    PerGroup,
    PerRow,
    Quantizer,
    Rounding,
    Scale,
    Ternary,
    Uniform,
)

TERNARY = TWN()
QUANTIZERS = [
    Binary(),
    Binary(Scale.MEAN_ABSOLUTE, granularity=PerRow()),
    Binary(0.1, Rounding.STOCHASTIC),
    Ternary(0.05),
    TWN(),
    TWN(PerGate()),
    Uniform(2),
    Uniform(3, PerRow()),
    Uniform(5, symmetric=False),
    Uniform(8, PerGroup(2), symmetric=False),
    Uniform(16, PerRow()),
]


class Small(nn.Module):
    """A small language model with a buffer; ``tied`` shares the embedding with the output."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.embedding, self.rnn, self.output = nn.Embedding(12, 4), nn.LSTM(4, 4), nn.Linear(4, 12)
        self.register_buffer("prior", torch.randn(12))
        if tied:
            self.output.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.output(self.rnn(self.embedding(words))[0]) + self.prior


WORDS = torch.tensor([[0, 11, 3], [5, 1, 2]])


def small(rule: Quantizer = TERNARY, seed: int = 0, tied: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    return quantize(Small(tied), {"rnn.weight_*": rule, "embedding.weight": rule}).eval()


def assert_same(found: PackedModel, expected: PackedModel) -> None:
    assert found.codes.keys() == expected.codes.keys()
    for name, codes in found.codes.items():
        other = expected.codes[name]
        assert torch.equal(codes.integers, other.integers)
        assert (codes.grid, codes.groups, codes.dtype) == (other.grid, other.groups, other.dtype)
        assert codes.tables.keys() == other.tables.keys()
        assert all(torch.equal(table, other.tables[key]) for key, table in codes.tables.items())
    assert found.floats.keys() == expected.floats.keys()
    assert all(torch.equal(tensor, expected.floats[name]) for name, tensor in found.floats.items())
    for part in ("aliases", "quantizers", "activations"):
        assert getattr(found, part) == getattr(expected, part)


# --- around and back -------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_thousand_models_come_back_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a thousand waits for a disk prove nothing
    for seed in range(1000):
        model = small(QUANTIZERS[seed % len(QUANTIZERS)], seed, tied=seed % 3 == 0)
        pack(model).save(tmp_path)
        fresh = PackedModel.load(tmp_path).load_into(Small(tied=seed % 3 == 0)).eval()
        assert torch.equal(fresh(WORDS), model(WORDS)), f"seed {seed}"


@pytest.mark.parametrize("rule", QUANTIZERS, ids=repr)
def test_every_quantizer_goes_through_a_file(rule, tmp_path):
    model = small(rule)
    expected = pack(model)
    expected.save(tmp_path)
    found = PackedModel.load(tmp_path)
    assert_same(found, expected)
    assert set(found.quantizers.values()) == {repr(rule)}
    for name in ("weight_ih_l0", "weight_hh_l0"):
        assert torch.equal(found.codes[f"rnn.{name}"].decode(), getattr(model.rnn, name))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types(dtype, tmp_path):
    model = small(TWN(PerRow())).to(dtype)
    pack(model).save(tmp_path)
    fresh = PackedModel.load(tmp_path).load_into(Small().to(dtype))
    assert fresh.rnn.weight_hh_l0.dtype == dtype
    assert torch.equal(fresh.rnn.weight_hh_l0, model.rnn.weight_hh_l0)


def test_odd_tensors_come_back(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))  # a scalar integer buffer
    model.register_buffer("mask", torch.tensor([True, False]))
    model.register_buffer("nothing", torch.empty(0, 3))
    expected = pack(quantize(model, {"0.weight": Ternary()}))
    expected.save(tmp_path)
    assert_same(PackedModel.load(tmp_path), expected)


def test_shared_weights_are_stored_once(tmp_path):
    for model in (small(tied=True), quantize(Small(tied=True), {"rnn.weight_*": TWN()})):
        packed = pack(model)
        assert packed.aliases == {"output.weight": "embedding.weight"}
        packed.save(tmp_path)
        stored = safetensors.torch.load_file(tmp_path / "model.safetensors")
        assert sum("embedding.weight" in name and "table" not in name for name in stored) == 1
        assert not any("output.weight" in name for name in stored)
        fresh = PackedModel.load(tmp_path).load_into(Small(tied=True))
        assert fresh.output.weight is fresh.embedding.weight
        assert torch.equal(fresh.embedding.weight, model.embedding.weight)


def test_other_parametrizations_are_kept_as_they_are(tmp_path):
    make = lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4))  # noqa: E731
    model = quantize(make(), {"1.weight": Binary()})
    pack(model).save(tmp_path)
    x = torch.randn(3, 4)
    assert torch.equal(PackedModel.load(tmp_path).load_into(make())(x), model(x))


def nested() -> nn.Module:
    """Modules whose names are the endings of others."""
    return nn.Sequential(nn.Tanh(), nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Tanh())


@pytest.mark.parametrize("pattern", ["1.1", "?", "2"])
def test_output_quantizers_are_put_back_where_they_were(pattern, tmp_path):
    model = quantize(nested(), {"1.0.weight": TWN()}, {pattern: Uniform(3)})
    pack(model).save(tmp_path)
    fresh = PackedModel.load(tmp_path).load_into(nested())
    x = torch.randn(5, 4)
    assert torch.equal(fresh(x), model(x))
    assert not torch.equal(fresh(x), pack(quantize(nested(), {"1.0.weight": TWN()})).load_into(nested())(x))


def test_packing_leaves_the_model_and_its_copies_alone():
    model = small()
    state = copy.deepcopy(model.state_dict())
    packed = pack(model)
    with torch.no_grad():
        model.output.bias.add_(1)
    assert torch.equal(packed.floats["output.bias"], state["output.bias"])


def test_a_float_model_cannot_be_packed():
    for act in (pack, size_report):
        with pytest.raises(FewbitsError, match="nothing in this model is quantized"):
            act(Small())


# --- sizes -----------------------------------------------------------------------------------------------------------


def odd_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.ModuleDict({"embedding": nn.Embedding(7, 5), "rnn": nn.LSTM(5, 3), "output": nn.Linear(3, 7)})
    rules = {"embedding.weight": Uniform(3, PerRow(), symmetric=False), "weight_ih_l0": TWN(PerGate())}
    return quantize(model, rules | {"weight_hh_l0": Binary(), "output.weight": Uniform(9)})


#: Bits, stored bytes and float bits, counted by hand.
BY_HAND = {
    "embedding.weight": (35 * 3 + 7 * (32 + 8), 14 + 7 * 5, 35 * 32),  # 3-bit codes; scale and 8-bit zero point a row
    "rnn.weight_ih_l0": (60 * 2 + 4 * 32, 15 + 16, 60 * 32),
    "rnn.weight_hh_l0": (36, 5, 36 * 32),
    "output.weight": (21 * 9 + 32, 24 + 4, 21 * 32),
    "rnn.bias_ih_l0": (12 * 32, 48, 12 * 32),
    "rnn.bias_hh_l0": (12 * 32, 48, 12 * 32),
    "output.bias": (7 * 32, 28, 7 * 32),
}


def test_sizes_are_those_counted_by_hand():
    report = size_report(odd_model())
    assert {row.name: (row.bits, row.nbytes, row.float_bits) for row in report.tensors} == BY_HAND
    totals = tuple(sum(column) for column in zip(*BY_HAND.values(), strict=True))
    assert (report.bits, report.nbytes, report.float_bits) == totals
    assert report.ratio == totals[2] / totals[0]
    assert report.table()["bits"].sum() == totals[0]
    assert f"{totals[0] / 8:,.0f} B" in str(report).splitlines()[-1]


def test_the_file_is_as_long_as_it_says_and_holds_what_was_counted(tmp_path):
    packed = pack(odd_model())
    length = packed.save(tmp_path / "new" / "folder")
    path = tmp_path / "new" / "folder" / "model.safetensors"
    assert length == path.stat().st_size
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert length == header + sum(nbytes for _, nbytes, _ in BY_HAND.values())
    assert sorted(os.listdir(path.parent)) == ["card.md", "model.safetensors"]


def test_safetensors_and_numpy_alone_can_read_the_file(tmp_path):
    model = odd_model()
    pack(model).save(tmp_path)
    stored = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        row = json.loads(file.metadata()["fewbits"])["weights"]["rnn.weight_ih_l0"]
    low, high, step = row["grid"]
    bits = int(np.ceil(np.log2((high - low) / step + 1)))
    stream = np.unpackbits(stored["codes/rnn.weight_ih_l0"], bitorder="little")[: 60 * bits].reshape(60, bits)
    integers = low + step * (stream @ 2 ** np.arange(bits))
    values = integers.reshape(row["groups"], -1) * stored["table/scale/rnn.weight_ih_l0"][:, None]
    found = values.reshape(row["shape"]).astype(np.float32)
    assert np.array_equal(found, model["rnn"].weight_ih_l0.detach().numpy())


def test_the_card_says_what_is_in_the_file(tmp_path):
    model = quantize(odd_model(), {}, {"output": Uniform(8)})
    length = pack(model).save(tmp_path)
    card = (tmp_path / "card.md").read_text(encoding="utf-8")
    bits, nbytes, float_bits = (sum(column) for column in zip(*BY_HAND.values(), strict=True))
    for text in (
        f"{bits:,} bits",
        f"{nbytes:,} bytes",
        f"{length:,} bytes",
        f"{float_bits // 8:,} bytes",
        f"{float_bits / bits:.2f}",
    ):
        assert f"| {text} |" in card
    assert f"| `rnn.weight_ih_l0` | 12×5 | `{TWN(PerGate())!r}` | {248 / 60:.4f} | 31 | `FixedWidth()` |" in card
    assert f"output of `output`: `{Uniform(8)!r}`" in card


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path) -> Path:
    pack(quantize(small(Uniform(3, PerRow(), symmetric=False), tied=True), {}, {"rnn": Uniform(8)})).save(tmp_path)
    return tmp_path / "model.safetensors"


def test_a_truncated_file_is_refused(saved):
    whole = saved.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        saved.write_bytes(whole[:length])
        with pytest.raises(FewbitsError, match="is damaged"):
            PackedModel.load(saved.parent)
    saved.write_bytes(whole + b"\0")
    with pytest.raises(FewbitsError, match="is damaged"):
        PackedModel.load(saved.parent)


def test_any_flipped_bit_is_noticed_or_harmless(saved):
    """In the header or in the numbers: a damaged file is a clear error, never another one, never other numbers."""
    whole, expected = saved.read_bytes(), PackedModel.load(saved.parent)
    numbers = 8 + int.from_bytes(whole[:8], "little")
    draw, refused = random.Random(0), 0
    places = [draw.randrange(numbers) for _ in range(600)] + [draw.randrange(numbers, len(whole)) for _ in range(200)]
    for place in [*range(8), *places]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        saved.write_bytes(damaged)
        try:
            found = PackedModel.load(saved.parent)
        except FewbitsError:
            refused += 1
        else:
            assert place < numbers, "a changed number is always noticed"
            assert_same(found, expected)
    assert refused > 750


def test_a_changed_word_in_the_header_is_noticed(saved):
    """Text of the same length that is still well formed: only the digest can see it."""
    whole = saved.read_bytes()
    for old, new in ((b"Uniform(bits=8", b"Uniform(bits=9"), (b'float32\\"', b'float64\\"'), (b"model 2", b"model 1")):
        assert old in whole
        saved.write_bytes(whole.replace(old, new))
        with pytest.raises(FewbitsError):
            PackedModel.load(saved.parent)


def test_a_file_of_others_is_refused(tmp_path):
    safetensors.torch.save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(FewbitsError, match="no packed model"):
        PackedModel.load(tmp_path)
    for header in ("[]", "{}", '{"format": 3}', "not json", '{"format": "fewbits packed model 2", "weights": []}'):
        about = {"fewbits": header, "sha256": ""}
        safetensors.torch.save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors", about)
        with pytest.raises(FewbitsError, match=r"model\.safetensors"):
            PackedModel.load(tmp_path)


def test_a_missing_file_is_explained(tmp_path):
    with pytest.raises(FewbitsError, match=r"there is no .*nowhere.*pack\(model\)\.save"):
        PackedModel.load(tmp_path / "nowhere")
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(FewbitsError, match=r"model\.safetensors"):
        PackedModel.load(tmp_path)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FewbitsError, match="file"):
        PackedModel.load(tmp_path / "file")


# --- another model ---------------------------------------------------------------------------------------------------


def assert_refused(packed: PackedModel, model: nn.Module, *words: str) -> None:
    state, hooks = copy.deepcopy(model.state_dict()), [len(m._forward_hooks) for m in model.modules()]
    with pytest.raises(FewbitsError) as caught:
        packed.load_into(model)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert [len(m._forward_hooks) for m in model.modules()] == hooks


def test_another_architecture_is_refused_with_all_differences():
    other = Small()
    other.rnn, other.extra = nn.LSTM(4, 5), nn.Linear(1, 1)
    del other.prior
    words = "prior", "extra.weight", "extra.bias", "rnn.weight_hh_l0, packed (16, 4), model (20, 5)"
    assert_refused(pack(small()), other, *words)


def test_a_model_that_shares_what_the_packed_one_does_not_is_refused():
    packed = pack(small())
    tied = Small(True)
    assert_refused(packed, tied, "which this model shares with")
    quantize_twice = pack(small(tied=True)).load_into(Small(False))
    assert torch.equal(quantize_twice.embedding.weight, quantize_twice.output.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_type_that_does_not_hold_the_weights_is_refused(dtype):
    packed = pack(small())
    words = f"which {dtype} does not hold exactly: convert the model to torch.float32"
    assert_refused(packed, Small(False).to(dtype), words)
    wide = packed.load_into(Small(False).double())
    for name, value in pack(small()).load_into(Small(False)).state_dict().items():
        assert torch.equal(wide.state_dict()[name], value.to(wide.state_dict()[name]))


def test_a_missing_module_whose_output_is_quantized_is_refused():
    linear = lambda *more: nn.Sequential(nn.Linear(4, 4), *more)  # noqa: E731
    packed = pack(quantize(linear(nn.Tanh(), nn.Tanh()), {"0.weight": TWN()}, {"1": Uniform(8), "2": Uniform(8)}))
    assert_refused(packed, linear(nn.Tanh()), "'2'")
    foreign = PackedModel(packed.codes, packed.floats, activations={"1": "Mine(3)"})
    assert_refused(foreign, linear(nn.Tanh()), "Mine(3)")


# --- a save that fails -----------------------------------------------------------------------------------------------


def full_disk(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_permission(*arguments, **options):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize(
    ("module", "function", "failure"),
    [
        (os, "fsync", full_disk),
        (os, "replace", full_disk),
        (os, "replace", no_permission),
        (os, "fdopen", full_disk),
        (tempfile, "mkstemp", no_permission),
    ],
)
def test_a_failed_save_leaves_the_old_files_and_nothing_else(saved, monkeypatch, module, function, failure):
    before = {path.name: path.read_bytes() for path in saved.parent.iterdir()}
    monkeypatch.setattr(module, function, failure)
    with pytest.raises(FewbitsError, match=r"cannot write .*model\.safetensors"):
        pack(small(Binary())).save(saved.parent)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in saved.parent.iterdir()} == before


def test_a_file_in_place_of_the_folder_is_explained(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(FewbitsError, match=r"cannot write .*taken"):
        pack(small()).save(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"
