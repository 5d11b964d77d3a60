"""Status as JSON on standard input, metrics for Prometheus' node exporter on standard output.

metrics.py node EXIT < STATUS.json      what `replicator status --offline --json` says
metrics.py provider EXIT < STATUS.json  what `replicator provider status --json` says
"""

import datetime
import json
import sys
from typing import Any

_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def line(name: str, value: int, **labels: object) -> None:
    """Print one sample; labels are escaped as the text format asks."""
    said = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    print(f"replicator_{name}{{{said}}} {value}" if said else f"replicator_{name} {value}")


def _escaped(text: object) -> str:
    return str(text).translate(_ESCAPED)


def seconds(moment: str) -> int:
    """Return seconds since 1970 of a moment in ISO 8601; 0 for none."""
    return int(datetime.datetime.fromisoformat(moment).timestamp()) if moment else 0


def node(status: dict[str, Any]) -> None:
    """Print how a node's datasets and providers stand."""
    line("safe", int(bool(status.get("safe"))))
    line("spooled_bytes", status.get("spooled_bytes", 0))
    line("findings", len(status.get("findings", [])))
    for one in status.get("datasets", []):
        line("dataset_copies", one["copies"], dataset=one["name"])
        line("dataset_promised", one["promised"], dataset=one["name"])
        line("dataset_newest_seconds", seconds(one["newest"]), dataset=one["name"])
    for one in status.get("peers", []):
        line("peer_contacted_seconds", seconds(one["contacted"]), peer=one["name"])
        line("peer_missing_objects", one["missing"], peer=one["name"])
        line("peer_damaged_objects", one["damaged"], peer=one["name"])


def provider(status: dict[str, Any]) -> None:
    """Print how full a provider is."""
    line("provider_mounted", int(bool(status.get("mounted"))))
    line("provider_used_bytes", status.get("used", 0))
    line("provider_capacity_bytes", status.get("offer", {}).get("capacity", 0))
    line("provider_disk_free_bytes", status.get("disk_free", 0))
    line("provider_clock_leap_seconds", status.get("clock_leap_s", 0))
    for one in status.get("tenants", []):
        line("provider_tenant_used_bytes", one["used"], tenant=one["id"])
        line("provider_tenant_quota_bytes", one["quota"], tenant=one["id"])


def main() -> int:
    """Read, and print; what is no status is one that is not safe."""
    half, code = sys.argv[1:]
    try:
        status = json.load(sys.stdin)
    except ValueError:
        status = {}
    line("status_exit", int(code), half=half)
    {"node": node, "provider": provider}[half](status)
    return 0


if __name__ == "__main__":
    sys.exit(main())
