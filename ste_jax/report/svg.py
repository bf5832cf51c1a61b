"""A matplotlib figure as inline SVG that belongs to the page.

It is drawn in stand-in colors that become the page's CSS variables, so one drawing serves the light and the
dark scheme; its text stays text in the page's font, and its ids carry its name. The same drawing gives the
same bytes.
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
_WIDTH = 5.2  # inches: two abreast fill the page, one fills a telephone


@dataclass(frozen=True)
class Plot:
    """A finished figure: SVG markup and the same in words."""

    svg: str
    alt: str


def render(name: str, height: float, draw: Callable[[Figure], str]) -> Plot:
    """Returns the drawing of `draw`, which fills the figure and tells it in words.

    Args:
        name: prefix of all ids in the markup, unique on the page.
        height: of the figure in inches.
        draw: must put no text into the figure that comes from data.
    """
    # "default" first: the settings of the user's own matplotlib must not change the report.
    with style.context(["default", {**_STYLE, "svg.hashsalt": name}]):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        alt = draw(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return Plot(_inline(buffer.getvalue(), name, alt), alt)


def _inline(svg: str, name: str, alt: str) -> str:
    """Makes matplotlib's SVG file fit for a page: themed, resizable, with ids of its own, in fewer bytes."""
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
