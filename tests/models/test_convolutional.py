"""The network against torch's own operators, put together by hand from its parameters."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.models import ConvolutionalNetwork

#: Of the three data sets, and of an image that cannot be halved; with the sides of what each block puts out.
SIDES = {
    (1, 8, 8): [(4, 4), (2, 2), (2, 2), (2, 2)],
    (1, 28, 28): [(14, 14), (7, 7), (3, 3), (3, 3)],
    (3, 32, 32): [(16, 16), (8, 8), (4, 4), (4, 4)],
    (2, 3, 9): [(3, 9)] * 4,
}


def network(shape: tuple[int, int, int] = (3, 32, 32), **options: object) -> ConvolutionalNetwork:
    """With parameters and running statistics that are not those of a start, negative gains among them."""
    torch.manual_seed(0)
    made = ConvolutionalNetwork(shape, 10, (4, 5, 6, 7), **options)  # type: ignore[arg-type]
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return made.double()


def by_hand(state: dict[str, Tensor], images: Tensor, *, rectified: bool) -> Tensor:
    places = images
    for number in range(4):
        places = F.conv2d(places, state[f"blocks.{number}.convolution.weight"], padding=1)
        if number < 3 and min(places.shape[2:]) >= 4:
            places = F.max_pool2d(places, 2)
        norm = [state[f"blocks.{number}.norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        places = F.batch_norm(places, *norm)
        if rectified or number == 3:
            places = places.clamp_min(0)
    return places.mean((2, 3)) @ state["classifier.weight"].T + state["classifier.bias"]


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize("shape", SIDES, ids=str)
def test_it_is_convolutions_pooling_normalisation_and_relu(shape: tuple[int, int, int], rectified: bool) -> None:
    made = network(shape, rectified=rectified).eval()
    images = torch.randn(5, *shape, dtype=torch.float64)
    with torch.no_grad():
        # sums of at most 54 products in another order, in float64, four times over
        torch.testing.assert_close(
            made(images), by_hand(made.state_dict(), images, rectified=rectified), rtol=1e-11, atol=1e-11
        )


@pytest.mark.parametrize("shape", SIDES, ids=str)
def test_pooling_halves_down_to_two_rows(shape: tuple[int, int, int]) -> None:
    made, sides = network(shape), []
    for block in made.blocks:
        block.register_forward_hook(lambda module, inputs, output: sides.append(tuple(output.shape[2:])))
    assert made(torch.zeros(2, *shape, dtype=torch.float64)).shape == (2, 10)
    assert sides == SIDES[shape]


def test_inner_layers_are_all_but_the_first_and_the_last() -> None:
    made = network()
    weights = [name for name, parameter in made.named_parameters() if parameter.ndim > 1]
    assert [f"{layer}.weight" for layer in made.inner] == weights[1:-1]
    assert [made.filters(layer).shape for layer in made.inner] == [(5, 4, 3, 3), (6, 5, 3, 3), (7, 6, 3, 3)]
    assert made.filters(made.inner[0]) is made.blocks[1].convolution.weight


def test_without_relu_a_layer_reads_what_the_normalisation_put_out() -> None:
    made, put_out, read = network(rectified=False), [], []
    for norm, layer in zip(made.inputs, made.inner, strict=True):
        made.get_submodule(norm).register_forward_hook(lambda module, inputs, output: put_out.append(output))
        made.get_submodule(layer).register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    made(torch.randn(2, 3, 32, 32, dtype=torch.float64))
    assert len(read) == 3
    assert all(map(torch.equal, read, put_out))


def test_the_parameters_of_one_kind_fit_the_other() -> None:
    network(rectified=False).load_state_dict(network().state_dict())


def test_fewer_than_two_blocks_are_refused() -> None:
    with pytest.raises(FewbitsError, match=r"widths are \(4,\); give 2 or more"):
        ConvolutionalNetwork((1, 8, 8), 10, (4,))
