"""Role ``record``: a number from a committed record, so that no result is typed into prose.

``{record}`lstm_perplexity/NAME:test_perplexity:.1f``` prints that metric of that ``full`` record in that format, and
"open" as long as there is no such record.
"""

import difflib

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole
from study_tables import READS_STUDY

from fewbits.errors import FewbitsError
from fewbits.study.records import full_records


class RecordRole(SphinxRole):
    """Print one metric of one record."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the number, or an error that names what is wrong with the reference."""
        self.env.metadata[self.env.docname][READS_STUDY] = True
        try:
            text = record_text(self.text)
        except FewbitsError as error:
            message = self.inliner.reporter.error(str(error), line=self.lineno)
            return [nodes.problematic(self.rawtext, self.rawtext)], [message]
        return [nodes.inline("", text, classes=["record", "record-open"] if text == "open" else ["record"])], []


def record_text(reference: str) -> str:
    """Return what ``EXPERIMENT/NAME:METRIC:FORMAT`` prints: the formatted metric, or "open" without such a record.

    Raises:
        FewbitsError: If the reference has another form, or the record has no such metric or cannot be so formatted.
    """
    run, _, rest = reference.partition(":")
    metric, _, form = rest.partition(":")
    experiment, _, name = run.partition("/")
    if not (experiment and name and metric):
        raise FewbitsError(f"{reference!r} is no record; write EXPERIMENT/NAME:METRIC:FORMAT")
    found = [record for record in full_records(experiment) if record.name == name]
    if not found:
        return "open"
    metrics = found[0].result.metrics
    if metric not in metrics:
        near = difflib.get_close_matches(metric, metrics) or sorted(metrics)
        raise FewbitsError(f"record {run} has no metric {metric!r}; did you mean {', '.join(near)}?")
    try:
        return format(metrics[metric], form)
    except (ValueError, TypeError) as error:
        raise FewbitsError(f"{metric} of record {run} cannot be printed as {form!r}: {error}") from error


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the role."""
    app.add_role("record", RecordRole())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
