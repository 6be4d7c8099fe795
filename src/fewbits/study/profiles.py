"""The three sizes that every experiment has."""

from enum import StrEnum


class Profile(StrEnum):
    """How much an experiment computes; the only parameter of a notebook that has a default."""

    SMOKE = "smoke"  #: seconds a notebook, for tests
    LAPTOP = "laptop"  #: minutes on two cores, what ``make book`` computes
    FULL = "full"  #: the document's own scale: hours of CPU, or a GPU
