"""The click-ratio experiment: its models, what it counts, and its grid."""

import math
from dataclasses import replace

import pytest
import torch

from fewbits.classifiers import AdaptiveSoftmax, Softmax
from fewbits.errors import FewbitsError
from fewbits.evaluation.click_ratio import Keyboard, clicks
from fewbits.experiments import click_ratio
from fewbits.experiments.click_ratio import MODELS, ClickRatio, Output
from fewbits.models import Cell
from fewbits.quantize import pack, quantized_weights
from fewbits.study.profiles import Profile
from fewbits.study.run import Context
from fewbits.training.loop import OutOfTime
from fewbits.training.settings import Training

TINY = ClickRatio(
    arm="float", corpus="news", vocabulary_size=60, valid_tokens=300, test_tokens=400, hidden_size=8, batch_size=5,
    length=10, visits=1_000, training=Training(learning_rate=1.0, epochs=2),
)  # fmt: skip
CONTEXT = Context("cpu", None, math.inf, 500, False)


@pytest.fixture(scope="module")
def computed():
    return TINY.compute(CONTEXT)


def test_the_numbers_are_those_of_the_model_that_is_left(computed):
    corpus = TINY.load()
    model = TINY.build(corpus)
    model.load_state_dict(computed.weights)
    found = clicks(model, corpus.test, Keyboard(corpus.vocabulary.words))
    assert computed.metrics["click_ratio"] == 100 * found.ratio(3)
    assert computed.metrics["click_ratio_of_1"] == 100 * found.ratio(1)
    assert computed.metrics["click_ratio_after_2"] == 100 * found.ratio(3, typed=2)
    assert computed.metrics["savings"] == 100 * found.savings(3)
    assert computed.metrics["unknown"] == 100 * found.unknown / found.words


def test_a_size_is_that_of_the_file(computed, tmp_path):
    assert computed.metrics["file_bytes"] == 4 * computed.metrics["parameters"]
    ternary = TINY.model_copy(update={"weights": {"rnn.weight_*": "TWN(PerGate(4))"}})
    found = ternary.compute(CONTEXT)
    model = ternary.build(ternary.load())
    model.load_state_dict(found.weights)
    pack(model).save(tmp_path)
    assert found.metrics["file_bytes"] == (tmp_path / "model.safetensors").stat().st_size


def test_words_and_clicks_are_split_completely(computed):
    arrays, metrics = computed.arrays, computed.metrics
    known = metrics["test_words"] * (1 - metrics["unknown"] / 100)
    assert sum(arrays["band_words"]) == sum(arrays["place_words"]) == pytest.approx(known)
    assert sum(arrays["band_clicked"]) == pytest.approx(metrics["click_ratio"] / 100 * metrics["test_words"])
    assert arrays["visits"] == [500, 1000]
    assert len(arrays["click_ratio"]) == len(computed.history) == 2


def test_the_bands_are_those_of_frequency_and_place(monkeypatch):
    monkeypatch.setattr(click_ratio, "BANDS", (10, 30))
    monkeypatch.setattr(click_ratio, "RANKS", (3, 5))
    arrays = TINY.compute(CONTEXT).arrays
    corpus = TINY.load()
    keyboard = Keyboard(corpus.vocabulary.words)
    frequency = [n - 1 for n in corpus.test.tolist() if keyboard.is_word[n] and n > 1]  # 1 is the most frequent
    counts = [sum(low < n <= high for n in frequency) for low, high in ((0, 10), (10, 30), (30, 60))]
    assert arrays["band_words"] == counts
    model = TINY.build(corpus)
    model.load_state_dict(TINY.train(CONTEXT))
    places = clicks(model, corpus.test, keyboard).ranks[:, 0] + 1
    counts = [int(((places > low) & (places <= high)).sum()) for low, high in ((0, 3), (3, 5), (5, 60))]
    assert arrays["place_words"] == counts


def test_an_interrupted_training_ends_as_an_uninterrupted_one(computed, tmp_path):
    context = replace(CONTEXT, checkpoint=tmp_path / "checkpoint.pt", checkpoint_every=3)
    with pytest.raises(OutOfTime):
        TINY.compute(replace(context, deadline=-math.inf))
    found = TINY.compute(context)
    assert found.metrics == computed.metrics
    assert found.arrays == computed.arrays


