"""Train tiny translators with fairseq itself, and store what it translates with them: the oracle of ``test_fairseq``.

Run by hand, in an environment of its own, from this folder:

    python3.11 -m venv fairseq-environment
    fairseq-environment/bin/pip install torch==2.13.0 omegaconf==2.3.0 hydra-core==1.3.2 subword-nmt==0.3.8
    fairseq-environment/bin/pip install fairseq-fixed==0.12.3.1  # builds C++ and Cython, some minutes
    OMP_NUM_THREADS=1 TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 fairseq-environment/bin/python make.py

It writes beside itself ``codes`` (BPE), a dictionary for each side and a joined one, a checkpoint for each model, some
also as fairseq wrote them in 2018, and ``hypotheses.json``. The text is made up: a language of invented words, and a
translation that maps words, turns pairs around and drops some.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.models.fconv import FConvDecoder
from fairseq.sequence_generator import SequenceGenerator
from omegaconf import OmegaConf
from subword_nmt.apply_bpe import BPE
from subword_nmt.learn_bpe import learn_bpe
from torch import Tensor

HERE = Path(__file__).parent
MERGES, UPDATES = 40, 400
TINY = ["--encoder-embed-dim", "12", "--decoder-embed-dim", "12", "--dropout", "0.1"]
LAYERS = ["--encoder-layers", "2", "--decoder-layers", "2"]
HEADS = ["--encoder-attention-heads", "2", "--decoder-attention-heads", "2"]
TRANSFORMER = ["--arch", "transformer", *TINY, *LAYERS, *HEADS, "--encoder-ffn-embed-dim", "20"]
WIDTHS = ["--encoder-layers", "[(10, 3)] * 2 + [(16, 2)]", "--decoder-layers", "[(10, 3)] + [(14, 1), (14, 4)]"]
POSITIONS = ["--max-source-positions", "64", "--max-target-positions", "64"]
MODELS = {
    "separate": ("separate", TRANSFORMER),
    "joined": ("joined", [*TRANSFORMER, "--share-all-embeddings"]),
    "tied": ("separate", [*TRANSFORMER, "--share-decoder-input-output-embed"]),
    "fconv": ("separate", ["--arch", "fconv", *TINY, *WIDTHS, *POSITIONS, "--decoder-out-embed-dim", "8"]),
}
SEARCHES = {
    "default": {"beam_size": 5},
    "short": {"beam_size": 5, "max_len_b": 4},
    "penalised": {"beam_size": 4, "len_penalty": 0.6},
}


def sentences(number: int, seed: int) -> list[tuple[str, str]]:
    """Return pairs of sentences of 1 to 9 words."""
    words = random.Random(0)
    first = ["".join(words.choice("adegiklmnorstu") for _ in range(words.randint(2, 5))) for _ in range(24)]
    second = ["".join(words.choice("abefhilnoprsuz") for _ in range(words.randint(2, 5))) for _ in range(24)]
    drawn, pairs = random.Random(seed), []
    for _ in range(number):
        line = [drawn.randrange(24) for _ in range(drawn.randint(1, 9))]
        turned = [word for place in range(0, len(line), 2) for word in reversed(line[place : place + 2])]
        kept = [second[word] for word in turned if word % 8 or drawn.random() < 0.5] or [second[line[0]]]
        pairs.append((" ".join(first[word] for word in line), " ".join(kept)))
    return pairs


def command(name: str, *arguments: str | Path) -> None:
    """Run a program of fairseq."""
    subprocess.run([sys.executable, "-m", f"fairseq_cli.{name}", *map(str, arguments)], check=True)


def prepare(pairs: Sequence[tuple[str, str]], test: Sequence[tuple[str, str]], folder: Path) -> None:
    """Write codes, text in BPE, and fairseq's data with dictionaries of each side and with a joined one."""
    with (HERE / "codes").open("w", encoding="utf-8") as codes:
        learn_bpe([f"{line}\n" for pair in pairs for line in pair], codes, MERGES)
    with (HERE / "codes").open(encoding="utf-8") as codes:
        bpe = BPE(codes)
    for split, lines in (("train", pairs), ("valid", test)):
        for language, texts in zip(("xx", "yy"), zip(*lines, strict=True), strict=True):
            written = "".join(f"{bpe.process_line(text)}\n" for text in texts)
            (folder / f"{split}.{language}").write_text(written, encoding="utf-8")
    files = ["--trainpref", folder / "train", "--validpref", folder / "valid"]
    for name, more in (("separate", []), ("joined", ["--joined-dictionary"])):
        data = folder / name
        command("preprocess", "--source-lang", "xx", "--target-lang", "yy", *files, "--destdir", data, *more)
        for language in ("xx", "yy"):
            (HERE / f"{name}.{language}.txt").write_bytes((data / f"dict.{language}.txt").read_bytes())
    (HERE / "joined.yy.txt").unlink()  # the same as joined.xx.txt
    (HERE / "joined.xx.txt").rename(HERE / "joined.txt")


