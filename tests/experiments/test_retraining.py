"""Retraining with binary codes: where it starts, what it trains, what it reports."""

import math
from dataclasses import replace

import pytest

from fewbits.errors import FewbitsError
from fewbits.evaluation.perplexity import perplexity
from fewbits.experiments import post_training, retraining
from fewbits.experiments.post_training import PostTraining
from fewbits.experiments.retraining import Retraining
from fewbits.models import Cell
from fewbits.quantize import quantize
from fewbits.quantizers import BinaryCodes
from fewbits.study import weights
from fewbits.study.profiles import Profile
from fewbits.study.run import Context, run, weights_hash
from fewbits.training.settings import Training

TINY = PostTraining(
    corpus="news", vocabulary_size=60, train_tokens=400, evaluation_tokens=100, hidden_size=8, dropout=0.0,
    batch_size=5, length=10, training=Training(learning_rate=5.0, epochs=1),
)  # fmt: skip
AGAIN = Training(learning_rate=0.5, epochs=1, quantized_limit=0.05)
CONTEXT = Context("cpu", None, math.inf, 500, False)


@pytest.fixture(scope="module", params=list(Cell))
def computed(request):
    start = TINY.model_copy(update={"cell": request.param})
    configuration = Retraining(start=start, weight_bits=2, state_bits=3, training=AGAIN)
    return configuration, start.train(CONTEXT), configuration.compute(CONTEXT)


def test_it_starts_from_the_float_weights(computed):
    configuration, floats, found = computed
    corpus = configuration.start.load()
    model = configuration.start.model(60, BinaryCodes(3))
    model.load_state_dict(dict(floats))
    quantize(model, {name: BinaryCodes(2) for name in ("rnn.weight_*", "embedding.weight", "output.weight")})
    expected = perplexity(model, corpus.test, first=corpus.vocabulary.eos)
    assert found.metrics["post_training_perplexity"] == pytest.approx(expected, rel=1e-9)
    assert found.texts["start"] == [weights_hash(floats)]
    assert found.metrics["test_perplexity"] != found.metrics["post_training_perplexity"]


def test_the_float_copies_stay_inside_their_limit_and_the_size_is_counted(computed):
    _, floats, found = computed
    copies = {name: tensor for name, tensor in found.weights.items() if name.endswith("original")}
    assert len(copies) == 4
    assert max(float(tensor.abs().max()) for tensor in copies.values()) == pytest.approx(0.05)
    weights = sum(tensor.numel() for tensor in copies.values())
    rows = sum(tensor.shape[0] for tensor in copies.values())
    others = sum(t.numel() for t in floats.values()) - weights
    assert found.metrics["size_bits"] == 2 * weights + 2 * 32 * rows + 32 * others
    assert found.metrics["float_bits"] == 32 * (weights + others)


def test_the_weights_of_another_run_are_kept_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path))
    asked = []

    def counted(self, context):
        asked.append(self.name)
        return trained(self, context)

    trained = PostTraining.train
    monkeypatch.setattr(PostTraining, "train", counted)
    laptop = replace(CONTEXT, profile=Profile.LAPTOP)
    first = laptop.start(TINY)
    again = laptop.start(TINY)
    assert len(asked) == 1
    assert weights_hash(first) == weights_hash(again)
    (file,) = (tmp_path / "weights").iterdir()
    file.write_bytes(file.read_bytes()[:-1])  # a damaged file is as good as none
    assert weights_hash(laptop.start(TINY)) == weights_hash(first)
    assert len(asked) == 2


@pytest.mark.parametrize("profile", [Profile.SMOKE, Profile.LAPTOP])
def test_a_run_leaves_its_weights_for_others(profile, tmp_path, monkeypatch):
    for table in ("METHODS", "FAMILIES"):  # what is measured on them is of no matter here
        monkeypatch.setattr(post_training, table, {})
    monkeypatch.setattr(post_training, "NEAREST", ())
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "_in_memory", {})
    record = run(TINY, profile, device="cpu", progress=False)
    monkeypatch.setattr(PostTraining, "train", None)
    context = replace(CONTEXT, profile=profile)
    kept = context.start(TINY)
    assert weights_hash(kept) == record.result.weights_sha256
    for tensor in kept.values():
        tensor.zero_()
    assert weights_hash(context.start(TINY)) == record.result.weights_sha256, "everyone has copies of their own"
    assert (tmp_path / "weights").exists() is (profile is Profile.LAPTOP), "smoke leaves none on disk"


def test_the_runs_of_a_profile():
    names = [each.name for each in retraining.runs(Profile.FULL)]
    assert names == [f"ptb-{cell}300-seed0-{arm}" for cell in ("lstm", "gru") for arm in ("w2a2", "w2a3", "w3a3")]
    assert len(retraining.runs(Profile.SMOKE)) == 1
    assert retraining.runs(Profile.FULL, arms=["3/3"], cells=[Cell.GRU], epochs=1)[0].training.epochs == 1
    with pytest.raises(FewbitsError, match="4/4"):
        retraining.runs(Profile.SMOKE, arms=["4/4"])