@pytest.mark.parametrize(
    ("cell", "arm", "patterns", "scales"),
    [
        (Cell.LSTM, "float", (), set()),
        (Cell.LSTM, "twn", ("weight_ih", "weight_hh"), {4}),
        (Cell.GRU, "twn", ("weight_ih", "weight_hh"), {3}),
        (Cell.LSTM, "binary", ("weight_ih", "weight_hh"), {0}),
        (Cell.LSTM, "embeddings", ("embedding",), {60}),
    ],
)
@pytest.mark.parametrize("number", [1, 4])
def test_only_the_weights_of_the_arm_are_quantized(cell, arm, patterns, scales, number):
    run = next(run for run in click_ratio.runs(Profile.FULL, arms=[arm]) if run.cell is cell)
    change = {"corpus": "news", "vocabulary_size": 60, **(MODELS[number] if cell is Cell.LSTM else {})}
    run = run.model_copy(update=change)
    model = run.build(run.load())
    wanted = {id(p) for name, p in model.named_parameters() if any(pattern in name for pattern in patterns)}
    assert {id(weight) for _, weight, _ in quantized_weights(model)} == wanted
    codes = pack(model).codes.values() if patterns else ()
    assert {one.tables["scale"].numel() if "scale" in one.tables else 0 for one in codes} == scales


@pytest.mark.parametrize("number", MODELS)
def test_the_four_models(number):
    run = TINY.model_copy(update={"model": number, **MODELS[number]})
    corpus = run.load()
    model = run.build(corpus)
    words = corpus.train[:12].long().view(6, 2)
    loss, _ = model.loss(words[:-1], words[1:])
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.body.rnn.num_layers == (2 if number in (2, 4) else 1)
    assert isinstance(model.classifier, AdaptiveSoftmax)
    if number == 3:
        vectors = model.body.embedding(words)
        assert torch.equal(vectors, model.classifier.embedded(words))
        with torch.no_grad():
            model.classifier.layer.head.weight.mul_(2)
        assert not torch.equal(vectors, model.body.embedding(words))
    if number == 4:
        assert model.classifier.hidden_size == model.body.rnn.proj_size == 200


def test_the_full_output_layer_is_a_softmax():
    run = TINY.model_copy(update={"output": Output.FULL})
    assert isinstance(run.build(run.load()).classifier, Softmax)


def test_the_grid_has_the_cells_of_the_document_with_three_seeds():
    full = click_ratio.runs(Profile.FULL)
    assert len({run.name for run in full}) == len(full)
    cells = {(run.corpus, run.cell, run.model, run.output, run.vocabulary_size, run.arm, run.seed) for run in full}
    document = ("polish", Cell.LSTM)
    for seed in range(3):
        assert (*document, 2, Output.ADAPTIVE, 20_000, "binary", seed) in cells
        for arm in ("float", "twn"):
            for size in (10_000, 20_000, 50_000, 100_000):
                assert (*document, 1, Output.ADAPTIVE, size, arm, seed) in cells
                assert ((*document, 2, Output.ADAPTIVE, size, arm, seed) in cells) == (size < 100_000)
    for arm in ("float", "twn"):
        assert (*document, 1, Output.FULL, 20_000, arm, 0) in cells
        for size in (10_000, 20_000, 50_000):
            assert ("news", Cell.LSTM, 1, Output.ADAPTIVE, size, arm, 0) in cells
            for cell, model in ((Cell.LSTM, 3), (Cell.LSTM, 4), (Cell.GRU, 1), (Cell.GRU, 2)):
                assert ("polish", cell, model, Output.ADAPTIVE, size, arm, 0) in cells or size == 20_000
    assert all(run.seed == 0 for run in click_ratio.runs(Profile.FULL, seeds=1))


def test_both_arms_of_a_cell_are_trained_at_its_own_rate():
    rates = {(run.cell, run.training.learning_rate) for run in click_ratio.runs(Profile.FULL)}
    assert rates == {(Cell.LSTM, 8e-3), (Cell.GRU, 4e-3)}


def test_the_grid_can_be_trained_on_the_documents_own_corpus():
    polish = [run for run in click_ratio.runs(Profile.FULL) if run.corpus == "polish"]
    assert click_ratio.runs(Profile.FULL, corpus="poleval-2018") == [
        run.model_copy(update={"corpus": "poleval-2018"}) for run in polish
    ]


def test_parameters_of_the_runs():
    runs = click_ratio.runs(Profile.SMOKE, arms=["twn"], seeds=2, vocabularies=[100, 200], corpus="ptb")
    assert [run.name for run in runs] == [
        f"ptb-{size}-lstm1-twn-seed{seed}" for seed in range(2) for size in (100, 200)
    ]
    with pytest.raises(FewbitsError, match="unknown arms"):
        click_ratio.runs(Profile.SMOKE, arms=["four"])
    with pytest.raises(FewbitsError, match="vocabularies"):
        click_ratio.runs(Profile.SMOKE, vocabularies=[0])
    with pytest.raises(FewbitsError, match="types"):
        click_ratio.runs(Profile.SMOKE, vocabularies=[10**7])[0].load()
