"""Patterns of names: which parameters, or modules, a setting is for."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from fewbits.errors import FewbitsError

T = TypeVar("T")


def choose(names: Mapping[str, object], wanted: Mapping[str, T], what: str) -> dict[str, T]:
    """Return the value of the pattern that each name matches; names that match none are left out.

    A pattern has shell wildcards and may leave out leading modules. ``what`` says in messages what the names are of.

    Raises:
        FewbitsError: If a pattern matches nothing (the names there are, are listed), or two patterns match one name.

    >>> choose({"body.rnn.weight_hh_l0": 0, "output.weight": 0}, {"weight_*": 8}, "parameter")
    {'body.rnn.weight_hh_l0': 8}
    """
    chosen: dict[str, T] = {}
    for pattern, value in wanted.items():
        found = [n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n, f"*.{pattern}")]
        if not found:
            raise FewbitsError(f"{pattern!r} matches no {what}; there are: {', '.join(filter(None, names)) or 'none'}.")
        for name in found:
            if name in chosen:
                raise FewbitsError(f"two patterns match {name}, the second is {pattern!r}; make them exclusive.")
            chosen[name] = value
    return chosen
