"""Peers, their disks and who holds what, as an SVG that stands alone: no script, no font, nothing fetched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from xml.etree import ElementTree as ET  # builds and escapes; nothing is parsed

from scheduler.explain import amount
from scheduler.geography import fold
from scheduler.model import Holders, Peer, PeerId
from scheduler.outlook import Outlook, nines

__all__ = ["SHOWN_PEERS", "SHOWN_SETS", "draw"]

SHOWN_PEERS: Final = 60
SHOWN_SETS: Final = 24
_ROW: Final = 26
_NAME: Final = 220
_BAR: Final = 300
_CELL: Final = 14
_MARGIN: Final = 24
# Plain rules first, for viewers that know no media queries.
_STYLE: Final = """
svg { font: 13px system-ui, "DejaVu Sans", sans-serif; }
.paper { fill: #ffffff; } text { fill: #1b1f24; } .soft { fill: #59636e; } line { stroke: #d5dae0; }
.room { fill: #d3e1f0; } .used, .dot { fill: #2563a8; } .over { fill: #b3261e; } .none { fill: #f0f2f5; }
.head { font-size: 18px; font-weight: 600; } .group { font-weight: 600; } .end { text-anchor: end; }
.gone { text-decoration: line-through; }
@media (prefers-color-scheme: dark) {
  .paper { fill: #14181d; } text { fill: #e8eaed; } .soft { fill: #9aa5b1; } line { stroke: #3a424b; }
  .room { fill: #2a3a4e; } .used, .dot { fill: #6ba6e8; } .over { fill: #f2857c; } .none { fill: #20262d; }
}
"""


def draw(
    peers: Iterable[Peer],
    placement: Mapping[Any, Holders],
    outlooks: Sequence[Outlook],
    *,
    names: dict[PeerId, str] | None = None,
    policies: dict[str, str] | None = None,
) -> str:
    """A row for each peer, by country, region and household: its grant, what of it is used, and what it holds.

    On the right a column for each set of peers that hold packs together, the commonest first and as wide as its
    share. Above ``SHOWN_PEERS`` peers a row is a region. ``names`` and ``policies`` are shown in place of ids.
    """
    called = names or {}
    labels = {name: _short(label, 60) for name, label in (policies or {}).items()}
    rows = _rows(list(peers), called)
    sets = _columns(placement, {peer: number for number, row in enumerate(rows) for peer in row.peers})
    shown = sets.most_common(SHOWN_SETS)
    packs = sum(sets.values())
    widths = [max(_CELL, round(_CELL * 12 * count / max(packs, 1))) for _, count in shown]
    groups = sum(one.opens is not None for one in rows)
    left = _MARGIN + _NAME + _BAR + 100
    width = left + max(sum(widths), 160) + _MARGIN
    top = 96
    height = top + _ROW * (len(rows) + groups) + 14 + 44 * len(outlooks) + _MARGIN
    words = _words(rows, shown, packs, outlooks, labels)
    svg = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width} {height}",
            "width": str(width),
            "height": str(height),
            "role": "img",
            "aria-labelledby": "title desc",
        },
    )
    ET.SubElement(svg, "title", {"id": "title"}).text = "Where the copies lie, and how full the disks are"
    ET.SubElement(svg, "desc", {"id": "desc"}).text = " ".join(words)
    ET.SubElement(svg, "style").text = _STYLE
    ET.SubElement(svg, "rect", {"class": "paper"} | _box(x=0, y=0, width=width, height=height))
    _text(svg, _MARGIN, 36, "Disks and copies", "head")
    _text(svg, _MARGIN, 58, _summary(rows, len(sets)), "soft")
    _text(svg, _MARGIN + _NAME, 84, "used of granted", "soft")
    _text(svg, left, 84, _heading(len(sets), len(shown)), "soft")
    y = _body(svg, rows, shown, widths, top=top, left=left, width=width)
    _figures(svg, outlooks, labels, y + 30)
    return ET.tostring(svg, encoding="unicode") + "\n"


class _Row:
    """A peer, or a region of them."""

    def __init__(self, name: str, peers: Sequence[Peer], opens: str | None) -> None:
        self.name = name
        self.peers = frozenset(peer.id for peer in peers)
        self.capacity = sum(peer.capacity for peer in peers)
        self.used = sum(peer.used for peer in peers)
        self.state = peers[0].state if len(peers) == 1 else "ok"
        self.place = f"{_short(peers[0].owner)}, {_short(peers[0].site)}" if len(peers) == 1 else f"{len(peers)} peers"
        self.opens = opens

    @property
    def amounts(self) -> str:
        return f"{amount(self.used)} of {amount(self.capacity)}"


def _rows(peers: list[Peer], names: dict[PeerId, str]) -> list[_Row]:
    ordered = sorted(peers, key=lambda peer: (peer.country, fold(peer.region), fold(peer.owner), peer.id))
    if len(ordered) > SHOWN_PEERS:
        regions: dict[tuple[str, str], list[Peer]] = {}
        for peer in ordered:
            regions.setdefault((peer.country, fold(peer.region)), []).append(peer)
        members = [(_short(group[0].region), group) for group in regions.values()]
    else:
        members = [(_short(names.get(peer.id, peer.id)), [peer]) for peer in ordered]
    rows, last = [], None
    for name, group in members:
        first = group[0]
        where = first.country if len(ordered) > SHOWN_PEERS else f"{first.country} · {_short(first.region)}"
        rows.append(_Row(name, group, where if where != last else None))
        last = where
    return rows


def _short(text: str, most: int = 28) -> str:
    # Control characters have no place in XML, escaped or not.
    text = "".join(char if char.isprintable() else "\ufffd" for char in text)
    return text if len(text) <= most else text[: most - 1] + "…"


def _columns(placement: Mapping[Any, Holders], row_of: dict[PeerId, int]) -> Counter[frozenset[int]]:
    return Counter(
        frozenset(row_of[name] for name in holders if name is not None and name in row_of)
        for holders in placement.values()
    )


def _summary(rows: Sequence[_Row], sets: int) -> str:
    used, capacity = sum(row.used for row in rows), sum(row.capacity for row in rows)
    share = f" ({100 * used / capacity:.0f} %)" if capacity else ""
    return f"{amount(used)} of {amount(capacity)} used{share} · {sets} sets of peers hold packs together"


def _heading(sets: int, shown: int) -> str:
    return "who holds packs together" + (f" (the {shown} commonest of {sets})" if sets > shown else "")


def _body(
    svg: ET.Element,
    rows: Sequence[_Row],
    shown: Sequence[tuple[frozenset[int], int]],
    widths: Sequence[int],
    *,
    top: int,
    left: int,
    width: int,
) -> int:
    largest = max((max(row.capacity, row.used) for row in rows), default=0) or 1
    y = top
    for number, row in enumerate(rows):
        if row.opens is not None:
            y += _ROW
            _text(svg, _MARGIN, y - 8, row.opens, "group")
            ET.SubElement(svg, "line", _box(x1=_MARGIN, y1=y, x2=width - _MARGIN, y2=y))
        line = ET.SubElement(svg, "g")
        ET.SubElement(line, "title").text = f"{row.name} ({row.place}): {row.amounts}" + (
            "" if row.state == "ok" else f", {row.state}"
        )
        _text(line, _MARGIN + 10, y + 18, row.name, "gone" if row.state == "lost" else "")
        x = _MARGIN + _NAME
        size = round(_BAR * row.capacity / largest)
        used = round(_BAR * min(row.used, row.capacity) / largest)
        over = round(_BAR * max(0, row.used - row.capacity) / largest)
        ET.SubElement(line, "rect", {"class": "room", "rx": "3"} | _box(x=x, y=y + 6, width=size, height=14))
        ET.SubElement(line, "rect", {"class": "used", "rx": "3"} | _box(x=x, y=y + 6, width=used, height=14))
        if over:
            ET.SubElement(line, "rect", {"class": "over"} | _box(x=x + size, y=y + 6, width=over, height=14))
        share = f"{100 * row.used / row.capacity:.0f} %" if row.capacity else "no room"
        _text(line, x + _BAR + 80, y + 18, row.state if row.state != "ok" else share, "soft end")
        at = left
        for (holders, _), cell in zip(shown, widths, strict=True):
            mark = {"class": "dot" if number in holders else "none", "rx": "2"}
            ET.SubElement(line, "rect", mark | _box(x=at + 1, y=y + 7, width=cell - 2, height=12))
            at += cell
        y += _ROW
    return y


def _figures(svg: ET.Element, outlooks: Sequence[Outlook], policies: dict[str, str], y: int) -> None:
    for one in outlooks:
        _text(svg, _MARGIN, y, policies.get(one.policy, _short(one.policy)), "group")
        _text(svg, _MARGIN, y + 18, _verdict(one), "soft")
        y += 44


def _verdict(one: Outlook) -> str:
    if one.gone:
        return f"{one.gone} of {one.packs} packs cannot be read now"
    if not one.packs:
        return "no packs"
    return (
        f"{nines(one.independent.worst):.1f} nines a year for the pack that lies worst if losses are independent, "
        f"{nines(one.shocks.worst):.1f} with shocks"
    )


def _words(
    rows: Sequence[_Row],
    shown: Sequence[tuple[frozenset[int], int]],
    packs: int,
    outlooks: Sequence[Outlook],
    policies: dict[str, str],
) -> list[str]:
    """The picture for who does not see it."""
    words = [f"{row.name}: {row.amounts}." for row in rows]
    for holders, count in shown:
        together = ", ".join(rows[number].name for number in sorted(holders)) or "nobody"
        words.append(f"{100 * count / packs:.0f} % of packs lie together on {together}.")
    words += [f"{policies.get(one.policy, _short(one.policy))}: {_verdict(one)}." for one in outlooks]
    return words


def _box(**values: int) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}


def _text(parent: ET.Element, x: int, y: int, text: str, kind: str = "") -> None:
    found = ET.SubElement(parent, "text", _box(x=x, y=y) | ({"class": kind} if kind else {}))
    found.text = text
