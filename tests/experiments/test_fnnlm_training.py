"""Training through classifiers: which runs there are, what is the same in two arms, and which weights are measured."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_training
import torch
from pydantic import ValidationError
from tiny_training import MADE_UP, TYPES
from torch import Tensor

from fewbits.classifiers import Classifier, Constant, Gradient, MaxShift, TopBit
from fewbits.data import Corpus, data_hashes
from fewbits.errors import FewbitsError
from fewbits.evaluation.perplexity import accuracy, perplexity
from fewbits.experiments import fnnlm_training, on_text
from fewbits.experiments.fnnlm_training import ARMS, FnnlmTraining, runs
from fewbits.models import FeedForwardBody, LanguageModel
from fewbits.study.profiles import Profile
from fewbits.study.records import Record, Result
from fewbits.study.run import Computed, Context, run, weights_hash
from fewbits.training.language_modelling import LanguageModelling
from fewbits.training.loop import OutOfTime, Trainer
from fewbits.training.settings import Optimizer, Schedule, Training

EOS = 1
SHORT = Training(optimizer=Optimizer.ADAM, learning_rate=5e-2, clip=1e9, epochs=2, schedule=Schedule.CONSTANT)
STEPS = 5  # an epoch of 1,000 words: 20 streams of 50
MAX_SHIFTS = [arm for arm in ARMS if arm.startswith("max-shift")]


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The made-up text and an empty cache; one thread, so that results can be compared bit for bit."""
    monkeypatch.setattr(on_text, "load_corpus", tiny_training.corpus)
    monkeypatch.setattr(on_text, "data_hashes", lambda name: {"it": "ab"})
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def configuration(arm: str, **changes: Any) -> FnnlmTraining:
    small: dict[str, Any] = {
        "corpus": MADE_UP, "embedding_size": 8, "hidden_size": 16, "train_tokens": 1_000, "evaluation_tokens": 300,
        "length": 10, "training": SHORT,
    }  # fmt: skip
    return FnnlmTraining.model_validate({"arm": arm} | small | changes)


def text() -> Corpus:
    return tiny_training.corpus().shortened(1_000, 300)


def smoke(arm: str, **changes: Any) -> Result:
    return run(configuration(arm, **changes), Profile.SMOKE, device="cpu", progress=False).result


def computed(arm: str, **changes: Any) -> Computed:
    """What a run computes, weights and all."""
    return configuration(arm, **changes).compute(Context("cpu", None, math.inf, 500, False))


def new_model(arm: str) -> LanguageModel:
    """The model of an arm before its training, made apart from the experiment."""
    torch.manual_seed(0)
    body = FeedForwardBody(TYPES, embedding_size=8, hidden_size=16, order=4)
    return LanguageModel(body, ARMS[arm](16, torch.bincount(text().train, minlength=TYPES)))


