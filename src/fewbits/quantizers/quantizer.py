"""The interface of all quantizers."""

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes
from fewbits.quantizers.estimators import Estimator
from fewbits.quantizers.granularity import Granularity
from fewbits.quantizers.settings import Settings


class Quantizer(Settings, ABC):
    """One small object that turns a float tensor into :class:`~fewbits.formats.codes.Codes`.

    A quantizer is a frozen dataclass of its settings. ``encode`` gives the codes; calling the quantizer gives
    ``encode(w).decode()``, with a gradient for ``w`` from ``estimator``. Everything random takes ``generator``: with
    None, a stochastic quantizer answers deterministically, which is how a model is evaluated and packed.
    """

    granularity: Granularity  #: how many weights share a table entry
    estimator: Estimator  #: what the backward pass takes for the derivative

    @property
    def minimises_error(self) -> bool:
        """Whether Σ importance · (q − w)² is minimised, so that an importance has a meaning."""
        return False

    def learned(self, weight: Tensor) -> Tensor | None:
        """Return the table that training learns beside the weight, as it is at first; None if there is none."""
        return None

    def encode(
        self,
        weight: Tensor,
        *,
        importance: Tensor | None = None,
        generator: torch.Generator | None = None,
        learned: Tensor | None = None,
    ) -> Codes:
        """Return the codes of ``weight``.

        Args:
            weight: a float tensor of any shape; need not be contiguous; may be empty.
            importance: a weight for the squared error of each element, for quantizers that minimise one.
            generator: source of random numbers, on the device of ``weight``; None for the deterministic answer.
            learned: what training made of :meth:`learned`; None for the first one.

        Raises:
            FewbitsError: If ``weight`` is not floating point or holds NaN or infinity, if the granularity does not fit
                its shape, if a scale overflows, or if ``importance`` does not fit the weight or is given to a
                quantizer that minimises nothing.
        """
        if not weight.is_floating_point():
            raise FewbitsError(f"a quantizer takes floats, not {weight.dtype}; give `tensor.float()`.")
        values = weight.detach().contiguous()  # one order of summation, whatever the strides
        if values.numel() and not all(torch.isfinite(end) for end in values.aminmax()):  # NaN passes through aminmax
            raise FewbitsError("the tensor holds NaN or infinity, which has no code. Did training diverge?")
        rows = values.reshape(self.granularity.groups(values.shape), -1) if values.numel() else values.reshape(1, 0)
        codes = self._encode(rows, values.shape, self._importance(importance, rows, values.shape), generator)
        if learned is not None:
            codes = replace(codes, tables=self._tables(learned))
        if not all(torch.isfinite(table).all() for table in codes.tables.values()):
            raise FewbitsError(f"a scale of {type(self).__name__} overflows {weight.dtype}: the weights are too large.")
        return codes

    @abstractmethod
    def _encode(
        self, rows: Tensor, shape: torch.Size, importance: Tensor | None, generator: torch.Generator | None
    ) -> Codes:
        """Return the codes of ``rows``: shape (groups, elements of a group), finite, of a tensor of ``shape``.

        ``importance`` has the shape of ``rows`` and is None unless the quantizer ``minimises_error``.
        """

    def _tables(self, learned: Tensor) -> dict[str, Tensor]:
        """Return the tables that hold what was learned, with its gradient."""
        raise FewbitsError(f"{type(self).__name__} learns no table.")

    def _importance(self, importance: Tensor | None, rows: Tensor, shape: torch.Size) -> Tensor | None:
        if importance is None:
            return None
        if not self.minimises_error:
            raise FewbitsError(f"{type(self).__name__} minimises no error, so it cannot use an importance.")
        if importance.shape != shape or not bool((importance.isfinite() & (importance >= 0)).all()):
            raise FewbitsError(
                f"an importance is a finite number of at least 0 for each of the {tuple(shape)} weights; "
                f"this one has {tuple(importance.shape)} numbers, or one that is negative, NaN or infinite."
            )
        # Not in the type of the weights: float16 has no room for squares.
        return importance.detach().contiguous().reshape(rows.shape).to(rows.device)

    def __call__(
        self,
        weight: Tensor,
        *,
        importance: Tensor | None = None,
        generator: torch.Generator | None = None,
        learned: Tensor | None = None,
    ) -> Tensor:
        """Return ``encode(weight).decode()`` with the estimator's gradient for ``weight``, and one for ``learned``."""
        return self.estimator(weight, self.encode(weight, importance=importance, generator=generator, learned=learned))
