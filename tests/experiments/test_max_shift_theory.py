"""The series experiment: its runs, what diverges, and what is measured of the gap, against numpy and exact integers."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tiny_training
import torch
from pydantic import ValidationError
from scipy.special import logsumexp
from tiny_training import MADE_UP, TYPES

from fewbits.classifiers import PowerSoftmax, Softmax, TaylorSoftmax
from fewbits.errors import FewbitsError
from fewbits.evaluation.normaliser import EDGES, FRACTION_BITS
from fewbits.experiments import max_shift_theory, on_text
from fewbits.experiments.max_shift_theory import ARMS, SCALES, MaxShiftTheory, bounds_hold, runs
from fewbits.study.profiles import Profile
from fewbits.study.records import Result
from fewbits.study.run import run
from fewbits.training.settings import Training

GENTLE = Training(learning_rate=2.0, epochs=2)


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_text, "load_corpus", tiny_training.corpus)
    monkeypatch.setattr(on_text, "data_hashes", lambda name: {"it": "ab"})


def configuration(arm: str, **changes: Any) -> MaxShiftTheory:
    small: dict[str, Any] = {
        "corpus": MADE_UP, "vocabulary_size": None, "embedding_size": 8, "hidden_size": 16, "train_tokens": 6_000,
        "evaluation_tokens": 400, "gap_tokens": 150, "training": GENTLE,
    }  # fmt: skip
    return MaxShiftTheory.model_validate({"arm": arm} | small | changes)


def trained(arm: str, **changes: Any) -> Result:
    return run(configuration(arm, **changes), Profile.SMOKE, device="cpu", progress=False).result


# --- which runs a profile has -----------------------------------------------------------------------------------------


def test_full_has_every_arm_three_times() -> None:
    assert [(each.arm, each.seed) for each in runs(Profile.FULL)] == [(arm, seed) for seed in range(3) for arm in ARMS]
    assert {(each.corpus, each.vocabulary_size) for each in runs(Profile.FULL)} == {("ptb", 2_000)}
    assert len({each.name for each in runs(Profile.FULL)}) == 3 * len(ARMS)


def test_the_arms_are_the_series_that_their_names_say() -> None:
    orders = {f"taylor-{first}-{order}": (first, order, "EXACT") for first in (0, 1) for order in range(1, 9)}
    orders |= {f"slides-sum-{order}": (1, order, "OF_SUM") for order in (2, 4, 8)}
    orders |= {f"slides-quotient-{order}": (1, order, "OF_QUOTIENT") for order in (2, 4, 8)}
    made = {arm: make(4, 10) for arm, make in ARMS.items()}
    assert type(made.pop("softmax")) is Softmax
    power = made.pop("power")
    assert isinstance(power, PowerSoftmax)
    assert power.base == 2
    found = {arm: (c.first, c.order, c.logarithm.name) for arm, c in made.items() if isinstance(c, TaylorSoftmax)}
    assert found == orders
    assert {(c.hidden_size, c.vocabulary_size) for c in made.values()} == {(4, 10)}


@pytest.mark.parametrize("profile", Profile)
def test_only_arm_and_seed_differ_within_a_profile(profile: Profile) -> None:
    chosen = runs(profile, arms=["power", "taylor-1-8"], seeds=2)
    assert [(each.arm, each.seed) for each in chosen] == [
        (arm, seed) for seed in (0, 1) for arm in ("power", "taylor-1-8")
    ]
    same = [each.model_dump(exclude={"arm", "seed"}) for each in (*chosen, *runs(profile))]
    assert all(each == same[0] for each in same)
    assert runs(profile)[0].arm == "softmax"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"arms": ["softmax", "taylor-2-1"]}, "unknown arms taylor-2-1; there are softmax, power, taylor-0-1"),
        ({"arms": []}, "arms is empty"),
        ({"seeds": 0}, "seeds is 0; give 1 or more, or None"),
    ],
)
def test_a_choice_that_is_none_is_an_error(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(FewbitsError, match=message):
        runs(Profile.SMOKE, **choice)


@pytest.mark.parametrize("field", [{"arm": "taylor-0-9"}, {"order": 1}, {"gap_tokens": 0}, {"layers": 2}])
def test_unknown_and_impossible_settings_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(field))):
        configuration(**({"arm": "softmax"} | field))


# --- one training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["softmax", "power", "taylor-0-2", "taylor-0-8"])
def test_a_probability_learns_the_text(arm: str) -> None:
    metrics = trained(arm, train_tokens=None, training=Training(learning_rate=5.0, epochs=3)).metrics
    test = tiny_training.corpus().test[:400]
    counts = torch.bincount(tiny_training.corpus().train, minlength=TYPES) + 1.0
    unigram = math.exp(-float((counts.double() / counts.sum()).log()[test.long()].mean()))
    assert metrics["unigram_test_perplexity"] == pytest.approx(unigram, rel=1e-9)
    assert (metrics["diverged"], metrics["converged"], metrics["temperature"]) == (0, 1, None)
    assert isinstance(metrics["test_perplexity"], float)
    assert 4 < metrics["test_perplexity"] < 0.9 * unigram  # each word has 4 successors
    assert isinstance(metrics["test_accuracy"], float)
    assert 1 / TYPES < metrics["test_accuracy"] < 0.4
    assert (metrics["epochs"], metrics["steps"]) == (3, 3 * 50)  # 10,000 words in 20 streams of 10 a step


@pytest.mark.parametrize("order", range(1, 9))
def test_the_slides_series_diverges_before_the_first_step_is_done(order: int) -> None:
    result = trained(f"taylor-1-{order}")
    metrics = result.metrics
    assert (metrics["diverged"], metrics["converged"], metrics["steps"], metrics["epochs"]) == (1, 0, 0, 0)
    assert metrics["test_perplexity"] is metrics["test_accuracy"] is metrics["temperature"] is None
    assert (result.history, result.arrays) == ([], {})


def test_an_odd_order_trains_until_a_score_meets_its_root() -> None:
    metrics = trained("taylor-0-3", training=Training(learning_rate=20.0, epochs=9)).metrics
    assert metrics["diverged"] == 1
    assert isinstance(metrics["steps"], int)
    assert metrics["steps"] > 0


def test_a_score_without_scale_gets_a_temperature_and_may_be_worse_than_word_frequencies() -> None:
    metrics = trained("slides-sum-2").metrics
    assert isinstance(metrics["temperature"], float)
    assert metrics["temperature"] != 1
    assert isinstance(metrics["test_perplexity"], float)
    assert isinstance(metrics["unigram_test_perplexity"], float)
    assert metrics["converged"] == (metrics["test_perplexity"] < metrics["unigram_test_perplexity"]) == 0
    assert metrics["diverged"] == 0


def test_the_same_run_gives_the_same_result_and_another_seed_does_not() -> None:
    first = trained("taylor-0-2")
    torch.manual_seed(22)
    assert trained("taylor-0-2") == first
    assert trained("taylor-0-2", seed=1).weights_sha256 != first.weights_sha256


# --- the gap ----------------------------------------------------------------------------------------------------------


def exact_top_bit(row: list[int]) -> int:
    return sum(1 << score for score in row).bit_length() - 1


def test_the_measured_gap_is_that_of_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    texts: list[torch.Tensor] = []
    original: Callable[..., Any] = max_shift_theory._logits

    def noted(*arguments: Any) -> Any:
        texts.append(arguments[1])
        for z in original(*arguments):
            seen.append(z)
            yield z

    monkeypatch.setattr(max_shift_theory, "_logits", noted)
    result = trained("softmax")
    corpus = tiny_training.corpus()
    assert torch.equal(torch.cat(texts), torch.cat([corpus.valid[:150], corpus.test[:150], corpus.test[:150]]))
    valid, test, _ = (part.double().numpy() for part in torch.cat(seen).split(150))
    gap, fitted = (logsumexp(z, axis=1) - z.max(1) for z in (test, valid))
    metrics, arrays = result.metrics, result.arrays
    assert metrics["gap_mean"] == pytest.approx(gap.mean(), rel=1e-6)
    assert (metrics["gap_least"], metrics["gap_most"]) == pytest.approx((gap.min(), gap.max()), rel=1e-6)
    assert metrics["gap_share"] == pytest.approx(gap.mean() / math.log(TYPES), rel=1e-6)
    assert metrics["error_of_zero"] == metrics["gap_mean"]
    assert metrics["error_of_constant"] == pytest.approx(np.abs(gap - fitted.mean()).mean(), rel=1e-5)
    assert arrays["gap_quantiles"] == pytest.approx(np.quantile(gap, (0.05, 0.25, 0.5, 0.75, 0.95)), rel=1e-6)
    assert sum(arrays["gap"]) == 150
    assert arrays["gap"] == np.histogram(gap / math.log(TYPES), EDGES.numpy())[0].tolist()
    powers = np.round((test.max(1, keepdims=True) - test) / math.log(2))
    for bits, error in zip(FRACTION_BITS, arrays["error_by_fraction_bits"], strict=True):
        b = np.floor(np.log2((2.0**-powers).sum(1)) * 2**bits) / 2**bits * math.log(2)
        assert error == pytest.approx(np.abs(b - gap).mean(), rel=1e-6)
    for place, scale in enumerate(SCALES):
        integers = np.round(test * 2**scale).astype(int)
        n = np.array([exact_top_bit((row - row.min()).tolist()) + row.min() for row in integers])
        natural = logsumexp(integers, axis=1)
        assert arrays["base_e_by_scale"][place] == pytest.approx(((n <= natural) & (natural <= n + 1)).mean())
    assert set(arrays["base_2_by_scale"]) == {1.0}
    assert (metrics["bound_base_2"], metrics["bound_base_e"]) == (1.0, arrays["base_e_by_scale"][0])


def test_the_bounds_hold_where_exact_integers_say_so() -> None:
    q = torch.randint(0, 40, (3000, 5), generator=torch.Generator().manual_seed(0)) // 4
    base_2, base_e = bounds_hold(q - 7)
    expected = []
    for row in q.tolist():
        n, natural = exact_top_bit(row), math.log(math.fsum(map(math.exp, row)))
        expected.append(n <= natural <= n + 1)
    assert base_e.tolist() == expected
    assert 0.1 < sum(expected) / len(expected) < 0.9
    assert base_2.all()


def test_a_row_with_one_word_far_ahead_keeps_both_bounds() -> None:
    base_2, base_e = bounds_hold(torch.tensor([[0, -60, -500], [3, 3 - 52, -9]]))
    assert base_2.all()
    assert base_e.all()
