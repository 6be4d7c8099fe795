"""A small convolutional network with ternary and binary filters, chosen after training or trained (S4)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fewbits.data import Images, data_hashes, load_images
from fewbits.evaluation.classification import accuracy
from fewbits.evaluation.output_error import input_moments, least_ternary_error, relative_error
from fewbits.evaluation.perplexity import evaluating
from fewbits.evaluation.quantization_error import depth_errors
from fewbits.experiments.choice import check_counts
from fewbits.models import ConvolutionalNetwork
from fewbits.quantize import quantize
from fewbits.quantizers import LeastError, PerRow, Quantizer, Uniform, parse
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Configuration, Context
from fewbits.training.classification import Classification
from fewbits.training.loop import History
from fewbits.training.settings import Optimizer, Schedule, Training


@dataclass(frozen=True)
class Arm:
    """What the layers between the first and the last become; quantizers as text, None is float."""

    weights: str | None = None
    inputs: str | None = None  #: of these layers
    weighted: bool = False  #: an error counts by the mean square of the weight's inputs; after training only

    def values(self, weight: Tensor, moments: Tensor) -> Tensor:
        """Return the quantized ``weight`` (O, I, kh, kw) of a layer whose inputs have these moments (P, P)."""
        if self.weights is None:
            return weight
        importance = moments.diagonal().reshape(weight[0].shape).expand_as(weight) if self.weighted else None
        return parse(self.weights)(weight, importance=importance)

    def applied(self, network: ConvolutionalNetwork) -> ConvolutionalNetwork:
        """Quantize weights and inputs of the inner layers of ``network`` and return it."""
        weights = {f"{layer}.weight": parse(self.weights) for layer in network.inner} if self.weights else {}
        inputs = {norm: parse(self.inputs) for norm in network.inputs} if self.inputs else {}
        quantize(network, weights, inputs)
        return network


_BINARY = "Binary(Scale.MEAN_ABSOLUTE, granularity=PerRow())"

#: XNOR's scale of the inputs is left out: the batch normalisation after the convolution has one of its own.
ARMS = {
    "float": Arm(),
    "twn": Arm("TWN()"),
    "least-squares": Arm("LeastSquaresTernary()"),
    "least-squares-output": Arm("LeastSquaresTernary()", weighted=True),
    "ttq": Arm("TTQ()"),
    "bwn": Arm(_BINARY),
    "xnor": Arm(_BINARY, "Binary(estimator=ClippedStraightThrough())"),
}

#: Those that differ in their weights.
QUANTIZED = {name: arm for name, arm in ARMS.items() if arm.weights and not arm.inputs}


BITS = tuple(range(2, 9))  #: of the errors by depth


def uniform(bits: int) -> Quantizer:
    """Return the uniform quantizer of so many bits with the range of least error and a scale a filter."""
    return Uniform(bits, PerRow(), range=LeastError(20))


def _adam(learning_rate: float, **calendar: Any) -> Training:
    return Training(
        optimizer=Optimizer.ADAM, learning_rate=learning_rate, clip=1e9, schedule=Schedule.CALENDAR, **calendar
    )


class TernaryFilters(Configuration):
    """One seed: a float network, quantized in each way after its training, and trained on with each quantizer."""

    experiment: ClassVar[str] = "ternary_filters"
    version: ClassVar[int] = 1

    data: str = "cifar10-jpeg"
    train_images: int | None = None  #: the first so many; None is all
    evaluation_images: int | None = None  #: of validation and of test
    widths: tuple[int, ...] = Field((16, 32, 64, 64), min_length=2)  #: channels of each convolution
    batch_size: int = Field(50, ge=2)
    training: Training = _adam(3e-3, epochs=8, constant_epochs=3, decay=2.0)
    retraining: Training = _adam(1e-3, epochs=2, decay=3.0)
    gathered: int = Field(500, ge=1)  #: images whose inputs, and errors, of each layer are looked at
    seed: int = 0

    @property
    def name(self) -> str:
        """Data and seed."""
        return f"{self.data}-seed{self.seed}"

    def data_hashes(self) -> dict[str, str]:
        """Return the hashes of the files of images."""
        return data_hashes(self.data)

    def compute(self, context: Context) -> Computed:
        """Train the float network, quantize it in each way and test; train on in each way and test again."""
        images = load_images(self.data).shortened(self.train_images, self.evaluation_images)
        trained = self.network(images).to(context.device)
        history = self._fit(trained, images, self.training, context.part("trained"))
        layers = {layer: trained.filters(layer).detach() for layer in trained.inner}
        moments = input_moments(trained, layers, images.train.images[: self.gathered])
        metrics, arrays = _errors(layers, moments)
        metrics |= {
            "test_images": len(images.test.labels),
            "weights": sum(parameter.numel() for parameter in trained.parameters()),
            "quantized_weights": sum(weight.numel() for weight in layers.values()),
        }
        weights: dict[str, Tensor] = {}
        retrained: dict[str, History] = {}
        for name, arm in ARMS.items():
            model = _replaced(self.network(images, arm, trained), arm, moments)
            metrics[f"{name}_accuracy_after"] = accuracy(model, *images.test)
            if not arm.weighted:
                model = arm.applied(self.network(images, arm, trained))
                retrained[name] = self._fit(model, images, self.retraining, context.part(name))
                metrics[f"{name}_accuracy_retrained"] = accuracy(model, *images.test)
                weights |= {f"{name}.{part}": tensor for part, tensor in model.state_dict().items()}
        for name in retrained:
            lost = metrics["float_accuracy_retrained"] - metrics[f"{name}_accuracy_retrained"]
            metrics[f"{name}_points_lost"] = 100 * lost
        with evaluating(trained):
            probe = images.test.images[: self.gathered].to(context.device)
            courses, depth = depth_errors([*trained.blocks], probe, {bits: uniform(bits) for bits in BITS})
        texts = {"layers": [*layers]}
        return Computed(metrics | courses, _joined(history, retrained), arrays | depth, weights, texts=texts)

    def network(
        self, images: Images, arm: Arm = ARMS["float"], trained: ConvolutionalNetwork | None = None
    ) -> ConvolutionalNetwork:
        """Return a float network, with the weights that ``seed`` gives or those of ``trained``, where these are.

        Where an arm quantizes the inputs of a layer, no ReLU comes between: it would make 0 of every −1.
        """
        torch.manual_seed(self.seed)
        channels, height, width = images.train.images.shape[1:]
        network = ConvolutionalNetwork((channels, height, width), images.classes, self.widths, arm.inputs is None)
        if trained is not None:
            network.load_state_dict(trained.state_dict())
            network.to(next(trained.parameters()).device)
        return network

    def _fit(self, model: ConvolutionalNetwork, images: Images, training: Training, context: Context) -> History:
        torch.manual_seed(self.seed)  # the batches of all arms come in the same order
        task = Classification(model, images.train, images.valid, batch_size=self.batch_size)
        return context.trainer(task, training).fit()


def _replaced(model: ConvolutionalNetwork, arm: Arm, moments: dict[str, Tensor]) -> ConvolutionalNetwork:
    """Put quantized values in the place of the weights."""
    with torch.no_grad():
        for layer in model.inner:
            weight = model.filters(layer)
            weight.copy_(arm.values(weight, moments[layer]))
    return Arm(inputs=arm.inputs).applied(model)


def _errors(layers: dict[str, Tensor], moments: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Return the errors of each arm and the least that a threshold gives, by layer and their means over layers.

    The excess is what least squares misses of that, in the layer where it is most.
    """
    arrays: dict[str, list[float]] = {}
    for name, arm in QUANTIZED.items():
        found = {layer: arm.values(weight, moments[layer]) for layer, weight in layers.items()}
        for kind, of in _KINDS.items():
            arrays[f"{name}_{kind}_error"] = [
                relative_error(weight, found[layer], of(moments[layer])) for layer, weight in layers.items()
            ]
    for kind, of in _KINDS.items():
        arrays[f"least_{kind}_error"] = [
            least_ternary_error(weight, of(moments[layer])) for layer, weight in layers.items()
        ]
    metrics: dict[str, Any] = {name: sum(each) / len(each) for name, each in arrays.items()}
    for name, kind in (("least-squares", "weight"), ("least-squares-output", "weighted")):
        pairs = zip(arrays[f"{name}_{kind}_error"], arrays[f"least_{kind}_error"], strict=True)
        metrics[f"{name}_excess"] = max(found - least for found, least in pairs)
    return metrics, arrays


