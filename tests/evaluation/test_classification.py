import math

import pytest
import torch
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.evaluation.classification import accuracy, mean_cross_entropy


class Fixed(nn.Module):
    """Its logits are what it reads, but for a parameter that is 0; notes how many images each call has."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))
        self.calls: list[int] = []
        self.drop = nn.Dropout(0.9)

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append(len(images))
        return self.drop(images) + self.nothing


LOGITS = torch.randn(23, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(4, (23,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [1, 7, 23, 500])
def test_against_a_count_and_a_sum(size: int) -> None:
    model = Fixed().train()
    right = sum(row.index(max(row)) == label for row, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True))
    assert accuracy(model, LOGITS, LABELS, batch_size=size) == right / 23
    nats = [
        math.log(sum(map(math.exp, row))) - row[label]
        for row, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True)
    ]
    found = mean_cross_entropy(model, LOGITS, LABELS, batch_size=size)
    assert found == pytest.approx(math.fsum(nats) / 23, rel=1e-14 * 23)
    assert model.calls == 2 * ([size] * (23 // size) + [23 % size] * (23 % size > 0))
    assert model.drop.training, "the mode is given back"


def test_of_equal_logits_the_first_counts() -> None:
    assert accuracy(Fixed(), torch.tensor([[1.0, 1.0], [1.0, 1.0]]), torch.tensor([0, 1])) == 0.5


@pytest.mark.parametrize("measure", [accuracy, mean_cross_entropy])
def test_no_images_are_refused(measure) -> None:
    with pytest.raises(FewbitsError, match="no images"):
        measure(Fixed(), torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
