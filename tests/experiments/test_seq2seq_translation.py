"""The translator's experiment on a made-up language: its pairs, its runs, its arms, and stopping it."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_translation import MADE_UP, configuration, corpus, made_up_language
from torch import Tensor

from fewbits.data import Pair, split_pairs
from fewbits.errors import FewbitsError
from fewbits.experiments import seq2seq_translation
from fewbits.experiments.seq2seq_translation import ARMS, runs, texts
from fewbits.experiments.seq2seq_translation.texts import TESTS, split_texts
from fewbits.experiments.seq2seq_translation.translations import SEARCHES
from fewbits.study import records
from fewbits.study.profiles import Profile
from fewbits.study.records import Record, Result
from fewbits.study.run import run
from fewbits.training.loop import OutOfTime
from fewbits.training.settings import Schedule, Training
from fewbits.training.translation import BATCHED, TUTORIAL, Translation


@pytest.fixture(autouse=True, scope="module")
def made_up() -> Iterator[None]:
    with made_up_language():
        yield


def smoke(**changes: Any) -> Result:
    return run(configuration(**changes), Profile.SMOKE, device="cpu", progress=False).result


# --- the pairs --------------------------------------------------------------------------------------------------------

SENTENCES = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3).map(tuple)


@given(
    pairs=st.lists(st.tuples(SENTENCES, SENTENCES), min_size=2, max_size=90),
    share=st.floats(0.01, 0.5),
    seed=st.integers(0, 5),
    limit=st.none() | st.integers(2, 90),
)
def test_each_pair_has_one_purpose_and_inside_is_known(
    pairs: list[Pair], share: float, seed: int, limit: int | None
) -> None:
    used = pairs[:limit]
    size = max(1, int(share * len(used)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "load_pairs", lambda name: corpus(name, tuple(pairs)))
        plain = split_pairs(tuple(used), seed, size)
        if not plain.outside_unique or set(plain.training) == set(plain.inside):
            with pytest.raises(FewbitsError, match="Take more pairs"):
                split_texts("any", limit, size, seed)
            return
        found = split_texts("any", limit, size, seed)
        assert split_texts("any", limit, size, seed).training == found.training
    training, validation = Counter(found.training), Counter(found.validation)
    assert training + validation + Counter(found.outside) == Counter(used)
    assert len(found.inside) == len(found.outside) == size
    assert Counter(found.inside) <= training
    assert not set(found.inside) & set(found.validation)
    candidates = [pair for pair in (training + validation).elements() if pair not in found.inside]
    assert len(found.validation) == math.ceil(len(candidates) / 20)
    read = {source for source, _ in training + validation}, {target for _, target in training + validation}
    assert list(found.outside_unique) == [
        pair for pair in found.outside if pair[0] not in read[0] and pair[1] not in read[1]
    ]
    assert found.longest == 1 + max(len(sentence) for pair in pairs for sentence in pair), "also of pairs not used"


def test_pairs_become_numbers_that_end_and_sources_one_padded_batch() -> None:
    found = split_texts(MADE_UP, None, 10, 0)
    (source, target), *_ = found.numbers(found.outside)
    vocabularies = found.corpus.source.words, found.corpus.target.words
    for numbers, words, sentence in zip((source, target), vocabularies, found.outside[0], strict=True):
        assert [words[number] for number in numbers.tolist()] == [*sentence, "<eos>"]
    batch = found.sources(found.outside)
    assert batch.shape == (10, 1 + max(len(source) for source, _ in found.outside))
    assert [number for number in batch[0].tolist() if number >= 0] == source.tolist()


def test_another_seed_splits_otherwise_and_too_few_pairs_are_refused() -> None:
    assert split_texts(MADE_UP, None, 10, 0).outside != split_texts(MADE_UP, None, 10, 1).outside
    with pytest.raises(FewbitsError, match="10 of 19 pairs cannot be held out"):
        split_texts(MADE_UP, 19, 10, 0)


# --- which runs a profile has -----------------------------------------------------------------------------------------


def test_full_has_three_seeds_and_the_tutorials_own_schedule_for_each_arm() -> None:
    batched, tutorial = runs(Profile.FULL)[:3], runs(Profile.FULL)[3:]
    assert [(each.arms, each.seed, each.batch_size, each.steps, each.training) for each in batched] == [
        (("softmax", "max-shift"), seed, 64, None, BATCHED) for seed in range(3)
    ]
    assert [(each.arms, each.seed) for each in tutorial] == [(("softmax",), 0), (("max-shift",), 0)]
    assert {each.batch_size * (each.steps or 0) * each.training.epochs for each in tutorial} == {75_000}
    assert {each.training for each in tutorial} == {TUTORIAL}
    assert {(each.corpus, each.pairs, each.test_size) for each in (*batched, *tutorial)} == {("eng-fra", None, 1_000)}


@pytest.mark.parametrize("profile", Profile)
def test_names_are_unique_and_the_number_of_seeds_can_be_chosen(profile: Profile) -> None:
    for found in (runs(profile), runs(profile, seeds=5)):
        assert len({each.name for each in found}) == len(found)
    assert [each.seed for each in runs(profile, seeds=5) if each.steps is None] == [0, 1, 2, 3, 4]
    assert [each.seed for each in runs(profile) if each.steps is None] == [*range(3 if profile is Profile.FULL else 1)]
    with pytest.raises(FewbitsError, match="seeds is 0; give 1 or more, or None"):
        runs(profile, seeds=0)


@pytest.mark.parametrize("arms", [("softmax", "max_shift"), (), ("softmax", "softmax")])
def test_unknown_arms_no_arms_and_an_arm_twice_are_refused(arms: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="each is one of softmax, max-shift, once"):
        configuration(arms=arms)


def test_the_hashes_are_those_of_the_text_and_it_runs_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seq2seq_translation, "data_hashes", lambda name: {"file": name})
    assert configuration(corpus="bible-en-fr").data_hashes() == {"file": "bible-en-fr"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert configuration().runs_on("auto") == configuration().runs_on("cuda") == "cpu"


# --- both arms, one arm, and stopping ---------------------------------------------------------------------------------


def test_an_arm_alone_is_what_it_is_beside_the_other_but_for_the_paired_test() -> None:
    both = smoke()
    paired = {f"{test}_{search}_p" for test in TESTS for search in SEARCHES} | {"paired_signature"}
    alone = {arm: smoke(arms=(arm,)) for arm in ARMS}
    assert not any(paired & found.metrics.keys() for found in alone.values())
    metrics = alone["softmax"].metrics | alone["max-shift"].metrics
    assert both.metrics == metrics | {name: both.metrics[name] for name in paired}
    assert both.arrays == alone["softmax"].arrays | alone["max-shift"].arrays
    assert both.texts == alone["softmax"].texts | alone["max-shift"].texts
    rows = zip(alone["softmax"].history, alone["max-shift"].history, strict=True)
    assert both.history == [left | right for left, right in rows]
    assert "gap_mean" not in alone["max-shift"].metrics


ALL_ONCE: dict[str, Any] = {
    "arms": ("max-shift",), "steps": None, "batch_size": 100,
    "training": Training(learning_rate=0.1, epochs=1, schedule=Schedule.CONSTANT),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "steps"),
    [({}, 2 * 2 * 2), (ALL_ONCE, 4)],  # arms, epochs and steps; a batch for each of 4 target lengths
    ids=["tutorial", "batched"],
)
def test_stopped_after_every_step_it_gives_the_same_result_and_leaves_no_checkpoint(
    changes: dict[str, Any], steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path))
    stops = 0
    while True:
        try:
            record = run(configuration(**changes), Profile.LAPTOP, device="cpu", deadline=0.0, progress=False)
            break
        except OutOfTime:
            stops += 1
    assert stops == steps
    assert record.result == smoke(**changes)
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".json"]


def test_the_time_of_an_arm_is_that_of_its_steps_however_often_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, loss = [0.0], Translation.loss

    def slow(self: Translation, step: int) -> Tensor:
        clock[0] += 2
        return loss(self, step)

    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path))
    monkeypatch.setattr(Translation, "loss", slow)
    monkeypatch.setattr(seq2seq_translation, "seconds_on", lambda device: clock[0])
    while True:
        try:
            record = run(configuration(), Profile.LAPTOP, device="cpu", deadline=0.0, progress=False)
            break
        except OutOfTime:
            continue
    assert (record.provenance.model_extra or {})["training_seconds"] == {"softmax": 8.0, "max-shift": 8.0}


def test_checkpoints_stay_until_the_record_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(record: Record, path: Path) -> None:
        raise FewbitsError("disk full")

    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(records, "save", full)
        with pytest.raises(FewbitsError, match="disk full"):
            run(configuration(), Profile.LAPTOP, device="cpu", progress=False)
    assert len(list(tmp_path.rglob("*.pt"))) == 2
    run(configuration(), Profile.LAPTOP, device="cpu", progress=False)
    assert not list(tmp_path.rglob("*.pt"))


def test_a_schedule_that_may_end_the_arms_at_different_epochs_is_refused() -> None:
    with pytest.raises(ValidationError, match="schedule is CONSTANT"):
        configuration(training=Training())


def test_another_seed_gives_another_result() -> None:
    first, again, other = (smoke(arms=("softmax",), seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert other.weights_sha256 != first.weights_sha256
    assert other.texts["source"] != first.texts["source"], "the seed is also that of the split"
