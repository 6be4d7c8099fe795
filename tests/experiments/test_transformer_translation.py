"""The experiment on a made-up language: what it scores, what it keeps, and going on after an interruption."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sacrebleu
from tiny_sentences import configuration, made_up_language, sentences

from fewbits.errors import FewbitsError
from fewbits.experiments.transformer_translation import CORPORA, Architecture, runs
from fewbits.experiments.transformer_translation.decoding import SEARCHES
from fewbits.experiments.transformer_translation.texts import Text
from fewbits.study.profiles import Profile
from fewbits.study.records import Result
from fewbits.study.run import run
from fewbits.training.loop import OutOfTime


@pytest.fixture(autouse=True, scope="module")
def made_up() -> Iterator[None]:
    with made_up_language():
        yield


@pytest.fixture(scope="module", params=Architecture)
def result(request: pytest.FixtureRequest, made_up: None) -> Result:
    return run(configuration(architecture=request.param), Profile.SMOKE, device="cpu", progress=False).result


def test_scores_are_those_of_the_translations(result: Result) -> None:
    source, references = map(list, zip(*sentences().parts["test_a"], strict=True))  # all four are kept
    assert (result.texts["test_a_source"], result.texts["test_a_reference"]) == (source, references)
    for search in SEARCHES:
        found = sacrebleu.corpus_bleu(result.texts[f"test_a_{search}"], [references]).score
        assert result.metrics[f"test_a_{search}"] == pytest.approx(found, abs=1e-9)
    softmax, max_shift = (result.metrics[f"test_a_beam_{kind}"] for kind in ("softmax", "max_shift"))
    assert result.metrics["test_a_kept"] == pytest.approx(100 * max_shift / softmax)
    assert result.metrics["test_b_pairs"] == 6
    assert "tok:13a" in result.metrics["bleu_signature"]
    assert "case:mixed" in result.metrics["bleu_signature"]


def test_a_beam_of_one_is_the_same_word_for_word(result: Result) -> None:
    for test in ("test_a", "test_b"):
        assert result.metrics[f"{test}_max_shift_same"] == 1
        assert result.metrics[f"{test}_integer_0_same"] < result.metrics[f"{test}_integer_8_same"] <= 1


def test_it_learns_and_the_average_is_validated_too(result: Result) -> None:
    history = result.history
    assert history[-1]["valid_loss"] < 0.8 * history[0]["valid_loss"]
    assert result.metrics["valid_loss"] == pytest.approx(history[-1]["valid_loss"])
    assert 0.5 < result.metrics["averaged_valid_loss"] / result.metrics["valid_loss"] < 1.5
    assert result.metrics["averaged_valid_loss"] != result.metrics["valid_loss"]


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path))
    chosen = configuration(training=configuration().training.model_copy(update={"epochs": 3}))
    whole = run(chosen, Profile.SMOKE, device="cpu", progress=False).result
    stops = 0
    while True:
        try:  # a deadline that has passed stops after each step
            deadline = 0.0 if stops < 5 else float("inf")
            parts = run(chosen, Profile.LAPTOP, device="cpu", deadline=deadline, progress=False).result
            break
        except OutOfTime:
            stops += 1
    assert stops == 5
    assert parts.weights_sha256 == whole.weights_sha256
    assert parts.metrics == whole.metrics


def test_pieces_come_from_the_training_pairs_alone_and_parts_can_be_cut() -> None:
    text = Text.load("made-up", 30, pairs=50, tested=3)
    assert [len(text.part(part)) for part in ("train", "valid", "test_a", "test_b")] == [50, 10, 3, 3]
    source, target = text.numbers("test_a")[0]
    assert (text.subwords.decode(source), text.subwords.decode(target)) == text.part("test_a")[0]
    assert Text.load("made-up", 30, pairs=60).subwords.model != text.subwords.model


def test_the_runs_of_each_profile() -> None:
    full = runs(Profile.FULL)
    assert len({each.name for each in full}) == len(full) == 12
    assert {each.corpus for each in full} == set(CORPORA)
    assert [each.seed for each in full] == [0] * 4 + [1] * 4 + [2] * 4
    assert {each.training.epochs for each in full if each.corpus == "multi30k-en-de"} == {24}
    assert {each.training.epochs for each in full if each.corpus == "multi30k-en-fr"} == {48}
    assert {each.training.epochs for each in runs(Profile.FULL, corpus="multi30k-en-fr", epochs=3)} == {3}
    for profile in (Profile.SMOKE, Profile.LAPTOP):
        assert [each.architecture for each in runs(profile)] == list(Architecture)
        assert [each.training.epochs for each in runs(profile, epochs=2, corpus="made-up")] == [2, 2]
    with pytest.raises(FewbitsError, match="seeds is 0"):
        runs(Profile.FULL, seeds=0)
