"""Translation as a task, on a made-up language whose translation is known; and what the loop does for it."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fewbits.classifiers import Softmax
from fewbits.errors import FewbitsError
from fewbits.models import Seq2Seq
from fewbits.training.loop import History, OutOfTime, Trainer
from fewbits.training.settings import Optimizer, Schedule, Training
from fewbits.training.translation import BATCHED, TUTORIAL, Pair, Translation

ROOT = Path(__file__).parents[2]
EOS, WORDS, HIDDEN = 1, 12, 16


def pairs(count: int, seed: int = 0) -> list[Pair]:
    """Sentences of 1 to 5 words; the translation of a sentence is its words, backwards, without the first."""
    source = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        words = torch.randint(2, WORDS, (int(torch.randint(1, 6, (1,), generator=source)),), generator=source)
        made.append((torch.cat([words, torch.tensor([EOS])]), torch.cat([words[1:].flip(0), torch.tensor([EOS])])))
    return made


TRAIN, VALID = pairs(60), pairs(23, seed=1)
LONG = next(pair for pair in TRAIN if len(pair[1]) == 5)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def model(dropout: float = 0.1) -> Seq2Seq:
    torch.manual_seed(0)
    return Seq2Seq(WORDS, Softmax(HIDDEN, WORDS), sos=0, eos=EOS, dropout=dropout)


class Recorder(nn.Module):
    """Notes what it is asked; its loss is the number of the words."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.asked: list[tuple[list[list[int]], list[list[int]], bool]] = []

    def loss(self, source: Tensor, target: Tensor, *, teacher_forcing: bool = True) -> Tensor:
        self.asked.append((source.tolist(), target.tolist(), teacher_forcing))
        return self.weight * target.shape[1]

    def read(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """The pairs, in order, without padding."""
        rows = [row for sources, targets, _ in self.asked for row in zip(sources, targets, strict=True)]
        return [(tuple(w for w in s if w >= 0), tuple(t)) for s, t in rows]


def plain(found: list[Pair]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(tuple(source.tolist()), tuple(target.tolist())) for source, target in found]


def recorded(epochs: int = 1, **settings: float | int | None) -> Recorder:
    torch.manual_seed(4)
    recorder = Recorder()
    task = Translation(recorder, TRAIN, VALID, **settings)  # type: ignore[arg-type]
    for step in list(range(task.steps)) * epochs:
        task.loss(step)
    return recorder


# --- the batches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
def test_an_epoch_has_every_pair_once_in_batches_of_one_target_length(batch_size: int) -> None:
    recorder = recorded(batch_size=batch_size)
    assert sorted(recorder.read()) == sorted(plain(TRAIN))
    by_length = {n: sum(len(target) == n for _, target in TRAIN) for n in range(1, 6)}
    assert len(recorder.asked) == sum(math.ceil(number / batch_size) for number in by_length.values())
    assert all(len(targets) <= batch_size for _, targets, _ in recorder.asked)
    assert not any(-1 in target for _, targets, _ in recorder.asked for target in targets)


def test_each_epoch_has_another_order_and_other_batches() -> None:
    recorder = recorded(epochs=2, batch_size=4)
    half = len(recorder.asked) // 2
    first, second = recorder.asked[:half], recorder.asked[half:]
    assert [len(t[0]) for _, t, _ in first] != sorted(len(t[0]) for _, t, _ in first)
    assert {str(sorted(t)) for _, t, _ in first} != {str(sorted(t)) for _, t, _ in second}


def test_batches_of_an_epoch_have_source_sentences_of_like_lengths() -> None:
    uneven = [(torch.full((1 + n % 9,), 3), torch.tensor([2, EOS])) for n in range(90)]
    recorder = Recorder()
    task = Translation(recorder, uneven, VALID, batch_size=10)  # type: ignore[arg-type]
    for step in range(task.steps):
        task.loss(step)
    assert not any(-1 in source for sources, _, _ in recorder.asked for source in sources)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_random_pairs_are_drawn_with_replacement_and_alike_often(batch_size: int) -> None:
    draws = 6000
    recorder = recorded(batch_size=batch_size, steps=draws // batch_size)
    assert len(recorder.asked) == draws // batch_size
    assert all(len({len(t) for t in targets}) == 1 and len(targets) == batch_size for _, targets, _ in recorder.asked)
    drawn, known = recorder.read(), plain(TRAIN)
    counts = [drawn.count(pair) / known.count(pair) for pair in dict.fromkeys(known)]
    # 100 draws a pair on average; a batch of 4 repeats its length, so the deviation is at most twice Poisson's 10
    assert all(abs(count - 100) < 5 * 20 for count in counts)
    assert min(counts) > 40
    assert len(set(counts)) > 5


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 420, 580), (0.8, 730, 870), (1.0, 1000, 1000)])
def test_teacher_forcing_is_drawn_for_each_batch(share: float, least: int, most: int) -> None:
    forced = sum(forced for _, _, forced in recorded(steps=1000, teacher_forcing=share).asked)
    assert least <= forced <= most  # five standard deviations, at most 16 each


