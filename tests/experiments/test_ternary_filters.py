"""The filters' experiment on made-up images: its arms, their errors, what is trained on, and stopping it."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from fewbits.data import Images, Labelled, Source, data_hashes
from fewbits.errors import FewbitsError
from fewbits.evaluation.classification import accuracy
from fewbits.experiments import ternary_filters
from fewbits.experiments.ternary_filters import ARMS, QUANTIZED, TernaryFilters, runs
from fewbits.models import ConvolutionalNetwork
from fewbits.quantize import quantize
from fewbits.quantizers import (
    TTQ,
    TWN,
    Binary,
    ClippedStraightThrough,
    LeastSquaresTernary,
    PerRow,
    Quantizer,
    Scale,
    parse,
)
from fewbits.study.profiles import Profile
from fewbits.study.records import Result
from fewbits.study.run import Computed, Context, run, weights_hash
from fewbits.training.classification import Classification
from fewbits.training.loop import OutOfTime, Trainer
from fewbits.training.settings import Optimizer, Schedule, Training

MADE_UP = "made-up"
FIRST = Training(optimizer=Optimizer.ADAM, learning_rate=2e-2, clip=1e9, epochs=6, schedule=Schedule.CONSTANT)
AGAIN = FIRST.model_copy(update={"learning_rate": 3e-3, "epochs": 2})
BINARY = Binary(Scale.MEAN_ABSOLUTE, granularity=PerRow())
#: What the arms are to be, apart from the experiment.
EXPECTED: dict[str, tuple[Quantizer | None, Quantizer | None]] = {
    "float": (None, None),
    "twn": (TWN(), None),
    "least-squares": (LeastSquaresTernary(), None),
    "least-squares-output": (LeastSquaresTernary(), None),
    "ttq": (TTQ(), None),
    "bwn": (BINARY, None),
    "xnor": (BINARY, Binary(estimator=ClippedStraightThrough())),
}
RETRAINED = [name for name in EXPECTED if name != "least-squares-output"]


def images(name: str = MADE_UP) -> Images:
    """Noise with a brighter column that tells the class."""
    source = torch.Generator().manual_seed(3)
    labels = torch.randint(3, (160,), generator=source)
    pixels = torch.randn(160, 1, 6, 6, generator=source)
    pixels[torch.arange(160), 0, :, 2 * labels] += 1
    parts = [Labelled(pixels[place], labels[place]) for place in (slice(40), slice(40, 60), slice(60, None))]
    return Images(name, 3, *parts, {"it": "ab"}, Source.CACHE)


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The made-up images and an empty cache; one thread, so that results can be compared bit for bit."""
    monkeypatch.setattr(ternary_filters, "load_images", images)
    monkeypatch.setattr(ternary_filters, "data_hashes", lambda name: {"it": "ab"})
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def configuration(**changes: Any) -> TernaryFilters:
    small: dict[str, Any] = {
        "data": MADE_UP, "train_images": 30, "evaluation_images": 80, "widths": (3, 4, 5), "batch_size": 10,
        "training": FIRST, "retraining": AGAIN, "gathered": 8,
    }  # fmt: skip
    return TernaryFilters.model_validate(small | changes)


def smoke(**changes: Any) -> Result:
    return run(configuration(**changes), Profile.SMOKE, device="cpu", progress=False).result


