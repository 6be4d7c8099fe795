"""What the translator's experiment measures, against models put together again from the weights that it gives."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from sacrebleu import corpus_bleu
from scipy.special import logsumexp
from tiny_translation import MADE_UP, RESAMPLES, configuration, made_up_language
from torch import Tensor

from fewbits.classifiers import MaxShift, Softmax
from fewbits.evaluation.translation import paired_bootstrap
from fewbits.experiments.seq2seq_translation import ARMS
from fewbits.experiments.seq2seq_translation.texts import TESTS, Texts, split_texts
from fewbits.experiments.seq2seq_translation.translations import SEARCHES, translate
from fewbits.models import Seq2Seq
from fewbits.study.run import Computed, Context
from fewbits.training.translation import BATCHED

HIDDEN = 32
EPOCHS = 8
MODELS = {"softmax": "softmax", "max-shift": "max-shift", "max-shift-averaged": "max-shift"}  # and the arm of each


@pytest.fixture(autouse=True, scope="module")
def made_up() -> Iterator[None]:
    with made_up_language():
        yield


@dataclass(frozen=True)
class Trained:
    """A run that learnt something, and its models, put together again from its weights."""

    text: Texts
    found: Computed
    models: dict[str, Seq2Seq]

    def greedy(self, name: str, test: str) -> list[str]:
        """Translations one sentence and one word at a time, by the highest logit."""
        model, shown = self.models[name], []
        for source, _ in self.text.numbers(getattr(self.text, test)):
            state, word, words = model.start(source[None]), model.sos, []
            while len(words) < self.text.longest:
                hidden, state = model.step(torch.tensor([word]), state)
                word = int(logits(model, hidden).argmax())
                if word == model.eos:
                    break
                words.append(word)
            shown.append(" ".join(self.text.corpus.target.words[word] for word in words))
        return shown

    def references(self, test: str) -> list[str]:
        return [" ".join(target) for _, target in getattr(self.text, test)]

    def read(self, name: str, test: str) -> tuple[Tensor, Tensor]:
        """Logits (n, V) and the words (n,) they predict, each sentence alone, after the right words before."""
        pairs = self.text.numbers(getattr(self.text, test))
        hidden = torch.cat([self.models[name](source[None], target[None])[0] for source, target in pairs])
        return logits(self.models[name], hidden), torch.cat([target for _, target in pairs])


def logits(model: Seq2Seq, hidden: Tensor) -> Tensor:
    output = model.classifier.output
    assert isinstance(output, torch.nn.Linear)
    return output(hidden)


@pytest.fixture(scope="module")
def trained(made_up: None) -> Trained:
    training = BATCHED.model_copy(update={"epochs": EPOCHS, "learning_rate": 0.02})
    settings = configuration(
        pairs=None, test_size=25, hidden_size=HIDDEN, batch_size=32, steps=None, training=training
    )  # fmt: skip
    found = settings.compute(Context("cpu", None, math.inf, 500, False))
    text = split_texts(MADE_UP, None, 25, 0)
    models = {}
    for name, arm in MODELS.items():
        source, target = text.corpus.source, text.corpus.target
        classifier = ARMS[arm](HIDDEN, len(target))
        model = Seq2Seq(len(source), classifier, sos=target.sos, eos=target.eos, max_length=text.longest)
        prefix = f"{name}."
        model.load_state_dict({k[len(prefix) :]: w for k, w in found.weights.items() if k.startswith(prefix)})
        models[name] = model.eval().requires_grad_(False)
    return Trained(text, found, models)


def test_softmax_and_max_shift_learn_and_the_averaged_weights_are_others(trained: Trained) -> None:
    metrics, history = trained.found.metrics, trained.found.history
    for arm in ARMS:
        assert history[-1][f"{arm}_valid_loss"] < 0.7 * history[0][f"{arm}_valid_loss"]
        assert metrics[f"{arm}_outside_greedy"] > 5  # type: ignore[operator]
    assert [row["epoch"] for row in history] == [*range(1, EPOCHS + 1)]
    assert {len(row) for row in history} == {5}
    last, averaged = (trained.models[name].state_dict() for name in ("max-shift", "max-shift-averaged"))
    assert not any(torch.equal(last[name], averaged[name]) for name in last)
    assert {name.split(".")[0] for name in trained.found.weights} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_the_bleu_of_greedy_search_is_that_of_sacrebleu(name: str, trained: Trained) -> None:
    for test in TESTS:
        expected = corpus_bleu(trained.greedy(name, test), [trained.references(test)]).score
        assert trained.found.metrics[f"{name}_{test}_greedy"] == pytest.approx(expected, rel=1e-9)
        assert trained.found.metrics[f"{test}_pairs"] == len(trained.references(test)) > 0
        low, high = trained.found.arrays[f"{name}_{test}_greedy_interval"]
        assert low < expected < high


def test_beam_search_with_max_shift_is_greedy_search_and_with_softmax_it_is_not(trained: Trained) -> None:
    metrics = trained.found.metrics
    for name in MODELS:
        for test in TESTS:
            assert metrics[f"{name}_{test}_beam_max_shift_same"] == 1
            assert metrics[f"{name}_{test}_beam_max_shift"] == metrics[f"{name}_{test}_greedy"]
            assert metrics[f"{name}_{test}_beam_max_shift_p"] == 1
        assert metrics[f"{name}_outside_beam_softmax_same"] < 1  # type: ignore[operator]


def test_beam_search_with_the_softmax_of_a_max_shift_is_that_at_its_temperature(trained: Trained) -> None:
    model = trained.models["max-shift"]
    assert isinstance(model.classifier, MaxShift)
    target = trained.text.corpus.target
    cooled = Seq2Seq(
        len(trained.text.corpus.source), Softmax(HIDDEN, len(target)), sos=0, eos=1, max_length=trained.text.longest
    )
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "classifier.temperature"}
    for part in ("weight", "bias"):
        state[f"classifier.output.{part}"] = state[f"classifier.output.{part}"] / model.classifier.temperature
    cooled.load_state_dict(state)
    of_max_shift, of_softmax = (translate(each, trained.text) for each in (model, cooled))
    assert of_max_shift == of_softmax
    same = trained.found.metrics["max-shift_outside_beam_softmax_same"]
    greedy, beam = (of_softmax[0]["outside", search] for search in ("greedy", "beam_softmax"))
    assert same == sum(a == b for a, b in zip(greedy, beam, strict=True)) / 25


def test_the_arms_are_tested_against_each_other_on_the_same_sentences(trained: Trained) -> None:
    for test in TESTS:
        sides = [trained.greedy(name, test) for name in ("softmax", "max-shift")]
        expected = paired_bootstrap(*sides, trained.references(test), resamples=RESAMPLES)
        assert trained.found.metrics[f"{test}_greedy_p"] == expected.p_value
        assert trained.found.metrics["paired_signature"] == expected.signature
    names = {f"{test}_{search}_p" for test in TESTS for search in SEARCHES}
    assert names <= trained.found.metrics.keys()


def test_the_examples_are_the_longest_sentences_as_they_were_translated(trained: Trained) -> None:
    said, outside = trained.found.texts, trained.text.outside
    longest = sorted(range(25), key=lambda place: (-len(outside[place][0]), place))[:2]
    assert said["source"] == [" ".join(outside[place][0]) for place in longest]
    assert said["reference"] == [" ".join(outside[place][1]) for place in longest]
    for name in MODELS:
        shown = trained.greedy(name, "outside")
        assert said[name] == [shown[place] for place in longest]
    assert said.keys() == {"source", "reference", *MODELS}


def test_attention_has_a_row_for_each_word_and_the_end_and_looks_partly_beyond_the_sentence(trained: Trained) -> None:
    for name in MODELS:
        for place in range(2):
            source, words = (trained.found.texts[side][place].split() for side in ("source", name))
            columns = len(source) + 1
            assert columns < trained.text.longest
            weights = np.array(trained.found.arrays[f"{name}_attention_{place}"])
            assert len(weights) == (len(words) + 1) * columns
            assert weights.min() >= 0
            assert weights.reshape(-1, columns).sum(1).max() <= 1 + trained.text.longest * 2.0**-24
            numbers = trained.text.numbers([(tuple(source), tuple(words))])[0]
            expected = trained.models[name].attention(*(part[None] for part in numbers))[0, :, :columns]
            np.testing.assert_allclose(weights.reshape(-1, columns), expected.numpy(), atol=1e-6)


def test_the_gap_is_that_of_softmax_on_the_words_outside_with_b_from_validation(trained: Trained) -> None:
    gaps = {}
    for test in ("validation", "outside"):
        z = trained.read("softmax", test)[0].double().numpy()
        gaps[test] = logsumexp(z, axis=1) - z.max(1)
    metrics = trained.found.metrics
    close = partial(pytest.approx, rel=1e-4)  # a sentence alone or in a batch: float32 sums in other orders
    assert metrics["gap_mean"] == close(gaps["outside"].mean())
    assert metrics["error_of_constant"] == close(np.abs(gaps["outside"] - gaps["validation"].mean()).mean())
    assert sum(trained.found.arrays["gap"]) == len(gaps["outside"])


@pytest.mark.parametrize("name", ["max-shift", "max-shift-averaged"])
def test_the_temperature_is_the_best_on_the_validation_pairs(name: str, trained: Trained) -> None:
    temperature = trained.found.metrics[f"{name}_temperature"]
    assert isinstance(temperature, float)
    assert trained.found.weights[f"{name}.classifier.temperature"].item() == pytest.approx(temperature, rel=2.0**-24)
    z, target = trained.read(name, "validation")
    losses = [torch.nn.functional.cross_entropy(z / (factor * temperature), target) for factor in (0.9, 1.0, 1.1)]
    assert min(losses) == losses[1]
    assert "softmax_temperature" not in trained.found.metrics