# --- the loss ------------------------------------------------------------------------------------------------------


def summed_nll(made: Seq2Seq, source: Tensor, target: Tensor) -> Tensor:
    """The tutorial's loss of one sentence, by log_softmax of the output layer."""
    logits = made.classifier.output(made(source[None], target[None]))  # type: ignore[operator,union-attr]
    return -logits.log_softmax(-1)[0, range(len(target)), target].sum()


def test_the_value_is_what_the_tutorial_reports_and_the_gradient_what_it_descends() -> None:
    made = model(dropout=0.0)
    task = Translation(made, [LONG], VALID, teacher_forcing=1.0, steps=3)
    source, target = LONG
    expected = summed_nll(made, source, target)
    expected.backward()
    wanted = {name: parameter.grad.clone() for name, parameter in made.named_parameters() if parameter.grad is not None}
    made.zero_grad()
    loss = task.loss(0)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item() / len(target), rel=1e-6)
    for name, parameter in made.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name])


def test_a_batch_is_the_mean_of_its_sentences() -> None:
    made = model(dropout=0.0)
    alike = [pair for pair in TRAIN if len(pair[1]) == 4]
    task = Translation(made, alike, VALID, batch_size=100, teacher_forcing=1.0)
    expected = torch.stack([summed_nll(made, *pair) / 4 for pair in alike]).mean()
    assert task.steps == 1
    assert task.loss(0).item() == pytest.approx(expected.item(), rel=1e-6)


def test_validation_reads_every_pair_with_teacher_forcing_and_without_dropout() -> None:
    made = model(dropout=0.5).train()
    task = Translation(made, TRAIN, VALID, teacher_forcing=0.0)
    before = torch.get_rng_state()
    found = task.validate()
    assert made.training
    assert torch.equal(torch.get_rng_state(), before)
    made.eval()
    expected = [summed_nll(made, *pair).item() / len(pair[1]) for pair in VALID]
    assert found == pytest.approx(sum(expected) / len(expected), rel=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train": []}, "0 training and 23 validation pairs"),
        ({"valid": []}, "60 training and 0 validation pairs"),
        ({"batch_size": 0}, "a batch size of 0"),
        ({"steps": 0}, "0 steps"),
        ({"teacher_forcing": 1.5}, "teacher forcing of 1.5"),
    ],
)
def test_a_task_that_cannot_train_is_refused(wrong: dict[str, object], message: str) -> None:
    arguments = {"model": model(), "train": TRAIN, "valid": VALID} | wrong
    with pytest.raises(FewbitsError, match=message):
        Translation(**arguments)  # type: ignore[arg-type]


# --- in the loop ---------------------------------------------------------------------------------------------------


def trained(training: Training, *, batch_size: int = 1, steps: int | None = None, **settings: object) -> tuple:
    made = model()
    task = Translation(made, TRAIN, VALID, batch_size=batch_size, steps=steps)
    history: History = Trainer(task, training, device="cpu", progress=False, **settings).fit()  # type: ignore[arg-type]
    return history, made