@pytest.fixture(scope="module")
def computed() -> Computed:
    """What a run computes, weights and all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ternary_filters, "load_images", images)
        return configuration().compute(Context("cpu", None, math.inf, 500, False))


@pytest.fixture(scope="module")
def trained() -> ConvolutionalNetwork:
    """The float network, trained apart from the experiment."""
    few = images().shortened(30, 80)
    torch.manual_seed(0)
    network = ConvolutionalNetwork((1, 6, 6), 3, (3, 4, 5))
    torch.manual_seed(0)
    fit(network, few, FIRST)
    return network


def fit(network: ConvolutionalNetwork, few: Images, training: Training) -> list[dict[str, float | int]]:
    task = Classification(network, few.train, few.valid, batch_size=10)
    return Trainer(task, training, device="cpu", progress=False).fit()


def prepared(name: str, trained: ConvolutionalNetwork) -> ConvolutionalNetwork:
    """A copy of the trained network with the ReLUs of an arm."""
    copy = ConvolutionalNetwork((1, 6, 6), 3, (3, 4, 5), rectified=name != "xnor")
    copy.load_state_dict(trained.state_dict())
    return copy


def patches(network: ConvolutionalNetwork, layer: int) -> np.ndarray:
    """What each filter of an inner layer is multiplied with, over the first 8 training images: (places, P)."""
    with torch.no_grad():
        read = network.eval().blocks[: layer + 1](images().train.images[:8])
        unfolded = F.unfold(read, 3, padding=1)
    return unfolded.double().transpose(1, 2).reshape(-1, unfolded.shape[1]).numpy()


# --- which runs a profile has -----------------------------------------------------------------------------------------


def test_full_has_three_seeds_and_the_others_one() -> None:
    assert [(each.data, each.seed) for each in runs(Profile.FULL)] == [("cifar10-jpeg", seed) for seed in range(3)]
    for profile in (Profile.SMOKE, Profile.LAPTOP):
        assert [(each.data, each.seed) for each in runs(profile)] == [("digits", 0)]


@pytest.mark.parametrize("profile", Profile)
def test_seeds_can_be_chosen_and_nothing_else_differs(profile: Profile) -> None:
    chosen = runs(profile, seeds=2)
    assert [each.seed for each in chosen] == [0, 1]
    same = [each.model_dump(exclude={"seed"}) for each in (*chosen, *runs(profile))]
    assert all(each == same[0] for each in same)
    assert len({each.name for each in chosen}) == 2
    with pytest.raises(FewbitsError, match="seeds is 0"):
        runs(profile, seeds=0)


@pytest.mark.parametrize("field", [{"widths": (4,)}, {"batch_size": 1}, {"gathered": 0}, {"arm": "twn"}])
def test_unknown_and_impossible_settings_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(field))):
        configuration(**field)


def test_the_hashes_are_those_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ternary_filters, "data_hashes", lambda name: {"file": name})
    assert configuration(data="digits").data_hashes() == {"file": "digits"}
    monkeypatch.undo()
    assert ternary_filters.data_hashes is data_hashes


def test_the_arms_have_the_quantizers_of_their_names() -> None:
    found = {name: (parsed(arm.weights), parsed(arm.inputs)) for name, arm in ARMS.items()}
    assert found == EXPECTED
    assert [name for name, arm in ARMS.items() if arm.weighted] == ["least-squares-output"]
    assert list(QUANTIZED) == ["twn", "least-squares", "least-squares-output", "ttq", "bwn"]


def parsed(text: str | None) -> Quantizer | None:
    return None if text is None else parse(text)


# --- after training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPECTED)
def test_the_accuracy_after_training_is_that_of_replaced_weights(
    name: str, computed: Computed, trained: ConvolutionalNetwork
) -> None:
    network = prepared(name, trained)
    weights, inputs = EXPECTED[name]
    for number in (0, 1) if weights else ():
        importance = None
        if name == "least-squares-output":
            mean_square = np.square(patches(trained, number)).mean(0)
            importance = torch.from_numpy(mean_square).reshape(network.blocks[number + 1].convolution.weight[0].shape)
        with torch.no_grad():
            weight = network.blocks[number + 1].convolution.weight
            shares = None if importance is None else importance.expand_as(weight)
            weight.copy_(weights.encode(weight, importance=shares).decode())
    if inputs:
        quantize(network, {}, {"blocks.0.norm": inputs, "blocks.1.norm": inputs})
    few = images().shortened(30, 80)
    assert computed.metrics[f"{name}_accuracy_after"] == accuracy(network, *few.test)


@pytest.mark.parametrize("name", [name for name, arm in EXPECTED.items() if arm[0] and not arm[1]])
def test_the_errors_are_those_of_weights_and_outputs(
    name: str, computed: Computed, trained: ConvolutionalNetwork
) -> None:
    quantizer = EXPECTED[name][0]
    for number, layer in enumerate(("blocks.1.convolution", "blocks.2.convolution")):
        weight, seen = trained.filters(layer).detach(), patches(trained, number)
        mean_square = np.square(seen).mean(0)
        importance = torch.from_numpy(mean_square).reshape(weight[0].shape).expand_as(weight)
        codes = quantizer.encode(weight, importance=importance if name == "least-squares-output" else None)
        right = weight.double().flatten(1).numpy()
        wrong = right - codes.decode().double().flatten(1).numpy()
        expected = {
            "weight": (wrong**2).sum() / (right**2).sum(),
            "weighted": (wrong**2 @ mean_square).sum() / (right**2 @ mean_square).sum(),
            "output": ((seen @ wrong.T) ** 2).sum() / ((seen @ right.T) ** 2).sum(),
        }
        for kind, value in expected.items():
            # the products of inputs are summed in float32 by the experiment, over 72 places a batch
            assert computed.arrays[f"{name}_{kind}_error"][number] == pytest.approx(value, rel=72 * 2.0**-24)
    assert computed.texts == {"layers": ["blocks.1.convolution", "blocks.2.convolution"]}


def test_least_squares_is_the_best_of_all_thresholds(computed: Computed, trained: ConvolutionalNetwork) -> None:
    for number, layer in enumerate(trained.inner):
        flat = trained.filters(layer).detach().double().flatten().numpy()
        errors = []
        for threshold in [0, *abs(flat)]:
            kept = abs(flat) > threshold
            height = abs(flat[kept]).mean() if kept.any() else 0
            errors.append(((abs(flat) - height * kept) ** 2).sum() / (flat**2).sum())
        assert computed.arrays["least_weight_error"][number] == pytest.approx(min(errors), abs=1e-14)
    # a float32 height is off by 2^-24 of itself at most, and the error about its least is quadratic in it
    for name in ("least-squares", "least-squares-output"):
        assert abs(computed.metrics[f"{name}_excess"]) < 1e-13  # type: ignore[arg-type]
    twn, least = computed.arrays["twn_weight_error"], computed.arrays["least_weight_error"]
    assert all(found > best for found, best in zip(twn, least, strict=True))


def test_the_made_up_images_tell_the_arms_apart(computed: Computed) -> None:
    """Else equal accuracies would say nothing."""
    after = {name: computed.metrics[f"{name}_accuracy_after"] for name in EXPECTED}
    for one, other in itertools.pairwise(EXPECTED):
        assert after[one] != after[other]


def test_metrics_have_the_mean_of_each_error(computed: Computed) -> None:
    errors = {name for name in computed.metrics if name.endswith("_error")}
    assert errors == {name for name in computed.arrays if name.endswith("_error")}
    for name in errors:
        assert computed.metrics[name] == pytest.approx(np.mean(computed.arrays[name]))
    assert [computed.metrics[name] for name in ("test_images", "weights", "quantized_weights")] == [
        80, 27 + 108 + 180 + 2 * 12 + 3 * 5 + 3, 108 + 180,
    ]  # fmt: skip


def test_what_an_arm_loses_is_counted_against_the_float_network_trained_as_long(computed: Computed) -> None:
    """And errors by depth are those of the float network's blocks."""
    for name in RETRAINED:
        lost = computed.metrics["float_accuracy_retrained"] - computed.metrics[f"{name}_accuracy_retrained"]
        assert computed.metrics[f"{name}_points_lost"] == pytest.approx(100 * lost)
    for bits in ternary_filters.BITS:
        course = computed.arrays[f"depth_total_{bits}"]
        ends = [computed.metrics[f"{end}_layer_error_{bits}"] for end in ("first", "last")]
        assert [course[0], course[-1]] == ends
        assert computed.arrays[f"depth_own_{bits}"][0] == course[0] > 0
    assert computed.metrics["last_layer_error_2"] > computed.metrics["last_layer_error_8"]


