"""The loop against schedules and steps worked out by hand."""

import errno
import math
import os
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.training.loop import Diverged, History, OutOfTime, Trainer
from fewbits.training.settings import Precision, Training


class Scripted:
    """One weight w with loss ``slope``·w, so each step moves it by −rate·slope; validation losses are given."""

    def __init__(
        self, valid: Sequence[float], steps: int = 3, slope: float = 0.1, losses: Sequence[float] = ()
    ) -> None:
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.model.weight)
        self.steps, self.slope, self.valid, self.losses = steps, slope, list(valid), list(losses)
        self.asked: list[int] = []
        self.validations = 0

    @property
    def weight(self) -> float:
        return self.model.weight.item()

    def loss(self, step: int) -> Tensor:
        self.asked.append(step)
        shown = self.losses[len(self.asked) - 1] if self.losses else 1.0
        return self.slope * self.model.weight.sum() + shown

    def validate(self) -> float:
        self.validations += 1
        return self.valid[self.validations - 1]

    def state(self) -> int:
        return self.validations

    def restore(self, state: int) -> None:
        self.validations = state


class Regression:
    """A small network with dropout on made-up data: random numbers decide every step."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 1))
        self.steps = 4
        self.carried = torch.zeros(3)  # what a later step needs from earlier ones
        source = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(self.steps, 3, 5, generator=source)
        self.target = torch.randn(self.steps, 3, generator=source)

    def loss(self, step: int) -> Tensor:
        answer = self.model(self.inputs[step]).squeeze(1) + 0.1 * self.carried
        self.carried = answer.detach()
        return (answer - self.target[step]).square().mean()

    def validate(self) -> float:
        self.model.eval()
        return (self.model(self.inputs).squeeze(2) - self.target).square().mean().item()

    def state(self) -> Tensor:
        return self.carried

    def restore(self, state: Tensor) -> None:
        self.carried = state


GENTLE = Training(learning_rate=0.5, clip=1e9, epochs=3)


def trainer(task: Any, training: Training = GENTLE, **settings: Any) -> Trainer:
    return Trainer(task, training, device="cpu", progress=False, **settings)


def trained(task: Regression, **settings: Any) -> tuple[History, dict[str, Tensor]]:
    history = trainer(task, **settings).fit()
    return history, task.model.state_dict()


def same(left: tuple[History, dict[str, Tensor]], right: tuple[History, dict[str, Tensor]]) -> bool:
    return left[0] == right[0] and all(torch.equal(left[1][name], right[1][name]) for name in left[1] | right[1])


# --- schedule ---------------------------------------------------------------------------------------------------------


def test_the_rate_falls_on_a_plateau_and_training_stops_early() -> None:
    #       better  better  worse  equal→worse  better  worse  worse: three in a row  (never reached)
    valid = [5.0, 4.0, 4.5, 4.0, 3.0, 3.5, 3.2, 3.1, 1.0]
    rates = [16.0, 16.0, 16.0, 4.0, 1.0, 1.0, 0.25, 0.0625]  # divided by 4 after each epoch without improvement
    task = Scripted(valid)
    history = trainer(task, Training(learning_rate=16.0, decay=4.0, patience=3, epochs=20, clip=9.0)).fit()
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [row["learning_rate"] for row in history] == rates
    assert [row["valid_loss"] for row in history] == valid[:8]
    assert task.asked == [0, 1, 2] * 8
    # the weights are those after epoch 5, the best: 3 steps an epoch, each −rate·0.1
    assert task.weight == pytest.approx(-0.1 * 3 * sum(rates[:5]), rel=1e-6)


def test_the_first_of_two_equal_epochs_is_kept() -> None:
    task = Scripted([2.0, 2.0])
    trainer(task, Training(learning_rate=1.0, clip=9.0, epochs=2)).fit()
    assert task.weight == pytest.approx(-0.3, rel=1e-6)


def test_no_more_epochs_than_asked_for() -> None:
    task = Scripted([3.0, 2.0, 1.0, 0.5])
    assert len(trainer(task, Training(learning_rate=1.0, clip=9.0, epochs=3)).fit()) == 3
    assert len(task.asked) == 9


def test_the_train_loss_is_the_mean_of_an_epochs_steps() -> None:
    task = Scripted([1.0, 1.0], slope=0.0, losses=[1.0, 2.0, 6.0, 4.0, 4.0, 7.0])
    history = trainer(task, Training(epochs=2)).fit()
    assert [row["train_loss"] for row in history] == [3.0, 5.0]


@pytest.mark.parametrize(("slope", "step"), [(0.2, 0.2), (0.25, 0.25), (8.0, 0.25), (-8.0, -0.25)])
def test_a_single_gradient_is_clipped_to_its_norm(slope: float, step: float) -> None:
    task = Scripted([1.0], steps=1, slope=slope)
    trainer(task, Training(learning_rate=1.0, clip=0.25, epochs=1)).fit()
    assert task.weight == pytest.approx(-step, rel=1e-5)


def test_all_gradients_are_clipped_together_as_torch_does() -> None:
    task = Regression()
    trainer(task, Training(learning_rate=0.7, clip=0.05, epochs=1)).fit()
    twin = Regression()  # seeds anew
    optimizer = torch.optim.SGD(twin.model.parameters(), lr=0.7)
    norms = []
    for step in range(twin.steps):
        optimizer.zero_grad()
        twin.loss(step).backward()
        norms.append(float(nn.utils.clip_grad_norm_(twin.model.parameters(), 0.05)))
        optimizer.step()
    assert min(norms) > 0.05, "nothing was clipped"
    assert all(torch.equal(a, b) for a, b in zip(task.model.parameters(), twin.model.parameters(), strict=True))


def test_frozen_parameters_stay_and_do_not_count_for_the_norm() -> None:
    task = Scripted([1.0], steps=1, slope=0.2)
    task.model.register_parameter("frozen", nn.Parameter(torch.ones(3), requires_grad=False))
    trainer(task, Training(learning_rate=1.0, clip=0.25, epochs=1)).fit()
    assert task.weight == pytest.approx(-0.2, rel=1e-6)
    assert task.model.get_parameter("frozen").tolist() == [1.0, 1.0, 1.0]


# --- divergence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_training_loss_that_is_no_number_names_step_and_remedy(bad: float, tmp_path: Path) -> None:
    path = tmp_path / "it.pt"
    task = Scripted([1.0, 1.0], losses=[1.0, 1.0, 1.0, 1.0, bad, 1.0])
    with pytest.raises(Diverged) as caught:
        trainer(task, Training(learning_rate=3.0, clip=0.5, epochs=2), checkpoint=path).fit()
    message = str(caught.value)
    assert f"{bad} in epoch 2, step 2" in message
    assert "Lower the learning rate (now 3)" in message
    assert "clip (0.5)" in message
    saved = torch.load(path, weights_only=True)
    assert (saved["at"]["epoch"], saved["at"]["step"]) == (1, 0), "the checkpoint of the last good epoch is kept"
    assert os.listdir(tmp_path) == ["it.pt"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_validation_loss_that_is_no_number_names_step_and_remedy(bad: float, tmp_path: Path) -> None:
    path = tmp_path / "it.pt"
    with pytest.raises(Diverged, match=rf"{bad} after epoch 2, step 3: .*Lower the learning rate \(now 3\)"):
        trainer(Scripted([1.0, bad]), Training(learning_rate=3.0, epochs=2), checkpoint=path).fit()
    assert torch.load(path, weights_only=True)["at"]["epoch"] == 1


def test_diverging_is_an_error_for_people_too_and_running_out_of_time_is_not_diverging() -> None:
    assert issubclass(Diverged, FewbitsError)
    with pytest.raises(OutOfTime) as caught:
        trainer(Scripted([1.0]), deadline=time.monotonic() - 1).fit()
    assert not isinstance(caught.value, Diverged)


# --- stopping and going on --------------------------------------------------------------------------------------------


def test_stopped_after_every_single_step_it_ends_the_same(tmp_path: Path) -> None:
    path = tmp_path / "it.pt"
    whole = trained(Regression())
    stops = 0
    while True:
        task = Regression(
            seed=stops
        )  # after the first stop another one: the checkpoint brings weights and random state
        try:
            pieces = trained(task, checkpoint=path, deadline=time.monotonic() - 1 if stops < 12 else math.inf)
            break
        except OutOfTime:
            stops += 1
            assert path.exists()
    assert stops == 3 * 4, "each of the steps was stopped after"
    assert same(pieces, whole)


def test_a_deadline_says_what_to_do_and_what_is_late_is_not_computed(tmp_path: Path) -> None:
    task = Scripted([1.0])
    with pytest.raises(OutOfTime, match="run the same command again"):
        trainer(task, checkpoint=tmp_path / "it.pt", deadline=time.monotonic() - 1).fit()
    assert task.asked == [0]


def test_a_checkpoint_is_written_each_interval(tmp_path: Path) -> None:
    path = tmp_path / "it.pt"
    task = Scripted([1.0], steps=8, losses=[1.0] * 7 + [math.nan])
    with pytest.raises(FewbitsError):
        trainer(task, checkpoint=path, every=3).fit()
    assert torch.load(path, weights_only=True)["at"]["step"] == 6
    again = Scripted([1.0, 1.0, 1.0], steps=8)
    trainer(again, checkpoint=path, every=3).fit()
    assert again.asked == [6, 7, *range(8), *range(8)]


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    whole = trained(Regression(), checkpoint=tmp_path / "it.pt")
    task = Regression(seed=9)
    task.loss = task.validate = None  # type: ignore[assignment]
    assert same(trained(task, checkpoint=tmp_path / "it.pt"), whole)


def test_a_training_that_stopped_early_stays_stopped(tmp_path: Path) -> None:
    patient = Training(patience=2, epochs=9)
    first = trainer(Scripted([1.0, 2.0, 2.0, 0.5]), patient, checkpoint=tmp_path / "it.pt").fit()
    again = Scripted([1.0, 2.0, 2.0, 0.5])
    assert trainer(again, patient, checkpoint=tmp_path / "it.pt").fit() == first
    assert again.asked == []


# --- checkpoints that are none ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "it.pt"
    with pytest.raises(OutOfTime):
        trained(Regression(), checkpoint=path, deadline=time.monotonic() - 1)
    return path.read_bytes()


def weights_at(content: bytes, path: Path) -> int:
    """Where the bytes of the first weight lie in a checkpoint."""
    path.write_bytes(content)
    first = torch.load(path, weights_only=True)["model"]["0.weight"].numpy().tobytes()
    return content.index(first)


def assert_refused(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(FewbitsError) as caught:
        trained(Regression(), checkpoint=path)
    assert str(caught.value).startswith(f"{path} is no checkpoint of this training (")
    assert str(caught.value).endswith("Delete it to start anew.")
    assert path.read_bytes() == before


@pytest.mark.parametrize("length", [0, 1, 100, -1000, -1])
def test_a_truncated_checkpoint_is_refused(good: bytes, length: int, tmp_path: Path) -> None:
    path = tmp_path / "it.pt"
    path.write_bytes(good[:length])
    assert_refused(path)


def test_one_changed_bit_of_a_weight_is_seen(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "it.pt"
    spoilt = bytearray(good)
    spoilt[weights_at(good, path)] ^= 1
    path.write_bytes(spoilt)
    assert_refused(path)


@pytest.mark.parametrize("content", [b"text, not a checkpoint", b"\x80\x04N.", bytes(10_000)])
def test_a_file_of_another_kind_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "it.pt"
    path.write_bytes(content)
    assert_refused(path)


def test_an_archive_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "it.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("page.txt", "text")
    assert_refused(path)


@pytest.mark.parametrize(
    "content",
    [[1, 2], {}, {"model": nn.Linear(2, 2).state_dict()}, {"model": None}, nn.Linear(1, 1)],
    ids=["list", "empty", "another model", "none", "pickled object"],
)
def test_a_checkpoint_of_something_else_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "it.pt"
    torch.save(content, path)
    assert_refused(path)


@pytest.mark.parametrize("part", ["model", "best", "optimizer", "task", "random", "at"])
def test_a_checkpoint_that_lacks_a_part_is_refused(good: bytes, part: str, tmp_path: Path) -> None:
    path = tmp_path / "it.pt"
    path.write_bytes(good)
    saved = torch.load(path, weights_only=True)
    del saved[part]
    torch.save(saved, path)
    assert_refused(path)


# --- a disk that does not take it -------------------------------------------------------------------------------------


def fail(monkeypatch: pytest.MonkeyPatch, name: str, number: int, calls: int) -> None:
    """Let ``os.<name>`` fail with error ``number`` from its ``calls``-th call on."""
    real, made = getattr(os, name), []

    def broken(*arguments: object) -> object:
        made.append(name)
        if len(made) >= calls:
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    monkeypatch.setattr(os, name, broken)


@pytest.mark.parametrize(
    ("name", "number", "word"),
    [("fsync", errno.ENOSPC, "No space left"), ("replace", errno.EROFS, "Read-only"), ("fsync", errno.EIO, "error")],
)
def test_a_failing_disk_is_an_error_and_the_old_checkpoint_is_good(
    name: str, number: int, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "it.pt"
    whole = trained(Regression())
    with monkeypatch.context() as patch:
        fail(patch, name, number, calls=4)
        with pytest.raises(FewbitsError, match=rf"cannot write .*it\.pt: .*{word}"):
            trained(Regression(), checkpoint=path, every=2)
    assert os.listdir(tmp_path) == ["it.pt"]
    assert same(trained(Regression(seed=5), checkpoint=path, every=2), whole)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(FewbitsError, match=r"cannot write .*Permission denied.*make the folder writable"):
        trained(Regression(), checkpoint=tmp_path / "it.pt")
    assert os.listdir(tmp_path) == []


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(FewbitsError, match=r"cannot write .*checkpoints"):
        trained(Regression(), checkpoint=tmp_path / "checkpoints" / "it.pt")


def test_a_processor_without_bfloat16_kernels_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.raises(FewbitsError, match="no bfloat16 kernels"):
        trainer(Regression(), Training(precision=Precision.BFLOAT16))
    trainer(Regression(), Training(precision=Precision.FLOAT32, epochs=1)).fit()
