"""Directive ``study-table``: a table that is computed when the book is built.

``{study-table} ledger`` shows what :func:`study_frames.frame` returns for that name. With ``:sortable:`` a script adds
sorting and a search box, and a list to choose from for each column that the option names; without scripts the plain
table stays. ``:empty:`` is the sentence to print when there is no row yet.
"""

import numbers
from pathlib import Path
from typing import Any, ClassVar

import itables
import pandas as pd
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from study_frames import FRAMES, frame

from fewbits import atomic
from fewbits.errors import FewbitsError

READS_STUDY = "reads_study"  # a page with this mark is read again by every build: its numbers live outside the page
CHAPTERS = "book/chapters"
LONG = 30  # characters; a cell with more has several lines of a readable width, one with fewer a single line


class StudyTable(SphinxDirective):
    """Insert a computed table."""

    required_arguments = 1
    option_spec: ClassVar = {"sortable": directives.unchanged, "empty": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Return the table, or the ``:empty:`` sentence if it has no rows."""
        self.env.metadata[self.env.docname][READS_STUDY] = True
        try:
            rows = frame(self.arguments[0])
        except KeyError as error:
            known = ", ".join(sorted(FRAMES))
            raise self.error(f"no table {error}; there are: {known}, published:NAME, results:EXPERIMENT") from error
        except FewbitsError as error:
            raise self.error(str(error)) from error
        if rows.empty:
            return [nodes.paragraph("", self.options.get("empty", "Nothing yet."))]
        filters = [name.strip() for name in self.options.get("sortable", "").split(",")]
        return [table_node(rows, self.env, filters, "sortable" in self.options)]


def table_node(rows: pd.DataFrame, env: BuildEnvironment, filters: list[str], sortable: bool) -> nodes.table:
    """Return ``rows`` as a docutils table; the script finds by their classes what it has to sort and to filter."""
    table = nodes.table(classes=["study-table", "colwidths-auto"] + ["sortable"] * sortable)
    group = nodes.tgroup(cols=len(rows.columns))
    group += [nodes.colspec(colwidth=1) for _ in rows.columns]
    header = nodes.row()
    for column in map(str, rows.columns):
        header += nodes.entry("", nodes.paragraph("", column), classes=["filter"] * (column in filters))
    body = nodes.tbody()
    for values in rows.itertuples(index=False):
        row = nodes.row()
        for column, value in zip(map(str, rows.columns), values, strict=True):
            content = nodes.paragraph("", "", *cell(column, value, env))
            row += nodes.entry("", content, classes=["long"] * (len(content.astext()) > LONG))
        body += row
    group += [nodes.thead("", header), body]
    table += group
    return table


def cell(column: str, value: Any, env: BuildEnvironment) -> list[nodes.Node]:
    """Return what stands in one cell: a link for a chapter that exists, a badge for a verdict, else text."""
    if pd.isna(value) or value == "":
        return [nodes.Text("–")]
    if isinstance(value, numbers.Integral):
        return [nodes.Text(f"{value:,}")]
    if isinstance(value, float):
        return [nodes.Text(f"{value:.6g}")]
    text = str(value)
    if column == "verdict":
        return [nodes.inline("", text, classes=["verdict", nodes.make_id(f"verdict-{text}")])]
    if column == "chapter" and f"{CHAPTERS}/{text}" in env.found_docs:
        target = {"refdomain": "std", "reftype": "doc", "reftarget": f"/{CHAPTERS}/{text}", "refdoc": env.docname}
        reference = addnodes.pending_xref("", nodes.inline("", text), refexplicit=True, refwarn=True, **target)
        return [reference]
    return [nodes.Text(text)]


def classic_script(module: str, name: str) -> str:
    """Return an ES module's text as a script that puts its exports into ``window.NAME``.

    A browser refuses modules on pages opened from a folder (``file://``), and this book must work there.

    Raises:
        ExtensionError: If the text does not end with one ``export{…}``.
    """
    body, found, rest = module.rpartition("export{")
    if not found:
        raise ExtensionError(
            f"the script bundle of itables {itables.__version__} has no export; pin the locked version"
        )
    exports, _, notices = rest.partition("}")
    pairs = (item.split(" as ") for item in exports.split(","))
    members = ",".join(f'"{public}":{local}' for local, public in pairs)
    return f'window.{name}=(function(){{"use strict";{body}return{{{members}}};}})(){notices}'


def copy_table_script(app: Sphinx) -> None:
    """Copy DataTables out of the installed itables wheel, so that the book needs no network."""
    bundle = Path(itables.__file__).parent / "html"
    vendor = Path(app.srcdir) / "book" / "static" / "vendor"
    script = classic_script((bundle / "dt_bundle.js").read_text(encoding="utf-8"), "TableBundle")
    for path, content in (
        (vendor / "datatables.js", script),
        (vendor / "datatables.css", (bundle / "dt_bundle.css").read_text(encoding="utf-8")),
    ):
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            atomic.write(path, content)


def add_table_script(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document) -> None:
    """Load DataTables on the pages that have a sortable table, and only there."""
    if doctree and any("sortable" in table["classes"] for table in doctree.findall(nodes.table)):
        app.add_css_file("vendor/datatables.css")
        app.add_js_file("vendor/datatables.js")
        app.add_js_file("tables.js")


def outdated(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Return the pages whose numbers come from the study, so that they are read again."""
    return [page for page, data in env.metadata.items() if READS_STUDY in data and page in env.found_docs]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and its script."""
    app.add_directive("study-table", StudyTable)
    app.connect("builder-inited", copy_table_script)
    app.connect("html-page-context", add_table_script)
    app.connect("env-get-outdated", outdated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
