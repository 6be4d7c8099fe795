"""Words in another order than that of their numbers."""

import torch
from torch import Tensor, nn

from fewbits.errors import FewbitsError


class WordOrder(nn.Module):
    """Words at slots: ``word[s]`` is the word at slot s, ``slot[w]`` the slot of word w; both (V,), in the state_dict.

    >>> order = WordOrder(torch.tensor([2, 0, 1]))               # word 2 comes first
    >>> order.slots(torch.tensor([2, 1])).tolist()
    [0, 2]
    >>> order.by_word(torch.tensor([[0.2, 0.0, 0.1]])).tolist()  # as if each slot held a tenth of its word
    [[0.0, 0.10000000149011612, 0.20000000298023224]]
    """

    word: Tensor
    slot: Tensor

    def __init__(self, word: Tensor) -> None:
        super().__init__()
        self.register_buffer("word", word)
        self.register_buffer("slot", torch.argsort(word))

    def slots(self, target: Tensor) -> Tensor:
        """Return the slots of the words ``target``, of any shape.

        Raises:
            FewbitsError: If a word is below 0, which would count from the end, or not below V.
        """
        if target.numel() and not (target.min() >= 0 and target.max() < len(self.slot)):
            raise FewbitsError(
                f"targets from {target.min().item()} to {target.max().item()} were given, but words are numbered "
                f"from 0 to {len(self.slot) - 1}. Use the vocabulary that the classifier was made for."
            )
        return self.slot[target.long()]

    def by_word(self, values: Tensor) -> Tensor:
        """Return ``values`` over slots (…, V) as values over words."""
        return values.index_select(-1, self.slot)


def most_frequent_first(counts: Tensor) -> Tensor:
    """Return the words (V,) by falling ``counts`` (V,), equal counts in the order of their numbers.

    Raises:
        FewbitsError: If counts is not one-dimensional, is empty, or has a count that is negative or not a number.
    """
    if counts.dim() != 1 or not len(counts) or not bool((counts >= 0).all()):
        raise FewbitsError(
            f"counts of shape {tuple(counts.shape)} were given; one nonnegative number for each word is expected."
        )
    return torch.sort(counts, descending=True, stable=True).indices
