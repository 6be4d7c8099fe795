"""How figures look, and what stands beside them."""

import io
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from IPython.display import HTML
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, fontManager

from fewbits.evaluation.perplexity import exponential
from fewbits.study.records import Record

#: One colour a method, the same in every chapter; Okabe and Ito's palette, safe for colour-blind readers.
COLOURS = {"float": "#0072B2", "twn": "#009E73", "ternary": "#E69F00", "binary": "#D55E00", "embeddings": "#CC79A7"}


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

    configs = [record.result.config for record in rows]
    values: dict[str, Iterable[object]] = {
        "data": (_said(config, "corpus") for config in configs),
        "profile": (record.profile for record in rows),
        "seeds": (_said(config, "seed") for config in configs),
        "machine": (record.provenance.device for record in rows),
    }
    named = {what: sorted({str(value) for value in found if value is not None}) for what, found in values.items()}
    text = " · ".join(f"{what}: {', '.join(texts)}" for what, texts in named.items() if texts)
    keys = ", ".join(f"<code>{escape(record.key[:8])}</code>" for record in rows)
    return HTML(f'<p class="provenance">{escape(text[:1].upper() + text[1:])} · records: {keys}</p>')


def _said(config: Mapping[str, Any], what: str) -> object:
    """Return what a configuration says, or else the run that it starts from."""
    return config.get(what, config.get("start", {}).get(what))


def curves(axis: Axes, found: Iterable[Record], title: str) -> None:
    """Draw validation perplexity by epoch, one line a record, one colour an arm, or say that there is no record yet."""
    named: dict[str, Artist] = {}
    for record in found:
        arm, history = record.result.config["arm"], record.result.history
        perplexities = [exponential(row["valid_loss"]) for row in history]
        named[arm] = axis.plot([row["epoch"] for row in history], perplexities, marker="o", color=COLOURS[arm])[0]
    axis.set(title=title, xlabel="epoch", ylabel="validation perplexity", yscale="log")
    if named:
        axis.legend(named.values(), named.keys())
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        low, high = axis.get_ylim()
        if high > 10 * low:  # a label at each of 2, 3, …, 9 would cover its neighbours
            axis.yaxis.set_minor_locator(mpl.ticker.LogLocator(subs=(2, 5)))
    else:
        axis.text(0.5, 0.5, "no record yet", transform=axis.transAxes, ha="center")


def picture(found: Iterable[Record]) -> str:
    """Return the README's picture as SVG: the curves of the full records; the same records give the same bytes."""
    with mpl.rc_context({"svg.hashsalt": "fewbits"}):
        style()
        mpl.rcParams["font.family"] = _own_font()
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        curves(figure.subplots(), found, "LSTM language model, 2×200 units, Penn Treebank")
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None}, facecolor="white")
    return file.getvalue()


def _own_font() -> str:
    """Return the name of the DejaVu Sans that comes with matplotlib; the system may have another version of it."""
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    entry = FontEntry(fname=str(path), name="DejaVu Sans of matplotlib", weight=400)
    if entry not in fontManager.ttflist:
        fontManager.ttflist.append(entry)
    return entry.name
