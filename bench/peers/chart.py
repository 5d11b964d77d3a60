"""One chart of bars as SVG: a column for each panel, in it a group of bars for each thing measured; shorter is better.

In each group the longest bar has the whole width, so that lengths can be compared within a group and nowhere else.
"""

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

WIDTH: Final = 330
"""Of a panel, in pixels, as are all lengths here."""
LABELS: Final = 66
FIGURES: Final = 58
GAP: Final = 30
BAR: Final = 11
HEAD: Final = 62
GROUP_HEAD: Final = 26
COLOURS: Final = ("#0b6e4f", "#9aa5b1", "#b4bcc5", "#cbd2d9", "#dde2e7")
"""The first tool's stands out."""


class Bar(NamedTuple):
    """One tool's figure, and how it is written."""

    name: str
    value: float
    form: str


class Group(NamedTuple):
    """What was measured, with a bar for each tool."""

    title: str
    bars: Sequence[Bar]


class Panel(NamedTuple):
    """A column of groups."""

    title: str
    groups: Sequence[Group]


def chart(title: str, panels: Sequence[Panel]) -> str:
    """Return a picture of its own size on white ground, so that it can be read in a dark page too."""
    height = HEAD + max(sum(GROUP_HEAD + BAR * len(group.bars) for group in panel.groups) for panel in panels) + GAP
    width = GAP + (WIDTH + GAP) * len(panels)
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="10" fill="#1f2933">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        _text(GAP, 22, title, size=11),
    ]
    for number, panel in enumerate(panels):
        parts += _panel(GAP + number * (WIDTH + GAP), panel)
    return "\n".join([*parts, "</svg>", ""])


def _panel(left: int, panel: Panel) -> list[str]:
    parts = [_text(left, 46, panel.title, size=12, bold=True)]
    top = HEAD
    for group in panel.groups:
        parts.append(_text(left, top + 16, group.title, bold=True))
        top += GROUP_HEAD
        longest = max(bar.value for bar in group.bars)
        for number, bar in enumerate(group.bars):
            length = (WIDTH - LABELS - FIGURES) * (bar.value / longest if longest else 0)
            colour = COLOURS[min(number, len(COLOURS) - 1)]
            parts += [
                _text(left, top + BAR - 2, bar.name),
                f'<rect x="{left + LABELS}" y="{top + 1}" width="{length:.1f}" height="{BAR - 2}" fill="{colour}"/>',
                _text(left + LABELS + length + 4, top + BAR - 2, bar.form.format(bar.value)),
            ]
            top += BAR
    return parts


def _text(left: float, base: float, text: str, *, size: int = 10, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{left:.0f}" y="{base:.0f}" font-size="{size}"{weight}>{escape(text)}</text>'
