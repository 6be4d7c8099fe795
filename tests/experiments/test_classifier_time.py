"""The cost of classifiers: what is measured, under which names, and the exponents of the vocabulary size."""

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import product

import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torch import Tensor

from fewbits.classifiers import Gradient, MaxShift, Softmax
from fewbits.experiments import classifier_time
from fewbits.experiments.classifier_time import GIVEN_LOGITS, LAYERS, ClassifierTime, runs
from fewbits.study.profiles import Profile
from fewbits.study.records import Metric
from fewbits.study.run import run

SIZES = (100, 200, 700)
FORMS = [f"{part}_{name}" for part, name in product(GIVEN_LOGITS, ("softmax", "max_shift"))]
FORMS += [f"{part}_{name}" for part, name in product(("forward", "training"), LAYERS)]
Forms = Mapping[str, Callable[[], object]]


def small(sizes: tuple[int, ...] = SIZES, seed: int = 0) -> ClassifierTime:
    return ClassifierTime(rows=6, hidden_size=64, vocabulary_sizes=sizes, rounds=1, seed=seed)


def measured(configuration: ClassifierTime) -> dict[str, Metric]:
    return run(configuration, Profile.SMOKE, device="cpu").result.metrics


def test_every_form_is_timed_at_every_size_and_has_a_slope() -> None:
    metrics = measured(small())
    assert list(metrics) == [*(f"{form}_{size}" for size in SIZES for form in FORMS), *(f"slope_{f}" for f in FORMS)]
    assert all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())
    for form in FORMS:
        times = [metrics[f"{form}_{size}"] for size in SIZES]
        assert min(times) > 0  # type: ignore[type-var,operator]
        fitted = stats.linregress([math.log(size) for size in SIZES], [math.log(time) for time in times])  # type: ignore[arg-type]
        assert metrics[f"slope_{form}"] == pytest.approx(fitted.slope, abs=1e-9)


def test_times_are_milliseconds_and_a_power_of_the_size_has_its_exponent(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: Iterator[int] = iter(size for size in SIZES for _ in range(2))  # both kinds of forms at each size

    def scripted(forms: Forms, rounds: int) -> dict[str, float]:
        size = next(sizes)
        return {form: 2e-6 * size ** (0.5 + 0.1 * FORMS.index(form)) for form in forms}

    monkeypatch.setattr(classifier_time, "take_turns", scripted)
    metrics = measured(small())
    for place, form in enumerate(FORMS):
        assert metrics[f"slope_{form}"] == pytest.approx(0.5 + 0.1 * place, rel=1e-9)
    assert metrics["operator_softmax_100"] == pytest.approx(2e-3 * 10)


def test_one_size_has_no_slope() -> None:
    metrics = measured(small(sizes=(100,)))
    slopes = {name: value for name, value in metrics.items() if name.startswith("slope_")}
    assert slopes == {f"slope_{form}": None for form in FORMS}
    assert all(isinstance(metrics[f"{form}_100"], float) for form in FORMS)


class Noted(Softmax):
    """A softmax that notes the words it is asked for, and how."""

    asked: list[tuple[list[int], bool]]

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        self.asked.append((target.tolist(), torch.is_grad_enabled()))
        assert hidden.shape == (len(target), self.hidden_size)
        return super().loss(hidden, target)


def words_of(configuration: ClassifierTime, patch: pytest.MonkeyPatch) -> list[list[int]]:
    """The words that are classified at each size; they are the same in every form and round."""
    patch.setattr(Noted, "asked", [], raising=False)
    patch.setattr(classifier_time, "LAYERS", {"noted": lambda hidden, counts: Noted(hidden, len(counts))})
    measured(configuration)
    drawn: list[list[int]] = []
    for words, _ in Noted.asked:
        if words not in drawn:
            drawn.append(words)
    assert len(drawn) == len(configuration.vocabulary_sizes)
    assert {gradient for _, gradient in Noted.asked} == {False, True}, "forward without gradients, training with"
    return drawn


def test_the_same_seed_draws_the_same_words_and_another_seed_others(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(11)
    first = words_of(small(), monkeypatch)
    torch.manual_seed(22)  # whatever was drawn before
    assert words_of(small(), monkeypatch) == first
    assert words_of(small(seed=1), monkeypatch) != first


def test_words_are_drawn_by_zipfs_law(monkeypatch: pytest.MonkeyPatch) -> None:
    many = ClassifierTime(rows=4_000, hidden_size=64, vocabulary_sizes=(20,), rounds=1)
    (drawn,) = words_of(many, monkeypatch)
    weights = [1 / rank for rank in range(1, 21)]
    expected = [4_000 * weight / sum(weights) for weight in weights]
    assert stats.chisquare(torch.bincount(torch.tensor(drawn), minlength=20).numpy(), expected).pvalue > 1e-3


def test_all_layers_have_the_words_and_only_the_gradients_of_the_max_shifts_differ() -> None:
    counts = 1000 // torch.arange(1, 101)
    made = {name: make(64, counts) for name, make in LAYERS.items()}
    assert {(each.hidden_size, each.vocabulary_size) for each in made.values()} == {(64, 100)}
    gradients = {name: each.gradient for name, each in made.items() if isinstance(each, MaxShift)}
    assert gradients == {"max_shift": Gradient.OWN, "max_shift_forward_only": Gradient.SOFTMAX}


def test_from_given_logits_max_shift_is_log_softmax_plus_the_gap() -> None:
    z = torch.randn(9, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.arange(9)
    gap = z.logsumexp(-1) - z.amax(-1)
    operator, loss = ({name: form(z, target) for name, form in of.items()} for of in GIVEN_LOGITS.values())
    torch.testing.assert_close(operator["max_shift"], operator["softmax"] + gap[:, None])
    torch.testing.assert_close(loss["max_shift"], loss["softmax"] - gap.mean())
    torch.testing.assert_close(loss["softmax"], -operator["softmax"][range(9), target].mean())


def test_full_is_measured_five_times_and_the_other_profiles_once() -> None:
    assert [each.seed for each in runs(Profile.FULL)] == [0, 1, 2, 3, 4]
    assert len({each.name for each in runs(Profile.FULL)}) == 5
    assert {each.model_dump_json(exclude={"seed"}) for each in runs(Profile.FULL)} == {
        ClassifierTime().model_dump_json(exclude={"seed"})
    }
    assert (ClassifierTime().rows, ClassifierTime().vocabulary_sizes[0]) == (20 * 35, 10_000)
    for profile in (Profile.SMOKE, Profile.LAPTOP):
        assert [each.seed for each in runs(profile)] == [0]
    assert small().data_hashes() == {}


@pytest.mark.parametrize("field", [{"rows": 0}, {"rounds": 0}, {"hidden_size": 63}, {"words": 5}])
def test_unknown_and_impossible_settings_are_refused(field: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=next(iter(field))):
        ClassifierTime.model_validate(field)
