"""Run or load: a made-up experiment that counts how often it computes."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic import Field, ValidationError

import fewbits
from fewbits.errors import FewbitsError
from fewbits.study import run as room
from fewbits.study.profiles import Profile
from fewbits.study.records import Record, load
from fewbits.study.run import (
    Computed,
    Configuration,
    Context,
    missing,
    resolve,
    run,
    run_full,
    source_digest,
    weights_hash,
)
from fewbits.training.loop import OutOfTime

KEPT = [Profile.LAPTOP, Profile.FULL]


class Toy(Configuration):
    experiment: ClassVar[str] = "toy"
    version: ClassVar[int] = 1
    computed: ClassVar[list[str]] = []
    contexts: ClassVar[list[Context]] = []
    data: ClassVar[dict[str, str]] = {"text": "aa"}

    rate: float = Field(0.5, gt=0)
    seed: int = 0

    @property
    def name(self) -> str:
        return f"toy-seed{self.seed}"

    def data_hashes(self) -> dict[str, str]:
        return dict(self.data)

    def compute(self, context: Context) -> Computed:
        Toy.computed.append(self.name)
        Toy.contexts.append(context)
        torch.manual_seed(self.seed)
        weights = {"w": torch.rand(3)}
        if context.checkpoint is not None:
            context.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            context.checkpoint.write_text(self.name)
        return Computed({"sum": weights["w"].sum().item(), "none": None}, [{"epoch": 1}], {"a": [1.0]}, weights)


class OtherToy(Toy):
    experiment: ClassVar[str] = "other_toy"


class NewToy(Toy):
    version: ClassVar[int] = 2


@pytest.fixture(autouse=True)
def folders(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout with an empty cache; nothing computed yet."""
    monkeypatch.setenv("FEWBITS_CACHE", str(checkout / "cache"))
    for name in ("computed", "contexts"):
        monkeypatch.setattr(Toy, name, [])
    return checkout


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def records_in(folder: Path) -> list[Path]:
    return [*folder.rglob("*.json")]


# --- loads or computes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", KEPT)
def test_the_second_time_it_is_loaded(profile: Profile) -> None:
    first = run(Toy(), profile, device="cpu")
    assert run(Toy(), profile, device="cpu") == first
    assert Toy.computed == ["toy-seed0"]


def test_smoke_always_computes_and_writes_nothing(folders: Path) -> None:
    before = files(folders)
    first, second = (run(Toy(), Profile.SMOKE, device="cpu") for _ in range(2))
    assert first.result == second.result
    assert len(Toy.computed) == 2
    assert [context.checkpoint for context in Toy.contexts] == [None, None]
    assert files(folders) == before


def test_full_records_lie_in_the_checkout_and_laptop_records_in_the_cache(folders: Path) -> None:
    full = run(Toy(), Profile.FULL, device="cpu")
    assert [path.relative_to(folders) for path in records_in(folders)] == [
        Path("data/results/toy") / f"toy-seed0-{full.key[:8]}.json"
    ]
    run(Toy(), Profile.LAPTOP, device="cpu")
    (kept,) = records_in(folders / "cache")
    assert kept.parent == folders / "cache" / "results" / "toy"
    assert Toy.computed == ["toy-seed0"] * 2, "a record of one profile is none of the other"


def test_the_record_says_what_was_run_and_the_result_has_no_provenance() -> None:
    record = run(Toy(rate=0.25, seed=3), Profile.SMOKE, device="cpu")
    about = (record.experiment, record.version, record.profile, record.name)
    assert about == ("toy", 1, Profile.SMOKE, "toy-seed3")
    assert record.key == Toy(rate=0.25, seed=3).key("cpu")
    assert record.result.config == {"rate": 0.25, "seed": 3}
    assert record.result.metrics["none"] is None
    parts = {"config", "metrics", "history", "arrays", "texts", "weights_sha256"}
    assert set(record.result.model_dump()) == parts
    assert (record.result.texts, record.provenance.model_extra) == ({}, {})
    found = record.provenance
    assert found.versions["torch"] == torch.__version__
    assert found.data == {"text": "aa"}
    assert found.peak_memory_bytes > 2**20
    assert f"{torch.get_num_threads()} threads" in found.device


def test_the_record_names_the_commit_that_was_there_when_the_run_began(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit() -> str:
        for words in (("add", "-A"), ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "more")):
            subprocess.run(["git", *words], cwd=folders, check=True)
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folders, check=True, capture_output=True, text=True)
        return head.stdout[:12]

    subprocess.run(["git", "init", "-q"], cwd=folders, check=True)
    (folders / "src").mkdir()
    first = commit()
    compute = Toy.compute

    def meanwhile(self: Toy, context: Context) -> Computed:
        (folders / "src" / "more.py").touch()
        assert commit() != first
        return compute(self, context)

    monkeypatch.setattr(Toy, "compute", meanwhile)
    assert run(Toy(), Profile.SMOKE, device="cpu").provenance.commit == first
    (folders / "src" / "changed.py").touch()
    monkeypatch.setattr(Toy, "compute", compute)
    assert run(Toy(), Profile.SMOKE, device="cpu").provenance.commit.endswith("+changes")


