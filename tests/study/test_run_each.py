"""Runs one after another, and runs that no device makes a difference to: a made-up experiment without a model."""

import math
import time
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from fewbits.errors import FewbitsError
from fewbits.study import run as room
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Configuration, Context, recorded, run, run_each, run_full
from fewbits.training.loop import OutOfTime


class Count(Configuration):
    experiment: ClassVar[str] = "count"
    version: ClassVar[int] = 1
    processor_only: ClassVar[bool] = True
    contexts: ClassVar[list[Context]] = []

    number: int

    @property
    def name(self) -> str:
        return f"count-{self.number}"

    def data_hashes(self) -> dict[str, str]:
        return {}

    def compute(self, context: Context) -> Computed:
        Count.contexts.append(context)
        if time.monotonic() > context.deadline:
            raise OutOfTime("the time budget is used up")
        return Computed({"number": self.number}, [], {}, {}, {"source_sha256": "ab"})


class AnywhereCount(Count):
    processor_only: ClassVar[bool] = False


COUNTS = [Count(number=number) for number in range(3)]


@pytest.fixture(autouse=True)
def folders(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWBITS_CACHE", str(checkout / "cache"))
    monkeypatch.setattr(Count, "contexts", [])
    return checkout


def test_each_is_run_or_loaded_in_order() -> None:
    first = run(COUNTS[1], Profile.FULL)
    assert [recorded(each, Profile.FULL) is not None for each in COUNTS] == [False, True, False]
    made = [*run_each(COUNTS, Profile.FULL)]
    assert [record.name for record in made] == ["count-0", "count-1", "count-2"]
    assert made[1] == first
    assert len(Count.contexts) == 3
    assert [*run_each(COUNTS, Profile.FULL)] == made
    assert len(Count.contexts) == 3


def test_each_is_given_when_it_is_done() -> None:
    records = run_each(COUNTS, Profile.SMOKE)
    assert Count.contexts == []
    assert next(records).name == "count-0"
    assert len(Count.contexts) == 1


def test_the_budget_ends_them_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.monotonic()
    records = run_each(COUNTS, Profile.FULL, budget_minutes=1)
    assert next(records).name == "count-0"
    (context,) = Count.contexts
    assert start + 60 <= context.deadline <= time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: start + 100)
    assert [*records] == []
    assert [recorded(each, Profile.FULL) is not None for each in COUNTS] == [True, False, False]


@pytest.mark.parametrize("profile", Profile)
def test_what_is_recorded_is_the_file_that_is_read(profile: Profile, folders: Path) -> None:
    assert recorded(COUNTS[0], profile) is None
    record = run(COUNTS[0], profile)
    path = recorded(COUNTS[0], profile)
    if profile is Profile.SMOKE:
        assert path is None
    else:
        assert path is not None
        path.write_text(path.read_text().replace('"number": 0', '"number": 7', 1))
        assert run(COUNTS[0], profile) != record


def test_on_the_processor_alone_all_devices_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(room, "planned", lambda: COUNTS)
    assert [record.key for record in run_full("cuda")] == [each.key("cpu") for each in COUNTS]
    assert {context.device for context in Count.contexts} == {"cpu"}
    assert "threads" in run(COUNTS[0], Profile.FULL, device="auto").provenance.device
    assert run_full("auto") == run_full("cpu") == []
    anywhere = AnywhereCount(number=1)
    assert [anywhere.runs_on(asked) for asked in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
    assert recorded(anywhere, Profile.FULL, "cuda") is None


class MissingData(Count):
    def compute(self, context: Context) -> Computed:
        raise FewbitsError("its text is not here")


def test_a_run_that_fails_keeps_no_other_from_being_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "planned", lambda: [MissingData(number=7), *COUNTS])
    with pytest.raises(FewbitsError, match=r"^3 new records\. 1 runs failed:\ncount-7: its text is not here$"):
        run_full("cpu")
    assert all(recorded(each, Profile.FULL, "cpu") for each in COUNTS)
    with pytest.raises(FewbitsError, match=r"^0 new records"):
        run_full("cpu")


def test_a_budget_that_is_used_up_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "planned", lambda: COUNTS)
    assert run_full("cpu", 1e-9) == []
    assert len(Count.contexts) == 1


class Restart(Count):
    start: Count
    other: Count | None = None


def test_a_run_names_those_that_it_starts_from() -> None:
    assert COUNTS[0].starts() == []
    assert Restart(number=1, start=COUNTS[2]).starts() == [COUNTS[2]]
    assert Restart(number=1, start=COUNTS[2], other=COUNTS[0]).starts() == [COUNTS[2], COUNTS[0]]


class Training(Count):
    def train(self, context: Context) -> dict[str, torch.Tensor]:
        Count.contexts.append(context)
        assert context.checkpoint is not None
        context.checkpoint.parent.mkdir(parents=True)
        context.checkpoint.write_bytes(b"half way")
        context.part("second").checkpoint.write_bytes(b"half way")
        return {"w": torch.ones(2)}


def test_what_a_run_starts_from_is_trained_once_and_leaves_no_checkpoint(folders: Path) -> None:
    context = Context("cpu", None, math.inf, 500, False, Profile.FULL)
    for _ in range(2):
        assert context.start(Training(number=1))["w"].tolist() == [1, 1]
    assert len(Count.contexts) == 1
    assert [*(folders / "cache" / "checkpoints").iterdir()] == []


def test_an_unknown_device_is_an_error_for_all() -> None:
    with pytest.raises(FewbitsError, match="'gpu' is unknown"):
        run(COUNTS[0], Profile.FULL, device="gpu")


def test_a_computation_can_add_to_the_provenance() -> None:
    record = run(COUNTS[0], Profile.FULL)
    assert record.provenance.model_extra == {"source_sha256": "ab"}
    assert run(COUNTS[0], Profile.FULL).provenance == record.provenance
    assert "source_sha256" not in str(record.result)
