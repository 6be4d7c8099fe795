"""Files that are not what they should be: a clear refusal, and nothing of them is run."""

import argparse
import pickle
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewbits.errors import FewbitsError
from fewbits.models.fairseq import Dictionary, MosesBpe, load_fairseq

FOLDER = Path(__file__).parent / "fairseq"
DICTIONARIES = (FOLDER / "separate.xx.txt", FOLDER / "separate.yy.txt")


class Executed:
    """Runs ``function`` with ``arguments`` when it is unpickled by a reader that runs things."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.arguments


def changed(tmp_path: Path, name: str, change: Callable[[dict[str, Any]], object], **how: bool) -> Path:
    """Write a checkpoint again after a change."""
    checkpoint = torch.load(FOLDER / f"{name}.pt", weights_only=False)
    change(checkpoint)
    torch.save(checkpoint, tmp_path / "model.pt", **how)
    return tmp_path / "model.pt"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["args", "model", "extra"])
@pytest.mark.parametrize("kind", ["os", "builtins", "shutil", "pathlib"])
def test_nothing_of_a_malicious_file_is_run(tmp_path: Path, zipped: bool, place: str, kind: str) -> None:
    import os

    made = tmp_path / "made"
    (tmp_path / "victim").touch()
    attack = {
        "os": Executed(os.mkdir, str(made)),
        "builtins": Executed(exec, f"open({str(made)!r}, 'w')"),
        "shutil": Executed(shutil.copy, str(tmp_path / "victim"), str(made)),
        "pathlib": Executed(Path.touch, made),
    }[kind]
    file = changed(
        tmp_path, "separate-2018", lambda all_: all_.update({place: attack}), _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(FewbitsError, match=r"asks for [\w., ]+, which no .* Nothing of it was run"):
        load_fairseq(file, *DICTIONARIES)
    assert not made.exists()
    torch.load(file, weights_only=False)  # a reader that trusts the file does run it
    assert made.exists()


def test_names_of_fairseq_are_not_run_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the checkpoint lies a package ``fairseq`` whose class writes a file."""
    package = tmp_path / "fairseq"
    package.mkdir()
    (package / "__init__.py").write_text(
        f"class Config:\n    def __init__(self, *a):\n        open({str(tmp_path / 'made')!r}, 'w')\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import fairseq  # type: ignore[import-not-found]

    stored = changed(tmp_path, "separate", lambda all_: all_.update(more=Executed(fairseq.Config, 1)))
    assert load_fairseq(stored, *DICTIONARIES).longest == 1024
    assert not (tmp_path / "made").exists()
    torch.load(stored, weights_only=False)
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["separate", "separate-2018"])
def test_a_program_may_trust_the_real_namespace(name: str) -> None:
    with torch.serialization.safe_globals([argparse.Namespace]):
        assert load_fairseq(FOLDER / f"{name}.pt", *DICTIONARIES).model.classifier.hidden_size == 12


@pytest.mark.parametrize("zipped", [True, False])
def test_what_a_trainer_keeps_beside_the_model_is_passed_over(tmp_path: Path, zipped: bool) -> None:
    beside = {"best": np.float64(1.5), "meters": OrderedDict(loss=np.int64(2)), "history": [{"lr": 0.1}]}
    file = changed(
        tmp_path, "fconv-2018", lambda all_: all_.update(extra_state=beside), _use_new_zipfile_serialization=zipped
    )
    assert load_fairseq(file, *DICTIONARIES).longest == 62


