"""Windows and states of language modelling against lists cut by hand."""

import pytest
import torch
from torch import Tensor, nn

from fewbits.classifiers import Softmax
from fewbits.data import Corpus, Source, Vocabulary
from fewbits.models import Cell, LanguageModel, RecurrentBody
from fewbits.models.recurrent import State
from fewbits.training.language_modelling import LanguageModelling

WORDS = 50


def corpus(tokens: int) -> Corpus:
    train = torch.randint(WORDS, (tokens,), generator=torch.Generator().manual_seed(2), dtype=torch.int32)
    words = ("<unk>", "<eos>", *map(str, range(WORDS - 2)))
    return Corpus("made up", Vocabulary(words), train, train[:40], train[:30], {}, Source.CACHE)


def model(cell: Cell = Cell.LSTM) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(RecurrentBody(WORDS, 8, 8, 1, cell), Softmax(8, WORDS))


class Recorder(nn.Module):
    """Notes what it is asked; its state counts the calls, with a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.asked: list[tuple[list[list[int]], list[list[int]]]] = []
        self.states: list[State | None] = []

    def loss(self, words: Tensor, targets: Tensor, state: State | None) -> tuple[Tensor, State]:
        assert words.dtype == targets.dtype == torch.long
        self.asked.append((words.tolist(), targets.tolist()))
        self.states.append(state)
        return self.weight.sum(), self.weight * len(self.asked)


def windows(text: list[int], batch_size: int, length: int) -> list[tuple[list[list[int]], list[list[int]]]]:
    """The windows by brute force: every (input, target) pair of every stream, one after another."""
    each = len(text) // batch_size
    streams = [text[b * each : (b + 1) * each] for b in range(batch_size)]
    rows = [([s[t] for s in streams], [s[t + 1] for s in streams]) for t in range(each - 1)]
    cut = [rows[start : start + length] for start in range(0, len(rows), length)]
    return [([inputs for inputs, _ in window], [targets for _, targets in window]) for window in cut]


@pytest.mark.parametrize(
    ("tokens", "batch_size", "length"),
    [(100, 4, 5), (103, 4, 5), (84, 4, 5), (88, 4, 5), (84, 4, 20), (84, 4, 21), (84, 4, 1), (8, 4, 3), (30, 1, 7)],
)
def test_windows_are_those_of_the_brute_force_list(tokens: int, batch_size: int, length: int) -> None:
    recorder, text = Recorder(), corpus(tokens)
    task = LanguageModelling(recorder, text, batch_size=batch_size, length=length)  # type: ignore[arg-type]
    expected = windows(text.train.tolist(), batch_size, length)
    assert task.steps == len(expected)
    for step in range(task.steps):
        task.loss(step)
    assert recorder.asked == expected


def test_the_state_is_carried_without_its_gradient_and_an_epoch_starts_from_none() -> None:
    recorder = Recorder()
    task = LanguageModelling(recorder, corpus(64), batch_size=4, length=5)  # type: ignore[arg-type]
    assert task.steps == 3
    for step in [0, 1, 2, 0, 1]:
        task.loss(step)
    carried = [None if state is None else (state.item(), state.requires_grad) for state in recorder.states]  # type: ignore[union-attr]
    assert carried == [None, (1.0, False), (2.0, False), None, (4.0, False)]


@pytest.mark.parametrize("cell", Cell)
def test_windows_side_by_side_are_one_long_window(cell: Cell) -> None:
    short = LanguageModelling(model(cell), corpus(84), batch_size=4, length=5)
    whole = LanguageModelling(model(cell), corpus(84), batch_size=4, length=20)
    losses = [short.loss(step) for step in range(4)]
    assert torch.stack(losses).mean().item() == pytest.approx(whole.loss(0).item(), rel=1e-6)
    # a window starts where the one before it ended: alone, it answers otherwise
    alone = LanguageModelling(model(cell), corpus(84), batch_size=4, length=5)
    assert alone.loss(3).item() != losses[3].item()


@pytest.mark.parametrize("cell", Cell)
def test_the_gradient_stays_within_a_window(cell: Cell) -> None:
    task = LanguageModelling(model(cell), corpus(84), batch_size=4, length=5)
    task.loss(0).backward()
    task.loss(1).backward()  # would fail if it reached the graph of the window before, which is gone


@pytest.mark.parametrize("cell", Cell)
def test_a_restored_task_goes_on_as_the_first_would(cell: Cell) -> None:
    first = LanguageModelling(model(cell), corpus(84), batch_size=4, length=5)
    assert first.state() is None
    first.loss(0)
    second = LanguageModelling(model(cell), corpus(84), batch_size=4, length=5)
    second.restore(first.state())
    assert second.loss(1).item() == first.loss(1).item()


def test_validation_reads_the_validation_text_after_an_end_of_document() -> None:
    made, text = model(), corpus(100)
    task = LanguageModelling(made, text, batch_size=4, length=5)
    total = 0.0
    columns = 20  # streams of the evaluation: 40 tokens, 2 in each
    before = [text.vocabulary.eos, *text.valid.tolist()]
    for column in range(columns):
        words = torch.tensor(before[2 * column : 2 * column + 2])[:, None]
        hidden, _ = made(words)
        logits = made.classifier.output(hidden).squeeze(1).double()  # type: ignore[operator,union-attr]
        goal = text.valid[2 * column : 2 * column + 2].long()
        total -= logits.log_softmax(-1).gather(1, goal[:, None]).sum().item()
    assert task.validate() == pytest.approx(total / 40, rel=1e-6)
