"""Images against plain readings of the same files, by other libraries where there is one."""

import gzip
import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewbits.data import Labelled, Source, data_hashes, load_images, registry
from fewbits.errors import FewbitsError

needs_folder = pytest.mark.skipif(
    not os.environ.get("FEWBITS_DATA"), reason="set FEWBITS_DATA to the folder of the reference data sets"
)

CHANCE = np.random.default_rng(0)
NUMBER = 24  # of images: 20 for training, 2 of them for validation, and 4 for the test
TRAIN = 20


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def rows(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    lines = [",".join(map(str, [*image.flatten(), label])) for image, label in zip(pixels, labels, strict=True)]
    return "\n".join(lines).encode()


def jpegs(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """As PNG, which keeps every pixel: an image is opened by what it is."""
    files = []
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(file, "PNG")
        files.append(file.getvalue())
    ends = np.cumsum([0, *map(len, files)])
    file = io.BytesIO()
    np.savez(file, jpeg=np.frombuffer(b"".join(files), np.uint8), offsets=ends, labels=labels)
    return file.getvalue()


def made_up(study, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Register the same random images as one kind of files or another."""
    pixels = CHANCE.integers(0, 256, (NUMBER, 3 if kind == "jpeg" else 1, 2, 3), np.uint8)
    labels = CHANCE.integers(0, 10, NUMBER, np.uint8)
    first, rest = slice(TRAIN), slice(TRAIN, None)
    match kind:
        case "rows":
            files = {"toy/a.csv.gz": gzip.compress(rows(pixels, labels))}
        case "idx":
            files = {
                f"toy/{part}-{what}.gz": gzip.compress(idx(array[place]))
                for part, place in (("first", first), ("rest", rest))
                for what, array in (("images", pixels[:, 0]), ("labels", labels))
            }
        case _:
            parts = (("first", first), ("rest", rest))
            files = {f"toy/{part}.npz": jpegs(pixels[place], labels[place]) for part, place in parts}
    study.images("toy", kind, pixels.shape[1:], TRAIN, files, test=NUMBER - TRAIN)
    return pixels, labels


def standardised(pixels: np.ndarray, train: int) -> np.ndarray:
    known = pixels[:train].astype(float)
    mean, deviation = known.mean((0, 2, 3), keepdims=True), known.std((0, 2, 3), keepdims=True)
    return (pixels - mean) / deviation


@pytest.mark.parametrize("kind", ["rows", "idx", "jpeg"])
def test_pixels_are_standardised_by_the_images_that_are_trained_on(study, kind: str) -> None:
    pixels, labels = made_up(study, kind)
    images = load_images("toy")
    expected = standardised(pixels, 18)
    for part, place in ((images.train, slice(18)), (images.valid, slice(18, 20)), (images.test, slice(20, None))):
        # μ and σ are rounded to float32, and so are the difference and the quotient
        np.testing.assert_allclose(part.images, expected[place], rtol=0, atol=4 * 2.0**-24 * 256 / pixels.std())
        assert part.labels.tolist() == labels[place].tolist()
        assert (part.images.dtype, part.labels.dtype) == (torch.float32, torch.int64)
    assert (images.name, images.classes, images.source) == ("toy", 10, Source.FOLDER)
    assert images.hashes == data_hashes("toy")


def test_fewer_images_are_the_first_of_each_part(study) -> None:
    made_up(study, "rows")
    images = load_images("toy")
    few = images.shortened(5, 1)
    assert [len(part.labels) for part in (few.train, few.valid, few.test)] == [5, 1, 1]
    for short, long in ((few.train, images.train), (few.valid, images.valid), (few.test, images.test)):
        assert torch.equal(short.images, long.images[: len(short.images)])
        assert torch.equal(short.labels, long.labels[: len(short.labels)])
    assert same(images.shortened(None, None).test, images.test)


def same(one: Labelled, other: Labelled) -> bool:
    return all(map(torch.equal, one, other))


def test_a_changed_file_is_refused(study) -> None:
    made_up(study, "idx")
    study.put("toy/rest-labels.gz", gzip.compress(b"\0\0\10\1\0\0\0\0"))
    with pytest.raises(FewbitsError, match=r"toy/rest-labels\.gz"):
        load_images("toy")


def test_a_missing_file_says_what_to_do(study) -> None:
    made_up(study, "jpeg")
    (study.folder / "toy" / "rest.npz").unlink()
    with pytest.raises(FewbitsError, match=r"(?s)toy/rest\.npz.*its home is nowhere"):
        load_images("toy")


# --- the data sets of the study ---------------------------------------------------------------------------------------


def test_digits_are_those_of_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.datasets import load_digits

    monkeypatch.delenv("FEWBITS_DATA", raising=False)
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path))
    images, known = load_images("digits"), load_digits()
    assert images.source is Source.WHEEL
    parts = (images.train, images.valid, images.test)
    assert [len(part.labels) for part in parts] == [1_079, 119, 599]
    assert torch.cat([part.labels for part in parts]).tolist() == known.target.tolist()
    expected = standardised(known.images[:, None], 1_079)
    found = torch.cat([part.images for part in parts])
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * 2.0**-24 * 16 / known.images.std())
    assert set(known.target.tolist()) == set(range(images.classes))


def mean_and_deviation(part: torch.Tensor) -> torch.Tensor:
    return torch.stack([part.double().mean((0, 2, 3)), part.double().std((0, 2, 3), correction=0)])


@needs_folder
@pytest.mark.shared_data
def test_mnist_is_what_its_registry_says() -> None:
    images = load_images("mnist")
    parts = (images.train, images.valid, images.test)
    assert [tuple(part.images.shape) for part in parts] == [(n, 1, 28, 28) for n in (54_000, 6_000, 10_000)]
    assert sum(registry.labelled_images("mnist").images.values()) == 70_000
    assert images.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # as LeCun's page shows them
    assert images.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    torch.testing.assert_close(
        mean_and_deviation(images.train.images), torch.tensor([[0.0], [1.0]]).double(), atol=1e-5, rtol=0
    )


@needs_folder
@pytest.mark.shared_data
@pytest.mark.slow
def test_cifar_is_what_its_registry_says() -> None:
    images = load_images("cifar10-jpeg")
    parts = (images.train, images.valid, images.test)
    assert [tuple(part.images.shape) for part in parts] == [(n, 3, 32, 32) for n in (45_000, 5_000, 10_000)]
    folder = Path(os.environ["FEWBITS_DATA"], "cifar10-jpeg")
    for known, found in (
        ("train", torch.cat([images.train.labels, images.valid.labels])),
        ("test", images.test.labels),
    ):
        assert found.tolist() == [int(line) for line in (folder / f"labels_{known}.txt").read_text().split()]
