"""Matplotlib figures as inline SVG.

Figures are drawn in placeholder colors that are replaced by CSS variables of the page, so they follow the
light and the dark scheme. Text remains text in the font of the page, and ids are prefixed with the name of
the figure. The output is deterministic.
"""

import html
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib import style
from matplotlib.figure import Figure

INK, MUTED, RULE, ACCENT, BAD, PAPER = (f"#0{n}0{n}0{n}" for n in range(1, 7))
_VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", ACCENT: "accent", BAD: "bad", PAPER: "paper"}

_STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 10,
}
_WIDTH = 5.2  # inches: two side by side fill the page, one fills the screen of a phone


@dataclass(frozen=True)
class Plot:
    """A figure: SVG markup and its text alternative."""

    svg: str
    alt: str


def render(name: str, height: float, draw: Callable[[Figure], str]) -> Plot:
    """Returns a rendered figure.

    Args:
        name: prefix of all ids in the markup, unique on the page.
        height: height of the figure in inches.
        draw: function that draws into the figure and returns its text alternative; it must not draw text
            from data.
    """
    # "default" first: local matplotlib settings must not change the report.
    with style.context(["default", {**_STYLE, "svg.hashsalt": name}]):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        alt = draw(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return Plot(_inline(buffer.getvalue(), name, alt), alt)


def _inline(svg: str, name: str, alt: str) -> str:
    """Converts an SVG file of matplotlib to inline markup: themed, resizable, with unique ids."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    label = html.escape(alt, quote=True)
    svg = re.sub(r'width="[^"]*" height="[^"]*"', f'role="img" aria-label="{label}"', svg, count=1)
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r"\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    used = set(re.findall(r'(?:url\(|href=")#([\w.-]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    return re.sub(r"\s*\n\s*", "\n", svg).strip()
