"""Files that are written whole or not at all."""

import os
import tempfile
from pathlib import Path

from fewbits.errors import FewbitsError


def write(path: Path, content: bytes | str) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the new one, never a part.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and the file is renamed.
    Missing folders are made. Text is UTF-8.

    Raises:
        FewbitsError: If the folder cannot be written or the disk is full; the old file is left as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise FewbitsError(
            f"cannot write {path}: {error.strerror or error}. The file there, if any, is as it was. "
            "Free some space or make the folder writable, then run the same command again."
        ) from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
