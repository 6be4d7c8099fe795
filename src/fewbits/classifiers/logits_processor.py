"""Max-shift for generators of other libraries, whose models own their output matrix."""

from dataclasses import dataclass

from torch import Tensor

from fewbits.classifiers.shifts import Constant, Shift


@dataclass(frozen=True)
class MaxShiftProcessor:
    """A logits processor of Hugging Face's ``generate`` that scores words as `MaxShift` does: z − max z − b(z).

    Give it to ``generate`` as ``logits_processor``, in a ``LogitsProcessorList``. Beam search hands log-probabilities
    to a processor, not logits. That makes no difference: the two lie apart by the same number in all words, and b is a
    function of max z − z_w. It shows what a decoder without normaliser would find, and saves no time.

    >>> import torch
    >>> logits = torch.tensor([[1.0, 3.0, 2.0]])
    >>> [MaxShiftProcessor()(None, scores).tolist() for scores in (logits, logits.log_softmax(-1).round(decimals=4))]
    [[[-2.0, 0.0, -1.0]], [[-2.0, 0.0, -1.0]]]
    """

    shift: Shift = Constant(0.0)

    def __call__(self, input_ids: Tensor | None, scores: Tensor) -> Tensor:
        """Return the scores of all words, (rows, V); ``input_ids``, the words so far, make no difference."""
        return scores - scores.amax(-1, keepdim=True) - self.shift(scores)
