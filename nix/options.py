"""Write nix/OPTIONS.md from the modules' own options: options.py FILE.json.

FILE.json is what `nix eval --json .#lib.optionsDoc` prints, or any other way to that value. A check of the flake
compares the page with the options.
"""

import json
import pathlib
import re
import sys

HEAD = """# Options

For whoever configures the modules. Written by `nix/options.py` from the options themselves; a check
of the flake keeps it so.

`<name>` is a name of your choice. "required" has no default.
"""
COLUMNS = "| option | type | default | |\n|---|---|---|---|\n"


def page(options: list[dict[str, object]]) -> str:
    """Return the reference as Markdown: one table for each part of services.replicator."""
    parts: dict[str, list[dict[str, object]]] = {}
    for one in options:
        words = str(one["name"]).removeprefix("services.replicator.").split(".")
        parts.setdefault(words[0] if len(words) > 1 else "", []).append(one)
    text = HEAD
    for part in sorted(parts):
        text += f"\n## services.replicator{'.' + part if part else ''}\n\n{COLUMNS}"
        text += "".join(row(one, part) for one in sorted(parts[part], key=lambda one: str(one["name"])))
    return text


def row(one: dict[str, object], part: str) -> str:
    """Return one option as a row."""
    name = str(one["name"]).removeprefix(f"services.replicator.{part}." if part else "services.replicator.")
    default = "required" if one["default"] is None else str(one["default"])
    # A pattern is for a program; the description and the error say what is meant.
    kind = re.sub(r"string matching the pattern .+", "string of a form", str(one["type"]))
    cells = (f"`{name}`", kind, default, str(one["description"]))
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |\n"


def main() -> int:
    """Write the page."""
    options = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    target = pathlib.Path(__file__).with_name("OPTIONS.md")
    target.write_text(page(options), encoding="utf-8")
    print(f"wrote {target}: {len(options)} options")
    return 0


if __name__ == "__main__":
    sys.exit(main())
