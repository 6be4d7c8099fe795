"""What quantizing does inside a network: the error after each layer, and the bias of the gradient."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewbits.quantize import quantize, quantized_weights
from fewbits.quantizers import Quantizer


@dataclass(frozen=True)
class DepthError:
    """Relative errors ‖h′ − h‖ / ‖h‖ of a stack of layers, one number a layer, first to last."""

    total: tuple[float, ...]  #: after this layer, all layers up to it quantized
    own: tuple[float, ...]  #: after this layer, it alone quantized and given the float input
    passed_on: tuple[float, ...]  #: after this layer, all layers below it quantized and it not


def error_by_depth(layers: list[nn.Module], inputs: Tensor, quantizer: Quantizer) -> DepthError:
    """Return how the error of quantized weights grows from layer to layer.

    All matrices of every layer are quantized; vectors stay float. A layer's output is h, or the first of a tuple.

    Args:
        layers: modules that are applied one after another; not changed.
        inputs: what the first one is given.
        quantizer: for each matrix.
    """
    rounded = [with_matrices(layer, quantizer) for layer in layers]
    total, own, passed_on = [], [], []
    with torch.no_grad():
        true = given = inputs
        for layer, coarse in zip(layers, rounded, strict=True):
            expected = _output(layer, true)
            total.append(relative_distance(_output(coarse, given), expected))
            own.append(relative_distance(_output(coarse, true), expected))
            passed_on.append(relative_distance(_output(layer, given), expected))
            true, given = expected, _output(coarse, given)
    return DepthError(tuple(total), tuple(own), tuple(passed_on))


def depth_errors(
    layers: list[nn.Module], inputs: Tensor, quantizers: dict[int, Quantizer]
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Return :func:`error_by_depth` for each number of bits, as a record holds it.

    Returns:
        ``first_layer_error_{bits}`` and ``last_layer_error_{bits}``, of all layers quantized; and the courses
        ``depth_total_{bits}``, ``depth_own_{bits}`` and ``depth_passed_on_{bits}``.
    """
    metrics: dict[str, float] = {}
    arrays: dict[str, list[float]] = {}
    for bits, quantizer in quantizers.items():
        found = error_by_depth(layers, inputs, quantizer)
        metrics |= {f"first_layer_error_{bits}": found.total[0], f"last_layer_error_{bits}": found.total[-1]}
        courses = {"total": found.total, "own": found.own, "passed_on": found.passed_on}
        arrays |= {f"depth_{part}_{bits}": list(course) for part, course in courses.items()}
    return metrics, arrays


def relative_distance(found: Tensor, expected: Tensor) -> float:
    """Return ‖found − expected‖ / ‖expected‖, 0 if both are all zeros."""
    error = float(torch.linalg.vector_norm((found - expected).double()))
    size = float(torch.linalg.vector_norm(expected.double()))
    return error / size if size else (math.inf if error else 0.0)


def with_matrices(model: nn.Module, quantizer: Quantizer) -> nn.Module:
    """Return a copy of ``model`` with every matrix, and bank of filters, quantized."""
    names = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    return quantize(copy.deepcopy(model), dict.fromkeys(names, quantizer))


def _output(layer: nn.Module, given: Tensor) -> Tensor:
    found = layer(given)
    output: Tensor = found[0] if isinstance(found, tuple) else found
    return output


@dataclass(frozen=True)
class GradientBias:
    """How far an estimator's gradient lies from that of the noise-smoothed loss."""

    relative: float  #: ‖g − ∇L̄‖ / ‖∇L̄‖, with the sampling error of ∇L̄ taken off
    cosine: float  #: of the angle between g and the sampled ∇L̄


@dataclass(frozen=True)
class SmoothedGradient:
    """∇L̄(w), the gradient of the loss smoothed over a step of the staircase, as sampled.

    A staircase has no useful derivative. What a gradient step can hope to lower is L̄(w) = E L(w + u) with u uniform
    over ±s/2 and s the distance of the two levels around each weight. It has the exact gradient E ∇L(w + u), sampled
    here by ``draws`` of u.
    """

    mean: Tensor  #: of the draws, flat, float64
    variance: float  #: of the mean, summed over its elements

    @staticmethod
    def sample(
        model: nn.Module,
        weights: dict[str, Quantizer],
        loss: Callable[[nn.Module], Tensor],
        *,
        draws: int = 16,
        seed: int = 0,
    ) -> "SmoothedGradient":
        """Return the gradient for the weights that ``weights`` chooses, smoothed over their quantizers' steps.

        Args:
            model: in evaluation mode; not changed.
            weights: quantizers by parameter patterns, as for ``quantize``.
            loss: of a model, with no randomness of its own.
            draws: of noise, at least 2.
            seed: of the noise.
        """
        coarse = quantize(copy.deepcopy(model), weights)
        steps = {name: _steps(weight.detach(), each.quantizer) for name, weight, each in quantized_weights(coarse)}
        generator = torch.Generator().manual_seed(seed)
        sampled = torch.stack([_noisy(model, steps, loss, generator) for _ in range(draws)])
        mean = sampled.mean(0)
        return SmoothedGradient(mean, float((sampled - mean).square().sum()) / (draws - 1) / draws)

    def bias(self, gradient: Tensor) -> GradientBias:
        """Return the bias of ``gradient``: of ‖g − mean‖² the variance of the mean does not count."""
        distance = max(0.0, float((gradient - self.mean).square().sum()) - self.variance)
        size = max(float(self.mean.square().sum()) - self.variance, torch.finfo(torch.float64).tiny)
        cosine = float(torch.nn.functional.cosine_similarity(gradient, self.mean, dim=0))
        return GradientBias(math.sqrt(distance / size), cosine)


def estimated_gradient(model: nn.Module, weights: dict[str, Quantizer], loss: Callable[[nn.Module], Tensor]) -> Tensor:
    """Return what comes back through the quantizers of ``weights``, flat, in the order of :class:`SmoothedGradient`."""
    coarse = quantize(copy.deepcopy(model), weights)
    loss(coarse).backward()
    return torch.cat([_gradient(weight) for _, weight, _ in quantized_weights(coarse)])


def _noisy(
    model: nn.Module, steps: dict[str, Tensor], loss: Callable[[nn.Module], Tensor], generator: torch.Generator
) -> Tensor:
    moved = copy.deepcopy(model)
    parameters = [moved.get_parameter(name) for name in steps]
    with torch.no_grad():
        for parameter, step in zip(parameters, steps.values(), strict=True):
            noise = torch.rand(step.shape, generator=generator, dtype=step.dtype) - 0.5
            parameter.add_(step * noise.to(step.device))
    loss(moved).backward()
    return torch.cat([_gradient(parameter) for parameter in parameters])


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.detach().double().flatten().cpu()


def _steps(weight: Tensor, quantizer: Quantizer) -> Tensor:
    """Return the distance of the two neighbouring levels around each weight; beyond the last, that of the last two."""
    codes = quantizer.encode(weight)
    levels = codes.levels()
    rows = weight.reshape(codes.groups, -1).contiguous()
    upper = torch.searchsorted(levels, rows).clamp(1, levels.shape[1] - 1)
    return (levels.gather(1, upper) - levels.gather(1, upper - 1)).view_as(weight)