def train(folder: Path, name: str) -> None:
    """Train one of ``MODELS`` for a few seconds."""
    data, settings = MODELS[name]
    optimizer = ["--optimizer", "adam", "--lr", "0.01", "--clip-norm", "1", "--max-tokens", "600", "--seed", "3"]
    run = ["--max-update", str(UPDATES), "--cpu", "--no-save-optimizer-state", "--save-dir", folder / f"run-{name}"]
    quiet = ["--log-format", "none", "--no-epoch-checkpoints", "--disable-validation", "--num-workers", "0"]
    command("train", folder / data, *settings, *optimizer, *run, *quiet)
    checkpoint = torch.load(folder / f"run-{name}" / "checkpoint_last.pt", weights_only=False)
    torch.save(checkpoint, HERE / f"{name}.pt")


def as_of_2018(name: str) -> None:
    """Write a checkpoint again as fairseq did then: ``args``, other names, q, k and v in one matrix, no zip archive."""
    checkpoint = torch.load(HERE / f"{name}.pt", weights_only=False)
    model, cfg = checkpoint["model"], checkpoint["cfg"]["model"]
    old = fconv_of_2018(model) if name == "fconv" else transformer_of_2018(model)
    kept = [word[2:].replace("-", "_") for word in MODELS[name][1] if word.startswith("--")]
    flags = ("share_all_embeddings", "share_decoder_input_output_embed", "share_input_output_embed", "dropout")
    args = {key: getattr(cfg, key) for key in (*kept, *flags) if hasattr(cfg, key)}
    args |= {"left_pad_source": "True", "source_lang": "xx", "target_lang": "yy", "lr": [0.01], "task": "translation"}
    history = [{"criterion_name": "CrossEntropyCriterion", "optimizer_name": "FairseqAdam", "num_updates": UPDATES}]
    history[0]["lr_scheduler_state"] = {"best": 1.0}
    extra = {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}, "val_loss": 1.0}
    state = {"args": argparse.Namespace(**args), "model": old, "optimizer_history": history, "extra_state": extra}
    torch.save(state, HERE / f"{name}-2018.pt", _use_new_zipfile_serialization=False)