#: What an error is measured by: the weights, the weights by the mean square of their inputs, or the layer's output.
_KINDS: dict[str, Callable[[Tensor], Tensor | None]] = {
    "weight": lambda moments: None,
    "weighted": lambda moments: moments.diagonal(),
    "output": lambda moments: moments,
}


def _joined(trained: History, retrained: dict[str, History]) -> History:
    """Put the losses of all trainings into one row an epoch; those that train on go on counting."""
    parts = [("float", 0, trained), *((name, len(trained), history) for name, history in retrained.items())]
    epochs: dict[float | int, dict[str, float | int]] = {}
    for name, before, history in parts:
        for row in history:
            losses = {f"{name}_{loss}": row[loss] for loss in ("train_loss", "valid_loss")}
            epochs.setdefault(before + row["epoch"], {"epoch": before + row["epoch"]}).update(losses)
    return [*epochs.values()]


#: What differs from the full scale, which the field defaults hold.
_SCALES: dict[Profile, dict[str, Any]] = {
    Profile.SMOKE: {
        "data": "digits", "widths": (8, 16, 16), "training": _adam(3e-3, epochs=3, constant_epochs=2, decay=2.0),
        "retraining": _adam(1e-3, epochs=1, decay=3.0),
    },
    Profile.LAPTOP: {
        "data": "digits", "batch_size": 25, "training": _adam(3e-3, epochs=10, constant_epochs=5, decay=2.0),
        "retraining": _adam(1e-3, epochs=3, decay=2.0),
    },
    Profile.FULL: {},
}  # fmt: skip


def runs(profile: Profile, *, seeds: int | None = None) -> list[TernaryFilters]:
    """Return the runs of a profile; what is None is what the profile says.

    Args:
        profile: smoke, laptop or full.
        seeds: how many, counted from 0; None is three at full, one else.

    Raises:
        FewbitsError: If ``seeds`` is below 1.
    """
    check_counts(seeds=seeds)
    number = seeds or (3 if profile is Profile.FULL else 1)
    return [TernaryFilters(seed=seed, **_SCALES[profile]) for seed in range(number)]
