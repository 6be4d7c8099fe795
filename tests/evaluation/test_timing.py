"""Turns and medians on a clock that only moves when it is told to."""

import time
import weakref
from collections.abc import Callable

import pytest

from fewbits.errors import FewbitsError
from fewbits.evaluation import timing
from fewbits.evaluation.timing import seconds_on, take_turns


class Clock:
    """Forms that take scripted times, and the order in which they ran."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ran: list[str] = []

    def form(self, name: str, *seconds: float) -> Callable[[], None]:
        """A form that takes ``seconds`` in its first, second, … run."""
        script = iter(seconds)

        def run() -> None:
            self.ran.append(name)
            self.now += next(script)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing, "timer", lambda: made.now)
    return made


def test_every_other_round_runs_backwards(clock: Clock) -> None:
    take_turns({name: clock.form(name, *[1.0] * 5) for name in "abc"}, rounds=3)
    assert "".join(clock.ran) == "abc" + "cba" + "abc" + "cba" + "abc"


def test_each_form_has_the_median_of_its_own_times(clock: Clock) -> None:
    forms = {"a": clock.form("a", 1, 1, 8, 2, 4), "b": clock.form("b", 1, 1, 16, 64, 32)}
    assert take_turns(forms, rounds=3) == {"a": 4, "b": 32}


def test_of_an_even_number_of_rounds_it_is_the_mean_of_the_two_in_the_middle(clock: Clock) -> None:
    assert take_turns({"a": clock.form("a", 0, 0, 9, 1, 2, 4)}, rounds=4) == {"a": 3}


def test_the_first_two_rounds_do_not_count(clock: Clock) -> None:
    assert take_turns({"a": clock.form("a", 1000, 500, 2)}, rounds=1) == {"a": 2}
    assert take_turns({"a": clock.form("a", 0, 0, 2)}, rounds=1) == {"a": 2}


@pytest.mark.parametrize("rounds", [0, -1])
def test_no_rounds_are_an_error_and_nothing_runs(rounds: int, clock: Clock) -> None:
    with pytest.raises(FewbitsError, match=rf"{rounds} rounds measure nothing; one or more"):
        take_turns({"a": clock.form("a", 1, 1)}, rounds)
    assert clock.ran == []


def test_what_a_form_returns_is_freed_before_the_next_starts() -> None:
    alive: list[weakref.ref[set[int]]] = []

    def form() -> set[int]:
        assert all(each() is None for each in alive)
        made = {1}
        alive.append(weakref.ref(made))
        return made

    take_turns({"a": form, "b": form}, rounds=1)
    assert len(alive) == 6


def test_on_the_processor_only_work_counts_and_on_cuda_the_clock_on_the_wall() -> None:
    before = seconds_on("cpu"), seconds_on("cuda")
    time.sleep(0.2)
    slept = seconds_on("cpu") - before[0], seconds_on("cuda") - before[1]
    assert slept[0] < 0.1
    assert slept[1] >= 0.2
    before_work, start = seconds_on("cpu"), time.thread_time()
    while time.thread_time() - start < 0.05:
        pass
    assert seconds_on("cpu") - before_work >= 0.05
