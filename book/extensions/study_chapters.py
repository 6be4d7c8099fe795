"""Below the title of every chapter: its downloads (executed notebook, source, results as CSV)."""

import os
import re
from pathlib import Path

import pandas as pd
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from study_tables import CHAPTERS, READS_STUDY

from fewbits import atomic
from fewbits.study.records import full_records


def add_downloads(app: Sphinx, doctree: nodes.document) -> None:
    """Insert the line of downloads into a chapter; other pages stay as they are."""
    page = app.env.docname
    title = next(doctree.findall(nodes.title), None)
    if not page.startswith(f"{CHAPTERS}/") or title is None:
        return
    app.env.metadata[page][READS_STUDY] = True
    name = Path(page).name
    files = {
        "notebook as executed (.ipynb)": Path(app.srcdir) / f"{page}.ipynb",
        "source (.md)": Path(app.srcdir) / "notebooks" / f"{name}.md",
        "results (.csv)": Path(app.outdir).parent / "downloads" / f"{name}_results.csv",
    }
    atomic.write(files["results (.csv)"], results_csv(*read_by(files["source (.md)"].read_text(encoding="utf-8"))))
    line = nodes.paragraph("", "Download: ", classes=["downloads"])
    for index, (label, file) in enumerate(files.items()):
        target = "/" + os.path.relpath(file, app.srcdir)
        line += [
            nodes.Text(" · " * (index > 0)),
            addnodes.download_reference("", "", nodes.inline("", label), reftarget=target, refdoc=page),
        ]
    title.parent.insert(title.parent.index(title) + 1, line)


def read_by(source: str) -> list[str]:
    """Return the experiments whose full records a chapter reads, in the order of its source."""
    return list(dict.fromkeys(re.findall(r'full_records\("(\w+)"\)', source)))


def results_csv(*experiments: str) -> str:
    """Return the committed records of ``experiments`` as CSV, one row a run, history left out."""
    found = (record for experiment in experiments for record in full_records(experiment))
    rows = [record.model_dump(mode="json", exclude={"result": {"history"}}) for record in found]
    table = pd.json_normalize(rows) if rows else pd.DataFrame(columns=["experiment", "profile", "name", "key"])
    return str(table.to_csv(index=False))


def setup(app: Sphinx) -> dict[str, bool]:
    """Insert before Sphinx collects the files to be offered (its own priority is 500)."""
    app.connect("doctree-read", add_downloads, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