def test_a_run_leaves_the_random_state_alone() -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    run(Toy(seed=5), Profile.SMOKE, device="cpu")
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002


def test_a_finished_run_leaves_no_checkpoint_and_a_failed_one_does(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(Toy(), Profile.LAPTOP, device="cpu")
    (context,) = Toy.contexts
    assert context.checkpoint is not None
    assert context.checkpoint.parent == folders / "cache" / "checkpoints"
    assert not context.checkpoint.exists()
    monkeypatch.setattr(room, "weights_hash", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(Toy(seed=1), Profile.LAPTOP, device="cpu")
    assert [path.read_text() for path in context.checkpoint.parent.iterdir()] == ["toy-seed1"]


def test_context_settings_are_passed_on() -> None:
    run(Toy(), Profile.LAPTOP, device="cpu", deadline=9e9, checkpoint_every=7, progress=False)
    (context,) = Toy.contexts
    assert (context.device, context.deadline, context.checkpoint_every, context.progress) == ("cpu", 9e9, 7, False)


# --- the key ----------------------------------------------------------------------------------------------------------


def test_the_key_changes_with_everything_that_changes_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [Toy().key("cpu"), Toy(rate=0.6).key("cpu"), Toy(seed=1).key("cpu"), Toy().key("cuda")]
    keys += [OtherToy().key("cpu"), NewToy().key("cpu")]
    for data in ({"text": "bb"}, {"texts": "aa"}, {"text": "aa", "more": "aa"}):
        monkeypatch.setattr(Toy, "data", data)
        keys.append(Toy().key("cpu"))
    assert len(set(keys)) == len(keys) == 9
    assert all(len(key) == 64 for key in keys)


def test_the_key_does_not_depend_on_how_a_default_or_an_order_is_written() -> None:
    written = [Toy(), Toy(rate=0.5), Toy(seed=0, rate=0.5), Toy.model_validate({"rate": 0.5, "seed": 0})]
    assert len({toy.key("cpu") for toy in written}) == 1


PROGRAM = """
import sys
sys.path[:0] = sys.argv[1:]
from test_run import Toy
Toy.data = {name: name for name in "zyxabc"}
print(Toy(rate=0.1).key("cpu"))
"""


def test_the_key_is_the_same_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "data", {name: name for name in "cbaxyz"})
    monkeypatch.setenv("PYTHONHASHSEED", "123")
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Toy(rate=0.1).key("cpu")


@pytest.mark.parametrize("profile", KEPT)
def test_changed_data_version_or_settings_are_computed_again(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    for toy in (Toy(), Toy(rate=0.6), NewToy()):
        run(toy, profile, device="cpu")
    monkeypatch.setattr(Toy, "data", {"text": "bb"})
    run(Toy(), profile, device="cpu")
    assert len(Toy.computed) == 4


def test_a_laptop_record_is_of_one_state_of_the_source_and_a_full_record_is_not(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for profile in KEPT:
        run(Toy(), profile, device="cpu")
    monkeypatch.setattr(room, "source_digest", lambda: "0" * 64)
    for profile in KEPT:
        run(Toy(), profile, device="cpu")
    assert len(Toy.computed) == 3
    assert len(records_in(folders / "cache")) == 2
    laptop, full, other = (context.checkpoint for context in Toy.contexts)
    assert laptop != other, "a checkpoint of other source must not go into the record of this source"
    assert full not in (laptop, other)


def test_the_source_digest_sees_every_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "fewbits"
    shutil.copytree(Path(fewbits.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    here = source_digest()
    monkeypatch.setattr(fewbits, "__file__", str(copy / "__init__.py"))

    def digest() -> str:
        return source_digest.__wrapped__()  # without what it remembers

    assert digest() == here
    (copy / "notes.txt").write_text("no source")
    assert digest() == here
    module = copy / "training" / "loop.py"
    module.write_text(module.read_text() + "\n")
    changed = digest()
    module.rename(module.with_name("loops.py"))
    assert len({here, changed, digest()}) == 3


def test_the_weights_hash_sees_names_and_values_and_no_order() -> None:
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([3.0])
    hashes = [
        weights_hash(weights)
        for weights in ({"a": one, "b": two}, {"a": two, "b": one}, {"a": one, "c": two}, {"a": -one, "b": two}, {})
    ]
    assert len(set(hashes)) == 5
    assert weights_hash({"b": two, "a": one}) == hashes[0]
    strided = torch.tensor([[1.0, 3.0], [2.0, 4.0]]).t()[0]
    assert weights_hash({"a": strided, "b": two}) == hashes[0]


# --- what can go wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "{", "[]", '{"experiment": "toy"}', "\x00"])
@pytest.mark.parametrize("profile", KEPT)
def test_a_damaged_record_is_an_error_that_names_it(profile: Profile, content: str, folders: Path) -> None:
    run(Toy(), profile, device="cpu")
    (path,) = records_in(folders)
    path.write_text(content)
    with pytest.raises(FewbitsError, match="is no record of this study") as caught:
        run(Toy(), profile, device="cpu")
    assert str(path) in str(caught.value)
    assert "Delete it and run again" in str(caught.value)
    assert path.read_text() == content


@pytest.mark.parametrize("profile", KEPT)
@pytest.mark.parametrize(("step", "number"), [("os.fsync", errno.ENOSPC), ("os.replace", errno.EACCES)])
def test_a_record_is_written_whole_or_not_at_all(
    profile: Profile, step: str, number: int, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    before = files(folders)
    with monkeypatch.context() as patch:
        patch.setattr(step, fail)
        with pytest.raises(FewbitsError, match="cannot write"):
            run(Toy(), profile, device="cpu")
    (checkpoint,) = {*files(folders)} - {*before}
    assert checkpoint.startswith("cache/checkpoints/"), "what was computed is not lost"
    assert run(Toy(), profile, device="cpu").result.metrics["sum"] > 0


@pytest.mark.parametrize("field", [{"rates": 0.5}, {"rate": 0}, {"rate": "much"}, {"seed": 1.5}, {"seed": None}])
def test_unknown_and_impossible_settings_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(field))):
        Toy.model_validate(field)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Toy().seed = 2


def test_an_unknown_device_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (resolve(), resolve("auto"), resolve("cpu")) == ("cpu", "cpu", "cpu")
    with pytest.raises(FewbitsError, match=r"'gpu' is unknown; it is auto, cpu or cuda"):
        run(Toy(), Profile.LAPTOP, device="gpu")
    with pytest.raises(FewbitsError, match="no CUDA device here; use device auto or cpu"):
        run(Toy(), Profile.LAPTOP, device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (resolve(), resolve("cuda"), resolve("cpu")) == ("cuda", "cuda", "cpu")
    assert Toy.computed == []


# --- all full runs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "planned", lambda: [Toy(seed=seed) for seed in range(3)])


@pytest.mark.usefixtures("planned")
def test_full_runs_are_made_once() -> None:
    run(Toy(seed=1), Profile.FULL, device="cpu")
    assert [each.name for each in missing("cpu")] == ["toy-seed0", "toy-seed2"]
    made = run_full("cpu")
    assert [record.name for record in made] == ["toy-seed0", "toy-seed2"]
    assert {record.profile for record in made} == {Profile.FULL}
    assert Toy.computed == ["toy-seed1", "toy-seed0", "toy-seed2"]
    assert run_full("cpu") == missing("cpu") == []


@pytest.mark.usefixtures("planned")
def test_only_one_full_run(folders: Path) -> None:
    (made,) = run_full("cpu", only="toy-seed2")
    assert load(*records_in(folders)) == made
    assert Toy.computed == ["toy-seed2"]


@pytest.mark.usefixtures("planned")
def test_an_unknown_full_run_is_an_error_that_lists_them(folders: Path) -> None:
    with pytest.raises(FewbitsError, match="no full run is called 'toy-seed9'; there are: toy-seed0, toy-seed1, toy-"):
        run_full("cpu", only="toy-seed9")
    assert (Toy.computed, records_in(folders)) == ([], [])


@pytest.mark.usefixtures("planned")
def test_the_budget_is_one_deadline_for_all_runs() -> None:
    start = time.monotonic()
    run_full("cpu", budget_minutes=2)
    (deadline,) = {context.deadline for context in Toy.contexts}
    assert start + 120 <= deadline <= time.monotonic() + 120


@pytest.mark.usefixtures("planned")
def test_a_run_out_of_time_keeps_what_was_made(monkeypatch: pytest.MonkeyPatch, folders: Path) -> None:
    real = Toy.compute

    def compute(self: Toy, context: Context) -> Computed:
        computed = real(self, context)
        if self.seed == 1:
            raise OutOfTime("the time budget is used up; run the same command again to go on from the checkpoint.")
        return computed

    with monkeypatch.context() as patch:
        patch.setattr(Toy, "compute", compute)
        assert [record.name for record in run_full("cpu", budget_minutes=1)] == ["toy-seed0"]
    assert [load(path).name for path in records_in(folders)] == ["toy-seed0"]
    assert len([*(folders / "cache" / "checkpoints").iterdir()]) == 1
    assert [record.name for record in run_full("cpu")] == ["toy-seed1", "toy-seed2"]
    assert [*(folders / "cache" / "checkpoints").iterdir()] == []


def test_the_planned_full_runs_are_those_of_the_experiments() -> None:
    configurations = room.planned()
    arms = ("float", "twn", "ternary", "binary")
    assert {f"ptb-lstm-{arm}-seed0" for arm in arms} <= {each.name for each in configurations}
    assert {each.experiment for each in configurations} == set(room.EXPERIMENTS)
    for profile in Profile:
        names = [each.name for each in room.planned(profile)]
        assert len(names) == len(set(names)), "names are unique within an experiment and profile"


def test_a_kept_record_is_readable_json_for_others(folders: Path) -> None:
    record = run(Toy(), Profile.FULL, device="cpu")
    (path,) = records_in(folders)
    assert Record.model_validate(json.loads(path.read_text(encoding="utf-8"))) == record
    assert path.read_text(encoding="utf-8").endswith("}\n")
