"""Settings: each field of a quantizer and of its parts is what its annotation says."""

import operator
import typing
from dataclasses import fields
from enum import Enum
from types import UnionType
from typing import Any

from fewbits.errors import FewbitsError


class Settings:
    """Base of the frozen dataclasses that write themselves as text and are read back by ``parse``.

    A setting in the wrong place would otherwise be kept and do something else: ``BinaryCodes(2, PerRow())`` is a wrong
    solver. A number of another library becomes Python's own, so that the text can be read back.
    """

    def __post_init__(self) -> None:
        """Check and convert the fields.

        Raises:
            FewbitsError: If a field is not of its type; the message says what it takes.
        """
        for name, kinds in _kinds(type(self)).items():
            value = getattr(self, name)
            for kind in kinds:
                try:
                    object.__setattr__(self, name, _as(kind, value))
                    break
                except (TypeError, ValueError, RuntimeError):
                    continue
            else:
                taken = " or ".join(map(_described, kinds))
                brackets = f"; write {value.__name__}() with its settings" if isinstance(value, type) else ""
                raise FewbitsError(f"{type(self).__name__}({name}={value!r}): {name} is {taken}{brackets}.")


def _kinds(settings: Any) -> dict[str, list[type]]:
    """Return the classes that each field takes; a field whose annotation is not made of classes is left out."""
    found = {}
    for name, hint in ((each.name, typing.get_type_hints(settings)[each.name]) for each in fields(settings)):
        members = typing.get_args(hint) if typing.get_origin(hint) in (UnionType, typing.Union) else (hint,)
        kinds = [typing.get_origin(member) or member for member in members]
        if all(isinstance(kind, type) for kind in kinds):
            found[name] = kinds
    return found


def _as(kind: type, value: Any) -> Any:
    """Return ``value`` if it is a ``kind``, or the number of that kind that it is."""
    if isinstance(value, type) or (isinstance(value, (bool, str)) and not isinstance(value, kind)):
        raise TypeError
    if kind is float:
        return value if isinstance(value, int) else float(value)
    if kind is int:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    if not isinstance(value, kind):
        raise TypeError
    return value


def _described(kind: type) -> str:
    if issubclass(kind, Enum):
        return ", ".join(map(str, kind))
    words = {int: "a whole number", float: "a number", bool: "True or False"}
    name = kind.__name__.lower()
    return words.get(kind, f"{'an' if name[0] in 'aeiou' else 'a'} {name} of fewbits.quantizers")
