"""A small plain convolutional network for images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fewbits.errors import FewbitsError


class ConvolutionalNetwork(nn.Module):
    """Blocks of convolution, pooling, batch normalisation and ReLU; the mean over all places; a linear layer.

    Convolutions are 3 × 3 without bias and keep the size. Each block but the last halves it by the maximum of 2 × 2, an
    odd row or column left out, while there are 4 rows and columns: on 1 × 1 the outer weights would see nothing.
    Pooling comes before normalisation, the order of XNOR-Net (Rastegari et al. 2016): what a normalisation whose output
    is quantized puts out reaches the next convolution as it is. With ``rectified=False`` no ReLU stands between two
    convolutions, as in a network with binary activations; the one before the mean stays. Networks of both kinds have
    the same parameters.

    >>> network = ConvolutionalNetwork((1, 8, 8), classes=10, widths=(4, 8, 8))
    >>> network(torch.zeros(5, 1, 8, 8)).shape, network.inner
    (torch.Size([5, 10]), ('blocks.1.convolution', 'blocks.2.convolution'))

    Args:
        shape: channels, height and width of an image.
        classes: how many there are.
        widths: channels that each block puts out.
        rectified: whether there is a ReLU between convolutions.

    Raises:
        FewbitsError: If there are fewer than two blocks: nothing would be between the first and the last layer.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        widths: Sequence[int] = (16, 32, 64, 64),
        rectified: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) < 2:
            raise FewbitsError(f"widths are {tuple(widths)}; give 2 or more, so that there is an inner layer.")
        channels, *size = shape
        blocks = []
        for number, width in enumerate(widths, 1):
            last = number == len(widths)
            pooled = not last and min(size) >= 4
            blocks.append(_block(channels, width, pooled=pooled, rectified=rectified or last))
            channels, size = width, [side // 2 for side in size] if pooled else size
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, classes)

    @property
    def inner(self) -> tuple[str, ...]:
        """The names of all layers but the first and the last, which are usually not quantized."""
        return tuple(f"blocks.{number}.convolution" for number in range(1, len(self.blocks)))

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the normalisations that the inner layers read."""
        return tuple(f"blocks.{number}.norm" for number in range(len(self.blocks) - 1))

    def filters(self, layer: str) -> Tensor:
        """Return the weight (O, I, 3, 3) of the convolution of that name."""
        return self.get_parameter(f"{layer}.weight")

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of ``images`` (N, C, H, W)."""
        places = self.blocks(images.contiguous(memory_format=torch.channels_last))  # a third faster on a CPU
        return self.classifier(places.mean((2, 3)))  # type: ignore[no-any-return]


def _block(channels: int, width: int, *, pooled: bool, rectified: bool) -> nn.Sequential:
    block = nn.Sequential()
    block.add_module("convolution", nn.Conv2d(channels, width, 3, padding=1, bias=False))
    if pooled:
        block.add_module("pool", nn.MaxPool2d(2))
    block.add_module("norm", nn.BatchNorm2d(width))
    if rectified:
        block.add_module("relu", nn.ReLU())
    return block
