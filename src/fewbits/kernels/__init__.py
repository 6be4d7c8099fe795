"""Operations that pay for being written once more: the same result as the plain formula, less memory traffic."""

from fewbits.kernels.max_shift import max_shift_loss, max_shift_loss_of_logits

__all__ = ["max_shift_loss", "max_shift_loss_of_logits"]