# --- trained on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RETRAINED)
def test_each_arm_is_trained_on_from_the_float_weights(
    name: str, computed: Computed, trained: ConvolutionalNetwork
) -> None:
    network, few = prepared(name, trained), images().shortened(30, 80)
    weights, inputs = EXPECTED[name]
    quantize(
        network,
        {f"blocks.{number}.convolution.weight": weights for number in (1, 2)} if weights else {},
        {f"blocks.{number}.norm": inputs for number in (0, 1)} if inputs else {},
    )
    torch.manual_seed(0)
    history = fit(network, few, AGAIN)
    state = {part: tensor for part, tensor in computed.weights.items() if part.startswith(f"{name}.")}
    assert weights_hash(state) == weights_hash({f"{name}.{part}": t for part, t in network.state_dict().items()})
    assert computed.metrics[f"{name}_accuracy_retrained"] == accuracy(network, *few.test)
    rows = [row for row in computed.history if row["epoch"] > 6]
    assert [row["epoch"] for row in rows] == [7, 8]
    for row, expected in zip(rows, history, strict=True):
        assert (row[f"{name}_train_loss"], row[f"{name}_valid_loss"]) == (
            expected["train_loss"],
            expected["valid_loss"],
        )


def test_the_float_network_is_trained_first_and_on_as_long_as_the_others(computed: Computed) -> None:
    losses = {f"{name}_{loss}_loss" for name in RETRAINED for loss in ("train", "valid")}
    alone = {"epoch", "float_train_loss", "float_valid_loss"}
    assert [set(row) for row in computed.history] == 6 * [alone] + 2 * [losses | {"epoch"}]
    assert {part.partition(".")[0] for part in computed.weights} == set(RETRAINED)


