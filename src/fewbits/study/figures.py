"""How figures look, and what stands beside them."""

from collections.abc import Iterable
from html import escape

import matplotlib as mpl
import seaborn as sns
from IPython.display import HTML

from fewbits.study.records import Record

#: One colour a method, the same in every chapter; Okabe and Ito's palette, safe for colour-blind readers.
COLOURS = {"float": "#0072B2", "twn": "#009E73", "ternary": "#E69F00", "binary": "#D55E00"}


def style() -> None:
    """Set the style of all figures: white paper, so that they can be read in a dark theme too; letters for phones."""
    sns.set_theme(style="whitegrid", palette="colorblind", font_scale=1.1)
    mpl.rcParams.update(
        {"figure.figsize": (9, 4.2), "figure.dpi": 110, "savefig.facecolor": "white", "axes.titlesize": 12}
    )


def provenance(found: Iterable[Record]) -> HTML:
    """Return the note that stands beside a figure: data, profile, seeds, machine and the keys of the records."""
    rows = list(found)
    if not rows:
        return HTML('<p class="provenance">No stored record yet: open.</p>')

    def each(values: Iterable[object]) -> str:
        return escape(", ".join(sorted({str(value) for value in values})))

    keys = ", ".join(f"<code>{record.key[:8]}</code>" for record in rows)
    return HTML(
        f'<p class="provenance">Data: {each(r.result.config.get("corpus") for r in rows)} · '
        f"profile: {each(r.profile for r in rows)} · seeds: {each(r.result.config.get('seed') for r in rows)} · "
        f"machine: {each(r.provenance.device for r in rows)} · records: {keys}</p>"
    )
