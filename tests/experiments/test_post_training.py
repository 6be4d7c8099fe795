"""Post-training quantization of a tiny language model, against quantizing by hand."""

import math

import numpy as np
import pytest
import torch

from fewbits.errors import FewbitsError
from fewbits.evaluation.perplexity import perplexity
from fewbits.experiments import post_training
from fewbits.experiments.post_training import PostTraining, distortion, histogram, matrices, quantized
from fewbits.models import Cell
from fewbits.quantizers import BinaryCodes, Codebook, Solver, Uniform
from fewbits.study.profiles import Profile
from fewbits.study.run import Context
from fewbits.training.settings import Schedule, Training

TINY = {
    "corpus": "news", "vocabulary_size": 60, "train_tokens": 2_000, "evaluation_tokens": 200, "hidden_size": 8,
    "dropout": 0.0, "batch_size": 5, "length": 10, "training": Training(learning_rate=5.0, epochs=1),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(Cell))
def computed(request):
    configuration = PostTraining(cell=request.param, **TINY)
    return configuration, configuration.compute(Context("cpu", None, math.inf, 500, False))


def test_every_cell_of_the_table_is_the_perplexity_of_the_quantized_model(computed):
    configuration, found = computed
    corpus = configuration.load()
    for scope, patterns in {"recurrent": ("rnn.weight",), "all": ("rnn.weight", "embedding", "output.weight")}.items():
        for method, bits in (("greedy", 2), ("uniform", 3), ("balanced", 4), ("alternating", 3), ("k-means", 2)):
            model = configuration.model(len(corpus.vocabulary))
            state = {name: tensor.clone() for name, tensor in found.weights.items()}
            errors, sizes = 0.0, 0.0
            for name, tensor in state.items():
                if any(pattern in name for pattern in patterns):
                    state[name] = post_training.METHODS[method][bits].encode(tensor).decode()
                    errors += float((state[name] - tensor).double().square().sum())
                    sizes += float(tensor.double().square().sum())
            model.load_state_dict(state)
            cell = f"{scope}_{method}_{bits}"
            assert found.metrics[f"{cell}_relative_mse"] == pytest.approx(errors / sizes, rel=1e-6)
            expected = perplexity(model, corpus.test, first=corpus.vocabulary.eos)
            assert found.metrics[f"{cell}_perplexity"] == pytest.approx(expected, rel=1e-6)


def test_the_float_model_is_as_it_was_afterwards(computed):
    configuration, found = computed
    corpus = configuration.load()
    model = configuration.model(len(corpus.vocabulary))
    model.load_state_dict(dict(found.weights))
    assert found.metrics["test_perplexity"] == perplexity(model, corpus.test, first=corpus.vocabulary.eos)
    weights = matrices(model)
    before = [weight.detach().clone() for weight in weights]

    def fails():
        with quantized(weights, Uniform(2)):
            assert not torch.equal(weights[0], before[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert all(torch.equal(a, b) for a, b in zip(weights, before, strict=True))


def test_which_matrices_are_quantized(computed):
    configuration, _ = computed
    model = configuration.model(60)
    gates = 4 if configuration.cell is Cell.LSTM else 3
    assert [tuple(p.shape) for p in matrices(model, recurrent_only=True)] == [(8 * gates, 8)] * 2
    assert [tuple(p.shape) for p in matrices(model)] == [(60, 8), (8 * gates, 8), (8 * gates, 8), (60, 8)]


def test_distortion_counts_tables_and_decibels():
    weight = torch.nn.Parameter(torch.randn(20, 30, generator=torch.Generator().manual_seed(0)))
    codes = [BinaryCodes(bits, Solver.ALTERNATING).encode(weight) for bits in range(1, 5)]
    for (bits, ratio), code, width in zip(
        distortion([weight], post_training.FAMILIES["binary codes"].values()), codes, range(1, 5), strict=True
    ):
        assert bits == pytest.approx(width + 32 * width * 20 / 600)
        noise = np.square(code.decode().numpy() - weight.detach().numpy(), dtype=np.float64).sum()
        signal = np.square(weight.detach().numpy(), dtype=np.float64).sum()
        assert ratio == pytest.approx(10 * np.log10(signal / noise), rel=1e-5)


def test_the_picture_of_the_weights_is_that_of_the_recurrent_matrix(computed):
    _, found = computed
    name = next(name for name in found.weights if "weight_hh" in name)
    weight = found.weights[name]
    counts, _ = np.histogram(weight.numpy().clip(-1, 1), post_training.HISTOGRAM.numpy())
    assert found.arrays["histogram"] == histogram(weight)
    assert abs(np.array(found.arrays["histogram"]) - counts).sum() <= 2  # a weight on an edge
    assert found.arrays["levels, k-means"] == Codebook(3)(weight).unique().tolist()
    assert len(found.arrays["levels, binary codes"]) == 8


def test_the_runs_of_a_profile():
    full = post_training.runs(Profile.FULL)
    assert [each.name for each in full] == ["ptb-lstm300-seed0", "ptb-gru300-seed0"]
    assert full[0].training.schedule is Schedule.CALENDAR
    assert len(post_training.runs(Profile.SMOKE)) == 1
    assert post_training.runs(Profile.FULL, epochs=3)[0].training.epochs == 3
    assert {each.corpus for each in post_training.runs(Profile.LAPTOP, corpus="ptb", seeds=2)} == {"ptb"}
    with pytest.raises(FewbitsError, match="seeds"):
        post_training.runs(Profile.SMOKE, seeds=0)
