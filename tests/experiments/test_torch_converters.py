"""PyTorch's converters on a small model."""

import math
from pathlib import Path

import pytest
import tiny_training
import torch
from torch import nn

from fewbits.evaluation.perplexity import mean_nll, perplexity
from fewbits.experiments.lstm_perplexity import runs as trainings
from fewbits.experiments.torch_converters import TorchConverters, dynamic, runs, static
from fewbits.models import recurrent_language_model
from fewbits.study.profiles import Profile
from fewbits.study.run import Context, run
from fewbits.training.settings import Training

WORDS = torch.randint(30, (9, 4), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny_training.use_made_up(monkeypatch)
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path / "cache"))


def model():
    torch.manual_seed(0)
    return recurrent_language_model(30, 16, 16, 2, initial_range=0.5).eval()


def test_dynamic_int8_holds_the_rounded_weights():
    given = model()
    weight = given.classifier.output.weight.detach()
    converted = dynamic(given).classifier.output.weight()
    steps = (weight.aminmax().max - weight.aminmax().min) / 255
    assert converted.dtype is torch.qint8
    assert (converted.dequantize() - weight).abs().max() <= 1.01 * steps
    assert isinstance(given.classifier.output, nn.Linear), "the model itself stays as it was"


def relative(found, expected):
    """The error over the size, both as root mean squares: 1/127 a rounding, 1 where a grid is wrong."""
    return ((found - expected).square().mean() / expected.square().mean()).sqrt()


@pytest.mark.parametrize("way", ["dynamic", "static"])
def test_a_converted_model_predicts_nearly_the_same(way):
    given = model()
    with torch.no_grad():
        converted = (
            dynamic(given)
            if way == "dynamic"
            else static(given, lambda each: mean_nll(each, WORDS.flatten(), first=1, streams=4, length=3))
        )
        hidden, state = given(WORDS)
        found, own_state = converted(WORDS)
        assert 0 < relative(found, hidden) < 0.1
        assert 0 < relative(converted(WORDS, own_state)[0], given(WORDS, state)[0]) < 0.1
        difference = converted.classifier.log_prob(found) - given.classifier.log_prob(hidden)
        assert 0 < difference.abs().max() < 0.1


def test_the_engine_is_given_back():
    before = torch.backends.quantized.engine
    dynamic(model())
    assert torch.backends.quantized.engine == before


@pytest.mark.usefixtures("made_up")
def test_every_way_is_evaluated_saved_and_timed():
    start = tiny_training.configuration(training=Training(epochs=2, learning_rate=2.0), hidden_size=32)
    configuration = TorchConverters(start=start, calibration_tokens=500, timed_tokens=100, rounds=1)
    record = run(configuration, Profile.SMOKE, device="cpu", progress=False)
    found = record.result.metrics
    ways = ("float", "dynamic", "static", "ours")
    trained = run(start, Profile.SMOKE, device="cpu", progress=False).result
    assert found["float_test_perplexity"] == pytest.approx(trained.metrics["test_perplexity"], rel=1e-6)
    assert record.result.texts["start"] == [trained.weights_sha256]
    for way in ways[1:]:
        assert found[f"{way}_test_perplexity"] == pytest.approx(found["float_test_perplexity"], rel=0.05)
        assert found[f"{way}_test_perplexity"] != found["float_test_perplexity"]
        cost = found[f"{way}_test_perplexity"] - found["float_test_perplexity"]
        assert found[f"{way}_cost"] == cost
        assert found[f"{way}_file_bytes"] < found["float_file_bytes"]
    for streams in (20, 1):
        speeds = record.provenance.model_extra[f"words_per_second_{streams}"]
        assert set(speeds) == set(ways)
        assert min(speeds.values()) > 0


@pytest.mark.usefixtures("made_up")
def test_ours_has_eight_bits_and_a_scale_a_row_and_static_grids_come_from_training_text():
    start = tiny_training.configuration(training=Training(epochs=2, learning_rate=2.0), hidden_size=32)
    configuration = TorchConverters(start=start, calibration_tokens=500, timed_tokens=100, rounds=1)
    context = Context("cpu", None, math.inf, 500, False)
    found = configuration.compute(context).metrics
    text, eos = start.load(), start.load().vocabulary.eos
    plain = start.float_model(len(text.vocabulary)).eval()
    plain.load_state_dict(context.start(start))
    by_hand = static(plain, lambda each: mean_nll(each, text.train[:500], first=eos, streams=20, length=start.length))
    assert found["static_test_perplexity"] == pytest.approx(perplexity(by_hand, text.test, first=eos), rel=1e-6)
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            if "rnn.weight" in name or "output.weight" in name:
                step = weight.abs().amax(1, keepdim=True) / 127
                weight.copy_((weight / step).round() * step)
    assert found["ours_test_perplexity"] == pytest.approx(perplexity(plain, text.test, first=eos), rel=1e-6)


def test_the_runs_start_from_the_float_models_of_the_profile():
    for profile in Profile:
        floats = [each for each in trainings(profile) if each.arm == "float"]
        assert [each.start for each in runs(profile)] == floats
        assert runs(profile, epochs=1)[0].start.training.epochs == 1
