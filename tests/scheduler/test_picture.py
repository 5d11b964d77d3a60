from __future__ import annotations

from xml.etree import ElementTree as ET

from scheduler import PackId, PeerId
from scheduler.hazards import Hazards
from scheduler.outlook import outlook
from scheduler.picture import SHOWN_PEERS, SHOWN_SETS, draw
from tests.scheduler.problems import ids, peer, policy

parsed = ET.fromstring  # of what was drawn here
SVG = "{http://www.w3.org/2000/svg}"


def test_a_picture_says_in_words_what_it_shows() -> None:
    roster = [peer("p1", used=500), peer("p2", used=1200), peer("p3", state="lost")]
    placement = {PackId("a"): ids("p1", "p2"), PackId("b"): ids("p1", "p2"), PackId("c"): ids("p3")}
    found = outlook(placement, roster, policy(2), Hazards())
    root = parsed(draw(roster, placement, [found], names={PeerId("p1"): "Anna"}, policies={"p": "photos"}))
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-labelledby"] == "title desc"
    described = root.findtext(f"{SVG}desc") or ""
    assert "Anna: 500 B of 1 kB." in described
    assert "67 % of packs lie together on Anna, p2." in described
    assert "photos: 1 of 3 packs cannot be read now." in described
    rects = [one.attrib for one in root.iter(f"{SVG}rect")]
    assert sum(one["class"] == "dot" for one in rects) == 3
    assert sum(one["class"] == "over" for one in rects) == 1
    assert all(float(one["width"]) >= 0 for one in rects)


def test_names_cannot_become_markup() -> None:
    evil = "</svg><script>x</script>\x1b\x00&"
    text = draw([peer("p1")], {}, [], names={PeerId("p1"): evil[:28]}, policies={})
    root = parsed(text)
    assert not [one for one in root.iter() if one.tag.endswith("script")]
    assert "\x1b" not in text
    assert "\x00" not in text


def test_many_peers_are_drawn_by_region_and_many_sets_not_all() -> None:
    roster = [peer(f"p{number:03}", region=f"r{number % 5}") for number in range(SHOWN_PEERS + 40)]
    placement = {PackId(f"k{number}"): ids(f"p{number:03}", f"p{number + 1:03}") for number in range(SHOWN_PEERS)}
    root = parsed(draw(roster, placement, []))
    rooms = [one for one in root.iter(f"{SVG}rect") if one.attrib["class"] == "room"]
    assert len(rooms) == 5
    few = [peer(f"p{number:03}") for number in range(SHOWN_PEERS)]
    columns = {PackId(f"k{number}"): ids(f"p{number:03}") for number in range(SHOWN_PEERS)}
    root = parsed(draw(few, columns, []))
    cells = [one for one in root.iter(f"{SVG}rect") if one.attrib["class"] in {"dot", "none"}]
    assert len(cells) == SHOWN_PEERS * SHOWN_SETS


def test_nobody_at_all_can_be_drawn() -> None:
    assert parsed(draw([], {}, [])).tag == f"{SVG}svg"
