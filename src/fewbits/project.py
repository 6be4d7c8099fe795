"""Where the study's own files are: the checkout that holds ``notebooks``, ``data`` and ``book``."""

import os
from pathlib import Path

from fewbits.errors import FewbitsError


def root() -> Path:
    """Return the root of the checkout: ``FEWBITS_ROOT`` if set, else the folder that holds this package's ``src``.

    Raises:
        FewbitsError: If that folder is no checkout of the study (the package alone was installed elsewhere).
    """
    folder = Path(os.environ.get("FEWBITS_ROOT") or Path(__file__).resolve().parents[2])
    if not (folder / "data" / "registry.yaml").is_file():
        raise FewbitsError(
            f"{folder} is no checkout of the study (it has no data/registry.yaml). "
            "Set FEWBITS_ROOT to your clone, or install the package from it with `pip install -e .`."
        )
    return folder


def cache() -> Path:
    """Return the folder for what can be computed or downloaded again: ``FEWBITS_CACHE``, else ``~/.cache/fewbits``."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FEWBITS_CACHE") or Path(home) / "fewbits")