def transformer_of_2018(model: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the parameters of a Transformer by their names of 2018."""
    old: dict[str, Tensor] = {}
    norms = {"encoder": ["self_attn", "final"], "decoder": ["self_attn", "encoder_attn", "final"]}
    for key, value in model.items():
        part = key.rpartition(".")[0]
        if part.endswith("q_proj"):
            kind = key.rpartition(".")[2]
            joined = torch.cat([model[key.replace("q_proj", which)] for which in ("q_proj", "k_proj", "v_proj")])
            old[f"{part.removesuffix('q_proj')}in_proj_{kind}"] = joined
        elif part.endswith("_layer_norm"):
            layer, _, norm = part.rpartition(".")
            place = norms[key.split(".")[0]].index(norm.removesuffix("_layer_norm"))
            old[f"{layer}.layer_norms.{place}.{key.rpartition('.')[2]}"] = value
        elif key == "decoder.output_projection.weight":
            if value.data_ptr() not in {model[f"{side}.embed_tokens.weight"].data_ptr() for side in norms}:
                old["decoder.embed_out"] = value
        elif not part.endswith(("k_proj", "v_proj")) and not key.endswith("version"):
            old[key] = value
    for side in norms:
        old[f"{side}.embed_positions._float_tensor"] = torch.zeros(1)
        old[f"{side}.version"] = torch.ones(1)
    return old


def fconv_of_2018(model: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the parameters of an fconv of before ``decoder.version`` 2: kernels normalised along the wrong axis."""
    old = {key: value for key, value in model.items() if key != "decoder.version"}
    for key in model:
        if key.startswith("decoder.convolutions") and key.endswith("weight_g"):
            direction = model[key.replace("_g", "_v")]
            weight = torch._weight_norm(direction, model[key], 2)
            old[key] = weight.norm(dim=(1, 2), keepdim=True)
            old[key.replace("_g", "_v")] = 2 * weight
    return old


def translate(folder: Path, file: str, data: str, lines: Sequence[str]) -> dict[str, list[list[dict[str, Any]]]]:
    """Return fairseq's hypotheses of ``lines``, for each search, best first."""
    overrides = {"data": str(folder / data)}
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([str(HERE / f"{file}.pt")], overrides)
    model, target = models[0].eval(), task.target_dictionary
    source = [task.source_dictionary.encode_line(line, add_if_not_exist=False).long() for line in lines]
    batch = task.build_dataset_for_inference(source, torch.tensor([len(line) for line in source]))
    sample = batch.collater([batch[number] for number in range(len(batch))])
    found = {}
    for name, settings in SEARCHES.items():
        made = SequenceGenerator([model], target, **settings).generate([model], sample)
        in_order = dict(zip(sample["id"].tolist(), made, strict=True))
        found[name] = [[described(one, target) for one in in_order[number]] for number in range(len(lines))]
    return found


def described(hypothesis: dict[str, Tensor], target: Any) -> dict[str, Any]:
    """Return what is stored of a hypothesis."""
    steps = hypothesis["positional_scores"].double()
    words = [target[number] for number in hypothesis["tokens"].tolist()]
    rounded = [round(score, 6) for score in steps.tolist()]
    score = round(hypothesis["score"].item(), 6)
    return {"words": " ".join(words), "total": round(steps.sum().item(), 6), "score": score, "steps": rounded}


def main() -> None:
    """Make everything."""
    # What reads kernels of before version 2 is in fairseq still, but since its upgrades have names nothing calls it.
    FConvDecoder.upgrade_state_dict_named = lambda self, state, name: self.upgrade_state_dict(state)
    pairs, test = sentences(3000, seed=1), sentences(60, seed=2)
    chosen = [next(pair for pair in test if len(pair[0].split()) == 1 + number % 9)[0] for number in range(9)]
    chosen += [test[number][0] for number in (50, 51)] + ["quux " + test[52][0]]  # a word with unknown letters
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)  # a checkpoint keeps the paths that it was made with
        folder = Path()
        prepare(pairs, test, folder)
        with (HERE / "codes").open(encoding="utf-8") as codes:
            bpe = BPE(codes)
        lines = [bpe.process_line(text) for text in chosen]
        found = {}
        for name, (data, _) in MODELS.items():
            train(folder, name)
            found[name] = translate(folder, name, data, lines)
        for name in ("separate", "joined", "fconv"):
            as_of_2018(name)
            same(found[name], translate(folder, f"{name}-2018", MODELS[name][0], lines))
        state = torch.load(HERE / "tied.pt", weights_only=False)
        state["cfg"] = OmegaConf.create(state["cfg"], flags={"allow_objects": True})  # as fairseq 1.0.0a0 wrote it
        torch.save(state, HERE / "tied.pt")
        same(found["tied"], translate(folder, "tied", "separate", lines))
    stored = {"sentences": chosen, "lines": lines, "searches": SEARCHES, "models": found}
    (HERE / "hypotheses.json").write_text(json.dumps(stored, separators=(",", ":")), encoding="utf-8")


def same(new: dict[str, Any], old: dict[str, Any]) -> None:
    """Check that fairseq reads a checkpoint of the other layout as the same model."""
    for name in SEARCHES:
        for mine, theirs in zip(new[name], old[name], strict=True):
            assert [one["words"] for one in mine] == [one["words"] for one in theirs]
            assert all(abs(a["total"] - b["total"]) < 1e-4 for a, b in zip(mine, theirs, strict=True))


if __name__ == "__main__":
    main()