def test_a_network_of_the_experiment_learns() -> None:
    metrics = smoke(train_images=None, training=FIRST.model_copy(update={"epochs": 10})).metrics
    for name in ("float", "twn", "least-squares", "ttq", "bwn"):
        assert metrics[f"{name}_accuracy_retrained"] > 0.6  # type: ignore[operator]  # of 3 classes


def test_the_same_run_gives_the_same_result_and_another_seed_does_not(computed: Computed) -> None:
    torch.manual_seed(11)  # whatever was drawn before
    again = smoke()
    assert again.metrics == computed.metrics
    assert again.weights_sha256 == weights_hash(computed.weights)
    assert smoke(seed=1).weights_sha256 != again.weights_sha256


def test_stopped_in_every_training_it_gives_the_same_result_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    once = FIRST.model_copy(update={"epochs": 1})
    one_step: dict[str, Any] = {"train_images": 10, "training": once, "retraining": once}
    stops = 0
    while True:
        try:
            record = run(configuration(**one_step), Profile.LAPTOP, device="cpu", deadline=0.0, progress=False)
            break
        except OutOfTime:
            stops += 1
    assert stops == 1 + len(RETRAINED)
    assert record.result == smoke(**one_step)
    assert [path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [".json"]


def test_what_the_arms_are_trained_with_is_ternary_or_binary(trained: ConvolutionalNetwork) -> None:
    few = images().shortened(30, 80)
    for name, number in (("twn", 3), ("least-squares", 3), ("ttq", 3), ("bwn", 2), ("xnor", 2)):
        network = ARMS[name].applied(prepared(name, trained))
        for layer in network.inner:
            weight = network.get_submodule(layer).weight
            assert isinstance(weight, Tensor)
            groups = weight.detach() if name in ("bwn", "xnor") else weight.detach()[None]
            assert all(group.unique().numel() == number for group in groups), name
        read: list[Tensor] = []
        network.blocks[1].convolution.register_forward_pre_hook(
            lambda module, inputs, read=read: read.append(inputs[0])
        )
        network(few.test.images)
        assert (read[0].unique().tolist() == [-1.0, 1.0]) == (name == "xnor")
