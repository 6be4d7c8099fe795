"""Images with the numbers of their classes, ready for a classifier."""

import io
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewbits.data import registry, sources
from fewbits.data.registry import ImageFormat, Split
from fewbits.data.sources import Source

Numbers = NDArray[np.uint8]  # pixels, an image in C · H · W of them, channels first; or labels


class Labelled(NamedTuple):
    """N images and their classes."""

    images: Tensor  #: (N, C, H, W), float32
    labels: Tensor  #: (N,), int64, from 0

    def part(self, place: slice) -> "Labelled":
        """Return the images at ``place``."""
        return Labelled(self.images[place], self.labels[place])


@dataclass(frozen=True, eq=False)
class Images:
    """A data set of images; each channel has mean 0 and standard deviation 1 over the training images."""

    name: str
    classes: int
    train: Labelled
    valid: Labelled
    test: Labelled
    hashes: dict[str, str]  #: SHA-256 of the unpacked content of each file that was read, by registered path
    source: Source  #: where the files were found

    def shortened(self, train: int | None, evaluation: int | None) -> "Images":
        """Return the first ``train`` training images and the first ``evaluation`` of each other part; None is all."""
        few = slice(evaluation)
        return replace(self, train=self.train.part(slice(train)), valid=self.valid.part(few), test=self.test.part(few))


def load_images(name: str) -> Images:
    """Return the images ``name``, found on this machine and checked by hash; nothing is downloaded.

    There are ``digits`` (8 × 8, which scikit-learn carries), ``mnist`` (28 × 28) and ``cifar10-jpeg`` (32 × 32 in three
    colours). ``digits`` has no split of its own: its first two thirds are for training, its last third is the test.
    Images by one writer seem to stand together, and a split at random would test on the hands of the training. Of the
    training images the last tenth is for validation. A pixel p becomes (p − μ) / σ with the mean μ and standard
    deviation σ of its channel over the training images that are left.

    Raises:
        FewbitsError: If the data set is unknown, text, missing or damaged.
    """
    entry = registry.labelled_images(name)
    located = sources.find(name)
    pixels, labels = _READERS[entry.format]([content for file in located for content in file.read()])
    end = entry.images[Split.TRAIN]
    last = end - end // 10
    images = _standardised(torch.from_numpy(pixels.reshape(-1, *entry.shape)), last)
    known = Labelled(images, torch.from_numpy(labels.astype(np.int64)))
    train, valid, test = (known.part(place) for place in (slice(last), slice(last, end), slice(end, None)))
    hashes = {file.file.path: file.sha256() for file in located}
    return Images(name, entry.classes, train, valid, test, hashes, located[0].source)


def _standardised(pixels: Tensor, number: int) -> Tensor:
    """Return (p − μ) / σ, float32, with μ and σ of each channel over the first ``number`` images."""
    values = torch.arange(256, dtype=torch.float64)
    moments = []
    for channel in pixels[:number].unbind(1):
        share = channel.flatten().bincount(minlength=256).double() / channel.numel()
        mean = share @ values
        moments.append((mean, (share @ (values - mean).square()).sqrt()))
    mean, deviation = torch.tensor(moments, dtype=torch.float32).T[:, :, None, None]
    return pixels.float().sub_(mean).div_(deviation)


def _rows(contents: list[bytes]) -> tuple[Numbers, Numbers]:
    table = np.concatenate([np.loadtxt(io.BytesIO(each), np.uint8, delimiter=",", ndmin=2) for each in contents])
    return table[:, :-1], table[:, -1]


def _idx(contents: list[bytes]) -> tuple[Numbers, Numbers]:
    """Read files that begin with 0, 0, the type (8 is uint8), the number of dimensions, and these as big-endian."""
    arrays = []
    for content in contents:
        dimensions = content[3]
        shape = np.frombuffer(content, ">u4", dimensions, offset=4)
        arrays.append(np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape))
    images, labels = ([array for array in arrays if array.ndim == number] for number in (3, 1))
    return np.concatenate(images), np.concatenate(labels)


def _jpeg(contents: list[bytes]) -> tuple[Numbers, Numbers]:
    from PIL import Image

    images, labels = [], []
    for content in contents:
        with np.load(io.BytesIO(content)) as file:
            joined, offsets = file["jpeg"].tobytes(), file["offsets"].tolist()
            labels.append(file["labels"])
        for start, stop in pairwise(offsets):
            images.append(np.asarray(Image.open(io.BytesIO(joined[start:stop]))).transpose(2, 0, 1))
    return np.stack(images), np.concatenate(labels)


_READERS = {ImageFormat.ROWS: _rows, ImageFormat.IDX: _idx, ImageFormat.JPEG: _jpeg}
