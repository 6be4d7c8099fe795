"""A tiny stack of LSTM layers: its parts are the whole, its errors and gradients those of the evaluation."""

import math

import pytest
import torch

from fewbits.data import load_corpus
from fewbits.errors import FewbitsError
from fewbits.evaluation.perplexity import perplexity
from fewbits.experiments import deep_lstm
from fewbits.experiments.deep_lstm import DeepLstm, error_by_time, quantizer, single_layers
from fewbits.models import recurrent_language_model
from fewbits.quantize import quantize
from fewbits.quantizers import Uniform
from fewbits.study.profiles import Profile
from fewbits.study.run import Context
from fewbits.training.settings import Training

TINY = DeepLstm(
    corpus="news", vocabulary_size=60, train_tokens=1_000, evaluation_tokens=200, hidden_size=8, layers=3,
    dropout=0.0, batch_size=5, length=10, probe_length=12, draws=2, training=Training(learning_rate=5.0, epochs=1),
)  # fmt: skip


@pytest.fixture(scope="module")
def computed():
    return TINY.compute(Context("cpu", None, math.inf, 500, False))


def test_the_layers_one_by_one_are_the_whole_stack():
    torch.manual_seed(0)
    model = recurrent_language_model(20, 6, 6, 3)
    words = torch.randint(20, (9, 2))
    given = model.body.embedding(words)
    for layer in single_layers(model):
        given = layer(given)[0]
    torch.testing.assert_close(given, model(words)[0])


def test_errors_by_time_are_those_of_each_step():
    torch.manual_seed(0)
    layers = single_layers(recurrent_language_model(20, 6, 6, 2))
    inputs = torch.randn(5, 3, 6)
    found = error_by_time(layers, inputs, Uniform(2))
    coarse = [quantize(each, {"weight_*": Uniform(2)}) for each in single_layers_again(layers)]
    true = rounded = inputs
    for exact, rough in zip(layers, coarse, strict=True):
        true, rounded = exact(true)[0], rough(rounded)[0]
    expected = [((rounded[t] - true[t]).norm() / true[t].norm()).item() for t in range(5)]
    assert found == pytest.approx(expected, rel=1e-5)


def single_layers_again(layers):
    copies = [torch.nn.LSTM(6, 6) for _ in layers]
    for copy, layer in zip(copies, layers, strict=True):
        copy.load_state_dict(layer.state_dict())
    return copies


def test_a_run_holds_errors_perplexities_and_biases_of_every_width(computed):
    metrics, arrays = computed.metrics, computed.arrays
    for bits in deep_lstm.BITS:
        assert metrics[f"first_layer_error_{bits}"] == arrays[f"depth_total_{bits}"][0] > 0
        assert metrics[f"last_layer_error_{bits}"] == arrays[f"depth_total_{bits}"][2]
        assert len(arrays[f"time_{bits}"]) == 12
    assert [metrics[f"bias_{bits}"] for bits in range(1, 9)] == arrays["bias_straight through"]
    assert arrays["bias_straight through"][0] > arrays["bias_straight through"][7]
    assert {len(arrays[f"cosine_{name}"]) for name in deep_lstm.ESTIMATORS} == {8}


def test_the_perplexity_is_that_of_the_quantized_model(computed):
    corpus = load_corpus("news", 60).shortened(1_000, 200)
    model = recurrent_language_model(60, 8, 8, 3)
    model.load_state_dict(dict(computed.weights))
    eos = corpus.vocabulary.eos
    assert computed.metrics["test_perplexity"] == perplexity(model, corpus.test, first=eos)
    quantize(model, {"rnn.weight_*": quantizer(3)})
    assert computed.metrics["test_perplexity_3"] == pytest.approx(perplexity(model, corpus.test, first=eos), rel=1e-9)


def test_the_runs_of_a_profile():
    assert [each.seed for each in deep_lstm.runs(Profile.FULL)] == [0, 1, 2]
    assert len(deep_lstm.runs(Profile.LAPTOP)) == 1
    assert deep_lstm.runs(Profile.SMOKE, corpus="ptb", seeds=2)[1].name == "ptb-3-layers-seed1"
    with pytest.raises(FewbitsError, match="seeds"):
        deep_lstm.runs(Profile.SMOKE, seeds=0)
