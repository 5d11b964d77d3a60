"""How long the snapshots of each dataset stay, as the keeper has it; where nothing was set, the usual.

It lies with the keeper, not with the datasets on a node: a machine that writes must not be able to have history
forgotten, not even by asking for it.
"""

import json
from dataclasses import asdict
from typing import Final

from replicator.engine.home import Half
from replicator.errors import HomeError, UsageError
from replicator.fs import write_atomic
from replicator.snapshot.retention import KeepRules

RETENTION_FILE: Final = "retention.json"
FORMAT: Final = 1
USUAL: Final = KeepRules(last=3, daily=14, weekly=8, monthly=12)
"""For datasets of which nothing else was said."""


def all_rules(half: Half) -> dict[str, KeepRules]:
    """Return what was set, by dataset.

    Raises:
        HomeError: the file is damaged, or of a newer release.
    """
    path = half.file(RETENTION_FILE)
    if half.fs.size(path) is None:
        return {}
    try:
        document = json.loads(half.fs.read(path))
        if document["format"] == FORMAT:
            return {name: _rules(said) for name, said in document["datasets"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, UsageError) as error:
        raise HomeError(
            f"{path}: damaged ({error})", hint="remove it and set again what `dataset set --keep-...` had set"
        ) from error
    raise HomeError(f"{path}: of format {document['format']}, this release knows {FORMAT}", hint="install a newer one")


def rules_for(half: Half, dataset: str) -> KeepRules:
    """Return by which rules the snapshots of a dataset stay."""
    return all_rules(half).get(dataset, USUAL)


def set_rules(half: Half, dataset: str, rules: KeepRules | None) -> None:
    """Set the rules of a dataset, all of them at once; None: the usual ones again."""
    known = all_rules(half)
    known.pop(dataset, None)
    if rules is not None:
        known[dataset] = rules
    said = {name: asdict(one) | {"tags": sorted(one.tags)} for name, one in sorted(known.items())}
    write_atomic(
        half.fs, half.file(RETENTION_FILE), json.dumps({"format": FORMAT, "datasets": said}, indent=1).encode()
    )


def in_words(rules: KeepRules) -> str:
    """Return rules as people say them: "last 3, daily 14"."""
    said = [f"{name} {value}" for name, value in asdict(rules).items() if value and name not in {"within_s", "tags"}]
    if rules.within_s:
        said.append(
            f"within {rules.within_s // 86400}d" if rules.within_s % 86400 == 0 else f"within {rules.within_s}s"
        )
    return ", ".join([*said, *(f"tag {tag}" for tag in sorted(rules.tags))])


def _rules(said: dict[str, object]) -> KeepRules:
    numbers = {name: int(str(value)) for name, value in said.items() if name != "tags"}
    tags = said.get("tags", [])
    if not isinstance(tags, list):
        raise TypeError("tags are not a list")
    return KeepRules(tags=frozenset(str(tag) for tag in tags), **numbers)
