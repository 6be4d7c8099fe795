"""What may be asked of the runs of an experiment."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from fewbits.errors import FewbitsError
from fewbits.quantizers import parse
from fewbits.study.run import Configuration
from fewbits.training.settings import Training


def _normal_form(weights: dict[str, str]) -> dict[str, str]:
    return {pattern: repr(parse(text)) for pattern, text in weights.items()}


#: The quantizer of each pattern of parameter names, written in one way only: a configuration's key depends on it.
Quantizers = Annotated[dict[str, str], AfterValidator(_normal_form)]


def check_arms(arms: Collection[str] | None, known: Collection[str]) -> None:
    """Refuse an empty choice of arms, and names that are not ``known``; None is no choice.

    Raises:
        FewbitsError: With the names that there are.
    """
    unknown = set(arms or ()) - set(known)
    if unknown or (arms is not None and not arms):
        wrong = f"unknown arms {', '.join(sorted(unknown))}" if unknown else "arms is empty"
        raise FewbitsError(f"{wrong}; there are {', '.join(known)}.")


def check_counts(**counts: int | None) -> None:
    """Refuse numbers below 1, by their names; None is what the profile says.

    Raises:
        FewbitsError: With the name and the number.
    """
    for what, number in counts.items():
        if number is not None and number < 1:
            raise FewbitsError(f"{what} is {number}; give 1 or more, or None for what the profile says.")


def scaled(
    kind: type[Configuration], scale: Mapping[str, Any], *, corpus: str | None = None, epochs: int | None = None
) -> dict[str, Any]:
    """Return the fields ``scale`` of a profile with another corpus or number of epochs, where these are given."""
    fields = dict(scale)
    if corpus is not None:
        fields["corpus"] = corpus
    if epochs is not None:
        training: Training = fields.get("training", kind.model_fields["training"].default)
        fields["training"] = training.model_copy(update={"epochs": epochs})
    return fields