class Noted(LanguageModelling):
    """Notes the weights that each step left."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__(model, text(), batch_size=20, length=10)
        self.weights: list[dict[str, Tensor]] = []

    def note(self) -> None:
        self.weights.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})

    def loss(self, step: int) -> Tensor:
        if step:
            self.note()
        return super().loss(step)

    def validate(self) -> float:
        self.note()
        return super().validate()


# --- which runs a profile has -----------------------------------------------------------------------------------------


def test_full_repeats_the_two_arms_of_the_claim() -> None:
    found = [(each.arm, each.seed) for each in runs(Profile.FULL)]
    once = ["class-softmax", "adaptive-softmax", "max-shift-unnormalised"]
    assert found[:5] == [("softmax", 0), ("max-shift", 0), *((arm, 0) for arm in once)]
    assert found[5:] == [(arm, seed) for seed in (1, 2) for arm in ("softmax", "max-shift")]
    assert {(each.corpus, each.vocabulary_size, each.train_tokens) for each in runs(Profile.FULL)} == {
        ("ptb", None, None)
    }


def test_laptop_has_every_arm_and_smoke_three() -> None:
    assert [(each.arm, each.seed) for each in runs(Profile.LAPTOP)] == [(arm, 0) for arm in ARMS]
    assert [each.arm for each in runs(Profile.SMOKE)] == ["softmax", "max-shift", "max-shift-forward-only"]


@pytest.mark.parametrize("profile", Profile)
def test_arms_and_seeds_can_be_chosen_and_nothing_else_differs(profile: Profile) -> None:
    chosen = runs(profile, arms=["adaptive-softmax", "softmax"], seeds=2)
    expected = [(arm, seed) for seed in (0, 1) for arm in ("adaptive-softmax", "softmax")]
    assert [(each.arm, each.seed) for each in chosen] == expected
    assert [(each.arm, each.seed) for each in runs(profile, seeds=1)] == [
        (each.arm, 0) for each in runs(profile) if each.seed == 0
    ]
    same = [each.model_dump(exclude={"arm", "seed"}) for each in (*chosen, *runs(profile))]
    assert all(each == same[0] for each in same)
    for each in (chosen, runs(profile)):
        assert len({run.name for run in each}) == len(each), "names are unique"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"arms": ["softmax", "max-shfit"]}, "unknown arms max-shfit; there are softmax, max-shift, max-shift-forward"),
        ({"arms": []}, "arms is empty; there are softmax"),
        ({"seeds": 0}, "seeds is 0; give 1 or more, or None"),
    ],
)
def test_a_choice_that_is_none_is_an_error(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(FewbitsError, match=message):
        runs(Profile.SMOKE, **choice)


@pytest.mark.parametrize("field", [{"arm": "max_shift"}, {"order": 1}, {"hidden_size": 0}, {"layers": 2}])
def test_unknown_and_impossible_settings_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(field))):
        configuration(**({"arm": "softmax"} | field))


def test_the_hashes_are_those_of_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_text, "data_hashes", lambda name: {"file": name})
    assert configuration("softmax", corpus="news").data_hashes() == {"file": "news"}
    monkeypatch.undo()
    assert on_text.data_hashes is data_hashes


def test_the_max_shifts_have_the_gradient_and_the_shift_of_their_names() -> None:
    made: dict[str, Classifier] = {arm: new_model(arm).classifier for arm in ARMS}
    found = {arm: (each.gradient, each.shift) for arm, each in made.items() if isinstance(each, MaxShift)}
    assert found == {
        "max-shift": (Gradient.OWN, Constant(0.0)),
        "max-shift-forward-only": (Gradient.SOFTMAX, Constant(0.0)),
        "max-shift-unnormalised": (Gradient.UNNORMALISED, Constant(0.0)),
        "max-shift-unnormalised-top-bit": (Gradient.UNNORMALISED, TopBit(4)),
    }


# --- what one training gives ------------------------------------------------------------------------------------------


def test_where_only_the_forward_pass_is_replaced_the_very_same_weights_are_trained() -> None:
    softmax, forward_only, own = (computed(arm) for arm in ("softmax", "max-shift-forward-only", "max-shift"))
    weights = {name: tensor for name, tensor in forward_only.weights.items() if name != "classifier.temperature"}
    assert weights_hash(weights) == weights_hash(softmax.weights)
    for row, expected in zip(forward_only.history, softmax.history, strict=True):
        assert row["train_loss"] < expected["train_loss"], "the value is that of max-shift"
        assert row | {"train_loss": 0} == expected | {"train_loss": 0}
    for name in ("test_accuracy", "test_accuracy_of_last"):
        assert forward_only.metrics[name] == softmax.metrics[name]
    assert own.weights.keys() == forward_only.weights.keys()
    assert not any(torch.equal(tensor, own.weights[name]) for name, tensor in weights.items())


@pytest.mark.parametrize("arm", ["softmax", "max-shift"])
def test_the_last_and_the_averaged_weights_are_each_measured_on_their_own(arm: str) -> None:
    last = new_model(arm)
    task = Noted(last)
    Trainer(task, SHORT, device="cpu", progress=False).fit()
    assert len(task.weights) == 2 * STEPS
    found = computed(arm)
    for name, tensor in found.weights.items():
        if name == "classifier.temperature":
            continue
        snapshots = np.stack([each[name].numpy() for each in task.weights[-STEPS:]]).astype(float)
        # the running mean rounds a difference, a quotient and a sum of numbers within ±2·max|w| at each step
        bound = 6 * STEPS * 2.0**-24 * np.abs(snapshots).max()
        np.testing.assert_allclose(tensor.numpy(), snapshots.mean(0), rtol=0, atol=bound)
    average = new_model(arm)
    average.load_state_dict(found.weights)
    valid, test = text().valid, text().test
    assert found.metrics["test_accuracy"] == accuracy(average, test, first=EOS)
    assert found.metrics["test_perplexity"] == perplexity(average, test, first=EOS)
    assert found.metrics["test_accuracy_of_last"] == accuracy(last, test, first=EOS)
    assert found.history[-1]["valid_accuracy"] == accuracy(last, valid, first=EOS)
    assert found.history[-1]["valid_accuracy_of_average"] == accuracy(average, valid, first=EOS)
    assert found.history[-1]["valid_accuracy"] != found.history[-1]["valid_accuracy_of_average"]


@pytest.mark.parametrize("arm", ARMS)
def test_only_a_max_shift_has_a_temperature_and_every_arm_has_a_perplexity(arm: str) -> None:
    metrics = smoke(arm).metrics
    assert isinstance(metrics["temperature"], float) == (arm in MAX_SHIFTS)
    assert (metrics["temperature"] is None) == (arm not in MAX_SHIFTS)
    assert isinstance(metrics["test_perplexity"], float)
    assert 4 < metrics["test_perplexity"] < 2 * TYPES  # each word has 4 successors
    train, test = text().train, text().test
    counts = torch.bincount(train, minlength=TYPES)
    raised = (counts + 1).double() / (len(train) + TYPES)
    assert metrics["unigram_test_perplexity"] == pytest.approx(math.exp(-float(raised.log()[test.long()].mean())))
    assert metrics["majority_accuracy"] == pytest.approx(test.tolist().count(int(counts.argmax())) / 300)
    sizes = [metrics[name] for name in ("vocabulary_size", "train_tokens", "test_tokens")]
    assert sizes == [TYPES, 1_000, 300]


def test_the_temperature_is_the_best_on_validation_text() -> None:
    found = computed("max-shift")
    model = new_model("max-shift")
    model.load_state_dict(found.weights)
    assert isinstance(model.classifier, MaxShift)
    fitted = found.metrics["temperature"]
    assert model.classifier.temperature.item() == pytest.approx(fitted, rel=2.0**-24)  # the nearest float32
    assert isinstance(fitted, float)
    perplexities = []
    for factor in (0.97, 1.0, 1.03):
        model.classifier.temperature.fill_(factor * fitted)
        perplexities.append(perplexity(model, text().valid, first=EOS))
    assert min(perplexities) == perplexities[1]


def test_softmax_learns_the_text() -> None:
    metrics = smoke("softmax", train_tokens=None, training=SHORT.model_copy(update={"epochs": 3})).metrics
    assert metrics["test_perplexity"] < 0.6 * metrics["unigram_test_perplexity"]  # type: ignore[operator]
    assert metrics["test_accuracy"] > 2 * metrics["majority_accuracy"]  # type: ignore[operator]


def test_the_same_run_gives_the_same_result_and_another_seed_does_not() -> None:
    torch.manual_seed(11)
    first = smoke("max-shift")
    torch.manual_seed(22)  # whatever was drawn before
    assert smoke("max-shift") == first
    assert smoke("max-shift", seed=1).weights_sha256 != first.weights_sha256


# --- stopped, and its time --------------------------------------------------------------------------------------------


def stopped_after_every_step(arm: str) -> tuple[Record, int]:
    """The record of a run whose every life but the last ends after one step, and how many did."""
    stops = 0
    while True:
        try:
            record = run(configuration(arm), Profile.LAPTOP, device="cpu", deadline=0.0, progress=False)
            return record, stops
        except OutOfTime:
            stops += 1


def test_stopped_after_every_step_it_gives_the_same_result_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    record, stops = stopped_after_every_step("max-shift")
    assert stops == 2 * STEPS
    assert record.result == smoke("max-shift")
    assert [path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [".json"]


def test_the_time_of_an_epoch_is_that_of_its_steps_however_often_it_was_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, loss, validate = [0.0], LanguageModelling.loss, LanguageModelling.validate

    def slow_loss(self: LanguageModelling, step: int) -> Tensor:
        clock[0] += 2
        return loss(self, step)

    def slow_validation(self: LanguageModelling) -> float:
        clock[0] += 1_000
        return validate(self)

    monkeypatch.setattr(LanguageModelling, "loss", slow_loss)
    monkeypatch.setattr(LanguageModelling, "validate", slow_validation)
    monkeypatch.setattr(fnnlm_training, "seconds_on", lambda device: clock[0])
    assert computed("softmax").provenance == {"epoch_seconds": [2.0 * STEPS] * 2}
    record, _ = stopped_after_every_step("softmax")
    assert (record.provenance.model_extra or {})["epoch_seconds"] == [2.0 * STEPS] * 2
