"""The ablations: what differs in each arm, and what one short training gives."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny_training
import torch
from pydantic import ValidationError
from torch import nn

from fewbits.errors import FewbitsError
from fewbits.evaluation.perplexity import perplexity
from fewbits.experiments import lstm_ablation
from fewbits.experiments.lstm_ablation import QUESTIONS, LstmAblation, arms_of, runs
from fewbits.experiments.lstm_ablation.start import start_as_keras
from fewbits.quantize import quantized_weights
from fewbits.quantizers import PerTensor
from fewbits.study.profiles import Profile
from fewbits.study.run import Context, run
from fewbits.training.settings import Precision, Schedule, Training

SMALL = {
    "corpus": tiny_training.MADE_UP, "embedding_size": 8, "hidden_size": 8, "dropout": 0.0, "layers": 2,
    "batch_size": 5, "length": 10, "train_tokens": 1_000, "evaluation_tokens": 300,
}  # fmt: skip
SHORT = Training(epochs=1, learning_rate=2.0)
CONTEXT = Context("cpu", None, math.inf, 500, False)


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny_training.use_made_up(monkeypatch)
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path / "cache"))


def small(arm: str, **more: Any) -> LstmAblation:
    known = arms_of(training=SHORT)
    start = LstmAblation(arm="float", training=SHORT, **SMALL)
    changes = known[arm] | ({"norms_of": start} if "norms_of" in known[arm] else {})
    return LstmAblation(arm=arm, **({"training": SHORT} | SMALL | changes | more))


def metrics(configuration: LstmAblation) -> dict[str, Any]:
    return run(configuration, Profile.SMOKE, device="cpu", progress=False).result.metrics


def matrices(configuration: LstmAblation) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    rnn = configuration.model(tiny_training.TYPES, CONTEXT).body.rnn
    if isinstance(rnn, nn.LSTM):
        return {f"{side}-{k}": getattr(rnn, f"weight_{side}_l{k}") for side in ("ih", "hh") for k in (0, 1)}
    return {f"{side}-{k}": rnn.matrix(side, k) for side in ("ih", "hh") for k in (0, 1)}


# --- which runs there are ---------------------------------------------------------------------------------------------


def test_full_is_every_arm_at_the_documents_sizes_and_those_of_claims_three_times():
    full = runs(Profile.FULL)
    assert [each.arm for each in full if each.seed == 0] == list(arms_of())
    assert [(each.arm, each.seed) for each in full if each.seed] == [
        (arm, seed) for seed in (1, 2) for arm in lstm_ablation.REPEATED
    ]
    assert {"float", "binary", "binary-clipped", "binary-stochastic"} < set(lstm_ablation.REPEATED) < set(arms_of())
    assert len({each.name for each in full}) == len({each.key("cpu") for each in full}) == len(full)
    sizes = {(each.corpus, each.hidden_size, each.layers) for each in full}
    varied = {("ptb", 200, 1), ("ptb", 200, 3), ("ptb", 100, 2), ("ptb", 400, 2)}  # one layer: Keras' start as well
    assert sizes == {("ptb", 200, 2)} | varied
    plain = full[0].training
    assert (plain.epochs, plain.schedule, plain.constant_epochs) == (4, Schedule.CALENDAR, 2)
    assert plain.precision is Precision.FLOAT32


def test_a_question_has_its_arms_and_no_arm_has_two_questions():
    names = [arm for question in QUESTIONS for arm in arms_of(question)]
    assert sorted(names) == sorted(arms_of())
    assert len(arms_of("parts")) == 2 * (4 + 2 + 4)


def test_a_trial_is_the_same_choice_for_every_rule():
    search = arms_of("search")
    for trial in range(lstm_ablation.TRIALS):
        chosen = [search[f"{rule}-trial{trial}"] for rule in ("float", "twn", "ternary", "binary")]
        assert len({(each["dropout"], each["training"]) for each in chosen}) == 1
        assert 5 <= chosen[0]["training"].learning_rate <= 40
        assert 0.1 <= chosen[0]["training"].clip <= 1
        assert 0 <= chosen[0]["dropout"] <= 0.6
        assert 0.3 <= chosen[0]["training"].quantized_rate <= 30
    assert len({each["training"].learning_rate for each in search.values()}) == lstm_ablation.TRIALS


@pytest.mark.parametrize(
    ("choice", "message"),
    [({"arms": ["floot"]}, "unknown arms floot"), ({"arms": []}, "arms is empty"), ({"seeds": 0}, "seeds is 0")],
)
def test_a_choice_that_is_none_is_an_error(choice, message):
    with pytest.raises(FewbitsError, match=message):
        runs(Profile.SMOKE, **choice)


@pytest.mark.parametrize(
    "field", [{"normalisation": "weight"}, {"backward": "float"}, {"cell": "gru"}, {"control": "nois"}], ids=str
)
def test_what_does_not_go_together_is_refused(field):
    with pytest.raises(ValidationError):
        LstmAblation(arm="it", **field)


def test_a_configuration_is_read_back_from_its_record():
    (matched,) = runs(Profile.FULL, arms=["binary-matched"])
    assert LstmAblation.model_validate(json.loads(matched.model_dump_json())) == matched
    assert matched.norms_of is not None
    assert matched.norms_of.arm == "float"


# --- what an arm changes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["binary", "twn"])
@pytest.mark.parametrize(
    ("part", "where"),
    [
        ("f", lambda side, layer, gate: gate == "f"),
        ("o", lambda side, layer, gate: gate == "o"),
        ("input", lambda side, layer, gate: side == "ih"),
        ("recurrent", lambda side, layer, gate: side == "hh"),
        ("hh-l1", lambda side, layer, gate: (side, layer) == ("hh", "1")),
    ],
)
def test_only_the_part_is_quantized(rule, part, where):
    for name, matrix in matrices(small(f"{rule}-{part}")).items():
        for gate, block in zip("ifgo", matrix.chunk(4), strict=True):
            quantized = block.unique().numel() <= 3
            assert quantized == where(*name.split("-"), gate), (name, gate)


def test_a_gate_of_its_own_has_one_scale_for_itself():
    for name, changes in arms_of().items():
        if changes.get("gatewise"):
            quantizers = LstmAblation(arm=name, **{k: v for k, v in changes.items() if k != "norms_of"}).quantizers
            assert all(each.granularity == PerTensor() for each in quantizers.values()), name


def test_matched_weights_start_with_the_norms_of_the_trained_float_model():
    configuration = small("binary-matched")
    trained = CONTEXT.start(configuration.norms_of)
    for name, matrix in matrices(configuration).items():
        side, layer = name.split("-")
        expected = torch.linalg.svdvals(trained[f"body.rnn.weight_{side}_l{layer}"].double())[0]
        torch.testing.assert_close(torch.linalg.svdvals(matrix.double())[0], expected, rtol=1e-5, atol=0)
        assert matrix.abs().unique().numel() == 1


@pytest.mark.parametrize(("side", "arm"), [("ih", "binary-matched-input"), ("hh", "binary-matched-recurrent")])
def test_one_side_alone_can_be_matched(side, arm):
    every = matrices(small("binary-matched"))
    for name, matrix in matrices(small(arm)).items():
        if name.startswith(side):
            assert torch.equal(matrix, every[name])
        else:
            assert matrix.abs().unique().tolist() == [1.0]


def test_other_thresholds_are_other_rates():
    """T = 0.25 at rate η is T = 1 with a start four times as wide and rate 4 η for these weights."""

    def trained(threshold: float, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        training = Training(epochs=1, learning_rate=8.0, clip=1e9, quantized_rate=rate)
        rule = {"weights": {"rnn.weight_*": f"Ternary({threshold})"}, "initial_range": 1.04 * threshold}
        weights = LstmAblation(arm="it", **SMALL, **rule, training=training).compute(CONTEXT).weights
        recurrent = weights["body.rnn.parametrizations.weight_hh_l0.original"]
        return recurrent / threshold, weights["classifier.output.weight"]

    coarse, fine, slow = trained(1.0, 4.0), trained(0.25, 1.0), trained(1.0, 1.0)
    for one, other, third in zip(coarse, fine, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert (third - other).abs().max() > 1e-2


def test_gains_start_as_after_the_usual_start_whatever_the_range():
    gains = {}
    for arm in ("float-weight-norm", "ternary-weight-norm"):
        torch.manual_seed(0)
        rnn = small(arm, hidden_size=64, embedding_size=64).model(tiny_training.TYPES, CONTEXT).body.rnn
        gains[arm] = rnn.gain_hh_l0.detach()
        assert gains[arm].mean().item() == pytest.approx((1 / 3) ** 0.5, rel=0.03)
    assert not torch.equal(*gains.values())


@pytest.mark.parametrize("arm", ["binary-stochastic", "binary-stochastic-float-backward"])
def test_what_chance_trained_is_tested_with_its_float_copies_too(arm):
    configuration = small(arm)
    computed = configuration.compute(CONTEXT)
    copies = {name: tensor for name, tensor in computed.weights.items() if name.endswith(".original")}
    assert copies
    plain = small("float").float_model(tiny_training.TYPES)
    joined: dict[str, torch.Tensor] = {}
    for name, tensor in computed.weights.items():
        parts = name.replace("parametrizations.", "").removesuffix(".original").rpartition("_")
        whole = parts[0] if parts[2] in ("i", "f", "g", "o") else "".join(parts)
        joined[whole] = torch.cat([joined[whole], tensor]) if whole in joined else tensor
    plain.load_state_dict(joined)
    text = configuration.load()
    expected = perplexity(plain, text.test, first=text.vocabulary.eos)
    assert computed.metrics["copies_test_perplexity"] == pytest.approx(expected, rel=1e-6)
    assert "copies_test_perplexity" not in small("binary").compute(CONTEXT).metrics


def test_training_the_float_model_first_does_not_change_what_is_drawn():
    torch.manual_seed(7)
    small("binary-matched").model(tiny_training.TYPES, CONTEXT)
    after = torch.rand(3)
    torch.manual_seed(7)
    small("binary").model(tiny_training.TYPES, CONTEXT)
    assert torch.equal(torch.rand(3), after)


def test_the_start_of_keras():
    torch.manual_seed(0)
    model = small("ternary-keras", layers=2).float_model(tiny_training.TYPES)
    start_as_keras(model.body.rnn)
    for layer in (0, 1):
        recurrent = getattr(model.body.rnn, f"weight_hh_l{layer}").detach()
        torch.testing.assert_close(recurrent.T @ recurrent, torch.eye(8), rtol=0, atol=1e-5)
        assert 0.9 < getattr(model.body.rnn, f"weight_ih_l{layer}").abs().max() / (6 / 40) ** 0.5 <= 1
        bias = getattr(model.body.rnn, f"bias_ih_l{layer}") + getattr(model.body.rnn, f"bias_hh_l{layer}")
        assert bias.tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 16


# --- one training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arm",
    [
        "float", "twn", "binary-layer-norm", "ternary-weight-norm", "binary-f", "twn-recurrent", "binary-matched",
        "binary-stochastic-mean-per-gate", "binary-stochastic-float-backward", "binary-3-layers", "ternary-keras",
        "ternary-narrow-rates", "twn-per-tensor", "float-noise", "float-mask", "twn-longer", "float-trial3",
    ],
)  # fmt: skip
def test_an_arm_trains_and_is_measured(arm):
    configuration = small(arm)
    result = run(configuration, Profile.SMOKE, device="cpu", progress=False).result
    found = result.metrics
    assert found["diverged"] is False
    assert 4 < found["test_perplexity"] < 2 * tiny_training.TYPES
    assert [f"norm_{gate}" in found and f"saturated_{gate}" in found for gate in "ifgo"] == [True] * 4
    assert len(result.arrays["gradient_norms"]) == 35
    assert min(result.arrays["gradient_norms"]) > 0
    zeros = {name[-1] for name in found if name.startswith("zero_fraction_")}
    torch.manual_seed(0)
    model = configuration.model(tiny_training.TYPES, CONTEXT)
    quantized = any(True for _ in quantized_weights(model))
    assert zeros == (set("f") if arm == "binary-f" else set("ifgo") if quantized else set())
    assert quantized != arm.startswith("float")


def test_the_same_run_gives_the_same_result():
    torch.manual_seed(5)
    first = metrics(small("binary-stochastic"))
    torch.manual_seed(6)
    assert metrics(small("binary-stochastic")) == first
    assert metrics(small("binary-stochastic", seed=1)) != first


def test_a_training_that_diverges_is_kept_as_a_record():
    wild = small("float", training=Training(epochs=2, learning_rate=1e38, clip=1e38))
    first = run(wild, Profile.LAPTOP, device="cpu", progress=False)
    assert first.result.metrics["diverged"] is True
    assert run(wild, Profile.LAPTOP, device="cpu", progress=False) == first


def test_a_training_that_diverges_is_a_result():
    wild = Training(epochs=2, learning_rate=1e38, clip=1e38)
    assert metrics(small("float", training=wild)) == {
        "diverged": True, "test_perplexity": None, "valid_perplexity": None,
    }  # fmt: skip
