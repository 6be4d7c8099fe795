"""The committed pairs: ``notebooks/NAME.ipynb`` holds what ``notebooks/NAME.md`` prints at its defaults (smoke).

nbval compares them with a fresh execution. A second regeneration on the same machine gives the same bytes: cells have
fixed names, no times are kept, and of the metadata only the kernel's name and the pairing stay. Images are left out:
nbval never compares them, trained curves differ between processors, and the book shows them anyway.
"""

from pathlib import Path
from typing import Any

from fewbits import atomic
from fewbits.errors import FewbitsError
from fewbits.study.notebooks import QUIET_KERNEL, read


def reference(source: Path) -> str:
    """Execute the notebook ``source`` at its defaults, in its own folder, and return the pair's content.

    Raises:
        FewbitsError: If a cell fails; the message ends with the cell's own error.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = read(source)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{source.stem}-{number:02d}"
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        timeout=None,
        extra_arguments=QUIET_KERNEL,
        resources={"metadata": {"path": str(source.parent)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise FewbitsError(f"{source} failed, its pair was left as it is.\n{error.ename}: {error.evalue}") from error
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        _drop_images(output)
    notebook.metadata = {key: notebook.metadata[key] for key in ("jupytext", "kernelspec") if key in notebook.metadata}
    return str(nbformat.writes(notebook)) + "\n"


def refresh(source: Path) -> bool:
    """Write the pair beside ``source`` and return whether it changed."""
    content, pair = reference(source), source.with_suffix(".ipynb")
    if pair.is_file() and pair.read_text(encoding="utf-8") == content:
        return False
    atomic.write(pair, content)
    return True


def _drop_images(output: Any) -> None:
    for kind in [kind for kind in output.get("data", {}) if kind.startswith("image/")]:
        del output.data[kind]
