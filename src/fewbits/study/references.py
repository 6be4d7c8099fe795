"""The committed pairs: ``notebooks/NAME.ipynb`` holds what ``notebooks/NAME.md`` prints at its defaults (smoke).

nbval compares them with a fresh execution. A second regeneration on the same machine gives the same bytes: cells have
fixed names, no times are kept, and of the metadata only the kernel's name and the pairing stay. Left out are the blanks
that a progress bar leaves, and images: nbval never compares them, trained curves differ between processors, and the
book shows them anyway.
"""

import os
from pathlib import Path
from typing import Any

from fewbits import atomic, project
from fewbits.errors import FewbitsError
from fewbits.study.notebooks import QUIET_KERNEL, read
from fewbits.study.records import full_records


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
        # one thread: sums in one order, whatever the number of cores, and the setting of `make test`
        client.execute(env=os.environ | {"OMP_NUM_THREADS": "1"})
    except CellExecutionError as error:
        raise FewbitsError(f"{source} failed, its pair was left as it is.\n{error.ename}: {error.evalue}") from error
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [_lasting(output) for output in cell.outputs if not _cleared(output)]
    notebook.metadata = {key: notebook.metadata[key] for key in ("jupytext", "kernelspec") if key in notebook.metadata}
    return str(nbformat.writes(notebook)) + "\n"


def refresh(source: Path) -> bool:
    """Write the pair beside ``source`` and return whether it changed."""
    return _replace(source.with_suffix(".ipynb"), reference(source))


def refresh_picture() -> bool:
    """Draw the README's picture from the full records and return whether it changed."""
    from fewbits.study.figures import picture

    found = [record for record in full_records("lstm_perplexity") if record.result.config["seed"] == 0]
    return _replace(project.root() / "book" / "static" / "lstm_perplexity.svg", picture(found))


def _replace(path: Path, content: str) -> bool:
    if path.is_file() and path.read_text(encoding="utf-8") == content:
        return False
    atomic.write(path, content)
    return True


def _cleared(output: Any) -> bool:
    """Whether ``output`` is what a finished progress bar leaves: blanks, as many as its last line happened to have."""
    return bool(output.output_type == "stream" and not output.text.strip(" \r"))


def _lasting(output: Any) -> Any:
    for kind in [kind for kind in output.get("data", {}) if kind.startswith("image/")]:
        del output.data[kind]
    return output
