"""The recovery sheet: words for a drawer, as text and as a page to print, and reading it back.

The secret part is written once, at `init`. What is on it is enough, with one provider's address, to get
everything back; whoever reads it can read and erase everything. The address part is printed as often as one likes.
"""

import html
import io
import re
from collections.abc import Sequence
from contextlib import suppress

import segno

from replicator.endpoints import parse_address
from replicator.errors import KeyWrongError, UsageError

_NUMBERED = re.compile(r"\b(\d{1,2})[.:)]\s*([A-Za-z]+)")
_WORD = re.compile(r"[A-Za-z]{3,}")
_COLUMNS = 3


def sheet_text(name: str, fingerprint: str, words: Sequence[str], addresses: Sequence[str]) -> str:
    """Return the sheet as text of 72 columns. ``addresses`` are providers' "host:port pin" lines, may be empty."""
    rows = -(-len(words) // _COLUMNS)
    lines = [
        f"# RECOVERY SHEET of {name}",
        f"# Tenant {fingerprint}. SLIP-39, 1 of 1, 256 bits.",
        "#",
        "# Whoever holds these words can read, restore and erase everything.",
        "# Write or print them, keep them away from your machines, delete this file.",
        "#",
        "# To get everything back on any machine with replicator:",
        "#   replicator recover --sheet THIS-FILE --peer HOST:PORT --target FOLDER",
        "",
    ]
    for row in range(rows):
        cells = [f"{i + 1:2}. {words[i]:<16}" for i in range(row, len(words), rows)]
        lines.append("   ".join(cells).rstrip())
    lines += ["", "# Providers (any one that lives is enough):"]
    lines += [f"#   {address}" for address in addresses] or [
        "#   none yet: `replicator key sheet --addresses` prints them when there are some",
        "#   ____________________________________________________",
        "#   ____________________________________________________",
    ]
    return "\n".join(lines) + "\n"


def addresses_text(name: str, fingerprint: str, addresses: Sequence[str], day: str) -> str:
    """Return the part of the sheet that holds no secret and gets old: where providers are, as of ``day``."""
    lines = [
        f"# ADDRESSES of {name}, {day}",
        f"# Tenant {fingerprint}. Belongs to the recovery sheet; there is no secret on this page.",
        "#",
        "# With the words of the sheet, any one of these that lives is enough:",
        "#   replicator recover --sheet - --peer HOST:PORT/IDENTITY --target FOLDER",
        "",
        *(f"  {address}" for address in addresses),
        "",
        "# When providers come, go or move, print this page again:",
        "#   replicator key sheet --addresses",
    ]
    return "\n".join(lines) + "\n"


def sheet_page(name: str, fingerprint: str, words: Sequence[str], addresses: Sequence[str]) -> str:
    """Return the sheet as one HTML page with a QR code of the words, to be printed from a browser."""
    picture = io.BytesIO()
    segno.make(" ".join(words), error="m").save(picture, kind="svg", scale=4, xmldecl=False, svgns=True)
    cells = "".join(f"<li>{html.escape(word)}</li>" for word in words)
    places = "".join(f"<li>{html.escape(address)}</li>" for address in addresses) or "<li>&nbsp;</li><li>&nbsp;</li>"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Recovery sheet of {html.escape(name)}</title>
<style>
body {{ font: 12pt/1.4 serif; max-width: 18cm; margin: 1.5cm auto }}
ol {{ columns: 3; font: 12pt/1.7 monospace }} svg {{ width: 6cm; height: 6cm }}
ul li {{ border-bottom: 1px dotted #888; min-height: 1.6em }}
</style>
<h1>Recovery sheet of {html.escape(name)}</h1>
<p>Tenant {html.escape(fingerprint)} · SLIP-39, 1 of 1, 256 bits</p>
<p><strong>Whoever holds these words can read, restore and erase everything.</strong>
Keep this paper away from your machines, and delete the file it was printed from.</p>
<ol>{cells}</ol>
{picture.getvalue().decode()}
<h2>To get everything back</h2>
<p>On any machine with replicator: <code>replicator recover --sheet - --peer HOST:PORT --target FOLDER</code>,
then type the words. One provider that lives is enough:</p>
<ul>{places}</ul>
</html>
"""


def addresses_in(text: str) -> list[str]:
    """Return the addresses with their identities, HOST:PORT/IDENTITY, that stand in a sheet's text."""
    found = []
    for word in text.split():
        with suppress(UsageError):
            if "/" in word and parse_address(word)[1] is not None:
                found.append(word)
    return found


def read_sheet(text: str) -> list[str]:
    """Return the words in a sheet's text: the numbered ones in their order, else every word outside comments.

    Raises:
        KeyWrongError: no words, or a number missing or given twice.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    body = "\n".join(lines)
    numbered = [(int(number), word.lower()) for number, word in _NUMBERED.findall(body)]
    if not numbered:
        words = [word.lower() for word in _WORD.findall(body)]
        if not words:
            raise KeyWrongError("there are no words in this sheet")
        return words
    numbers = sorted(number for number, _ in numbered)
    for place, number in enumerate(numbers, 1):
        if number != place:
            what = "is missing" if number > place else "is there twice"
            raise KeyWrongError(f"word {min(number, place)} of the sheet {what}")
    return [word for _, word in sorted(numbered)]