@pytest.mark.parametrize("name", ["separate", "separate-2018"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, share: float) -> None:
    content = (FOLDER / f"{name}.pt").read_bytes()
    (tmp_path / "part.pt").write_bytes(content[: int(share * len(content))])
    with pytest.raises(FewbitsError, match=r"part.pt is no checkpoint, or only a part of one \(.+\)"):
        load_fairseq(tmp_path / "part.pt", *DICTIONARIES)


def setting(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda all_: setattr(all_["cfg"]["model"] if all_.get("cfg") else all_["args"], name, value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("separate", setting("arch", "lightconv"), "has the architecture 'lightconv'; these are read: transformer, "),
        ("separate", setting("encoder_normalize_before", True), "encoder_normalize_before = True; only .* False"),
        ("separate", setting("decoder_learned_pos", True), "decoder_learned_pos = True"),
        ("separate", setting("activation_fn", "gelu"), "activation_fn = 'gelu'; only Transformers with 'relu'"),
        ("separate", setting("adaptive_softmax_cutoff", [10]), r"adaptive_softmax_cutoff = \[10\]"),
        ("separate", setting("decoder_attention_heads", 4), "only one number of heads"),
        ("separate", setting("encoder_attention_heads", None), "encoder_attention_heads = None; a whole number"),
        ("separate", setting("share_decoder_input_output_embed", True), "shares .* but classifier.output.weight"),
        ("separate", setting("share_all_embeddings", True), "shares .* but encoder.embedding.weight"),
        ("separate-2018", lambda all_: all_["args"].__dict__.pop("arch"), "architecture 'None'"),
        ("fconv", setting("decoder_layers", "[(10, 3), (14, 1, 2), (14, 4)]"), "only residual connections over one"),
        ("fconv", setting("decoder_layers", "[(10, 3"), "which is no list"),
        (
            "separate",
            lambda all_: all_["model"].update({"encoder.gate": torch.ones(2), "extra": torch.ones(1)}),
            r"has parameters that are not read encoder.gate, extra\. It is another model",
        ),
        (
            "separate",
            lambda all_: all_["model"].pop("decoder.layers.1.encoder_attn.k_proj.bias"),
            r"has no decoder.layers.1.cross_attention.key.bias\.",
        ),
        (
            "separate",
            lambda all_: all_["model"].update({"encoder.layers.1.fc1.bias": torch.ones(2)}),
            r"has another shape of encoder.layers.1.widen.bias\.",
        ),
        (
            "fconv",
            lambda all_: all_["model"].pop("decoder.attention.0.in_projection.weight_g"),
            r"not read decoder.layers.0.query.weight_v; no decoder.layers.0.query.weight\.",
        ),
        ("separate", lambda all_: all_["model"].pop("encoder.embed_tokens.weight"), "no parameter for encoder.embed"),
        ("separate", lambda all_: all_.pop("model"), "has no model; a checkpoint of fairseq is a dict"),
        ("separate", lambda all_: all_.pop("cfg"), "has no settings; a checkpoint of fairseq is a dict"),
    ],
)
def test_a_model_that_is_not_ours_is_refused(
    tmp_path: Path, name: str, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(FewbitsError, match=message):
        load_fairseq(changed(tmp_path, name, change), *DICTIONARIES)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FewbitsError, match=r"there is no file .*none.pt"):
        load_fairseq(tmp_path / "none.pt", *DICTIONARIES)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(FewbitsError, match=r"has no model"):
        load_fairseq(tmp_path / "list.pt", *DICTIONARIES)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(argparse.Namespace(arch="transformer"), protocol=2))
    with pytest.raises(FewbitsError, match="is no checkpoint, or only a part of one"):
        load_fairseq(tmp_path / "plain.pt", *DICTIONARIES)


def test_dictionaries_must_be_there_and_fit(tmp_path: Path) -> None:
    source, target = DICTIONARIES
    with pytest.raises(FewbitsError, match=r"no dictionary could be read from .*none.txt"):
        load_fairseq(FOLDER / "separate.pt", tmp_path / "none.txt", target)
    longer = tmp_path / "longer.txt"
    longer.write_text(source.read_text(encoding="utf-8") + "more 1\n", encoding="utf-8")
    size = len(Dictionary.read(source))
    message = rf"the {{}} of .*pt has \d+ words, .*longer.txt has {size + 1}"
    with pytest.raises(FewbitsError, match=message.format("encoder")):
        load_fairseq(FOLDER / "separate.pt", longer, target)
    with pytest.raises(FewbitsError, match=rf"the decoder of .* has \d+ words, .*longer.txt has {size + 1}"):
        load_fairseq(FOLDER / "separate.pt", source, longer)
    for name in ("fconv", "separate-2018"):
        with pytest.raises(FewbitsError, match=message.format("encoder")):
            load_fairseq(FOLDER / f"{name}.pt", longer, target)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the 12\nhouse\n", "line 2 of .* is no `word count`"),
        ("the 12\nhouse x\n", "line 2 of .* is no `word count`"),
        ("the 12\n\nhouse 3\n", "line 2 of .* is no `word count`"),
        ("the 12\nthe 3\n", "line 2 of .* has 'the' again"),
        ("<pad> 12\n", "line 1 of .* has '<pad>' again"),
    ],
)
def test_a_line_of_a_dictionary_that_cannot_be_read_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "dict.txt").write_text(content, encoding="utf-8")
    with pytest.raises(FewbitsError, match=message):
        Dictionary.read(tmp_path / "dict.txt")


def test_codes_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "three").write_text("#version: 0.2\na b c\n", encoding="utf-8")
    for name in ("none", "bytes", "three"):
        with pytest.raises(FewbitsError, match=rf"{name} has no BPE codes"):
            MosesBpe("en", "de", tmp_path / name)
