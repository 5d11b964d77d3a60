"""A place for objects as people name it on the line: a folder, or a bucket with what reaches it."""

import os

from replicator.config import is_bucket, parse_bucket
from replicator.errors import UsageError


def parse_place(place: str, *, endpoint: str, region: str, credentials: str, hint: str) -> tuple[str, str]:
    """Return the place in full, and the whole path of the file with a bucket's keys, empty if none is named.

    Raises:
        UsageError: no bucket, or what is only for one was given with a folder; ``hint`` says how to name a bucket.
    """
    if is_bucket(place):
        where = str(parse_bucket(place, endpoint=endpoint, region=region))
        return where, os.path.abspath(credentials) if credentials else ""
    if endpoint or region or credentials:
        raise UsageError("--s3-... are for a bucket", hint=hint)
    return os.path.abspath(place), ""