SETTINGS = {
    "tutorial": (TUTORIAL.model_copy(update={"epochs": 2}), {"steps": 4}),
    "batched": (BATCHED.model_copy(update={"epochs": 2}), {"batch_size": 30}),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_an_interrupted_training_ends_as_an_uninterrupted_one(kind: str, tmp_path: Path) -> None:
    training, arguments = SETTINGS[kind]
    history, whole = trained(training, **arguments)  # type: ignore[arg-type]
    interruptions = 0
    while True:  # each life ends after one step
        try:
            pieces = trained(training, **arguments, checkpoint=tmp_path / "it.pt", deadline=0.0)  # type: ignore[arg-type]
            break
        except OutOfTime:
            interruptions += 1
    assert interruptions >= 8
    assert pieces[0] == history
    assert all(torch.equal(value, pieces[1].state_dict()[name]) for name, value in whole.state_dict().items())


def test_batches_reach_the_loss_of_one_sentence_at_a_time_in_fewer_steps() -> None:
    start = Translation(model(), TRAIN, VALID).validate()
    slow, _ = trained(TUTORIAL.model_copy(update={"epochs": 1}), steps=240)
    fast, _ = trained(BATCHED.model_copy(update={"epochs": 6, "learning_rate": 0.02}), batch_size=30)
    assert slow[-1]["valid_loss"] < start - 0.2
    assert fast[-1]["valid_loss"] <= slow[-1]["valid_loss"]
    assert len(fast) * Translation(model(), TRAIN, VALID, batch_size=30).steps < 240 / 5


class Slope:
    """One weight with a loss of slope 2, 1, 2, 1, …; validation losses are given."""

    def __init__(self, valid: list[float]) -> None:
        self.model, self.valid, self.steps = nn.Linear(1, 1, bias=False), valid, 2
        nn.init.zeros_(self.model.weight)

    def loss(self, step: int) -> Tensor:
        return (2 - step % 2) * self.model.weight.sum()

    def validate(self) -> float:
        return self.valid.pop(0)

    def state(self) -> None: ...

    def restore(self, state: None) -> None: ...


def test_adam_is_that_of_the_paper() -> None:
    task = Slope([1.0, 1.0])
    training = Training(optimizer=Optimizer.ADAM, learning_rate=0.1, clip=1e9, epochs=2, schedule=Schedule.CONSTANT)
    Trainer(task, training, device="cpu", progress=False).fit()
    weight = first = second = 0.0
    for step, slope in enumerate([2.0, 1.0, 2.0, 1.0], 1):
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        weight -= 0.1 * (first / (1 - 0.9**step)) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
    assert task.model.weight.item() == pytest.approx(weight, rel=1e-5)


def test_a_constant_schedule_runs_every_epoch_and_keeps_the_last_weights() -> None:
    task = Slope([1.0, 2.0, 3.0, 4.0])
    training = Training(learning_rate=0.5, patience=1, clip=1e9, epochs=4, schedule=Schedule.CONSTANT)
    history = Trainer(task, training, device="cpu", progress=False).fit()
    assert [row["learning_rate"] for row in history] == [0.5] * 4
    assert task.model.weight.item() == -0.5 * 3 * 4


def test_records_from_before_these_settings_keep_their_keys() -> None:
    found = [json.loads(path.read_text()) for path in ROOT.glob("data/results/lstm_perplexity/*.json")]
    assert found
    for record in found:
        stored = record["result"]["config"]["training"]
        assert Training.model_validate(stored).model_dump(mode="json") == stored


def test_the_new_settings_are_in_a_dump_where_they_matter() -> None:
    assert "optimizer" not in TUTORIAL.model_dump()
    assert TUTORIAL.model_dump(mode="json")["schedule"] == "constant"
    assert BATCHED.model_dump(mode="json")["optimizer"] == "adam"
    for training in (TUTORIAL, BATCHED, Training()):
        assert Training.model_validate_json(training.model_dump_json()) == training
    with pytest.raises(ValidationError, match="optimizer"):
        Training.model_validate({"optimizer": "rmsprop"})
