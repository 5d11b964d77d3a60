"""A bucket of an S3-compatible server, through obstore (the extra ``s3``).

Keys come from a systemd credential, a file or the environment, and are nowhere else: in no argument, no log, no error.
Requests have time limits; what fails on the way, or with a 5xx, is tried again by the client, and then is an error. Of
all answers only the server's own "no such key" becomes None, and only its "it is there already" becomes False.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from replicator.config import BucketAddress
from replicator.credentials import credential, read_secret
from replicator.errors import HomeError, KeyMissingError, KeyWrongError, SpaceError
from replicator.format.sizes import LARGEST
from replicator.store.bucket import BucketError

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Client

CREDENTIAL: Final = "replicator-s3"
PAGE: Final = 1000
"""Keys that a server lists at once."""
ASKED: Final = 16
"""Keys that are asked for at the same time: each takes a journey to the server, and nothing else."""
CONNECT_S: Final = 10
SILENT_S: Final = 30
"""How long a server may send nothing."""
REQUEST_S: Final = 180
"""For any request: 16 MiB at 128 KiB a second take 128 s."""
RETRIES: Final = 4
RETRIES_S: Final = 60
"""Nothing is tried once more so long after the first attempt began: whoever waits for it has gone."""
_FULL = re.compile(r"<Code>(QuotaExceeded|InsufficientStorage|XMinioStorageFull)</Code>|status code: (507|413)\b")
_SAID = re.compile(r"<Code>([^<]*)</Code>\s*(?:<Message>([^<]*)</Message>)?")
_NAMES: Final = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What requests are signed with. Not shown by repr."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


def find_keys(address: BucketAddress, environment: Mapping[str, str]) -> Keys:
    """Return the keys of a bucket: of the systemd credential, else of the file that was named, else the environment's.

    Raises:
        KeyMissingError: there are none.
        KeyWrongError: a file has something else in it.
        CredentialError: a file cannot be read, or others can read it.
    """
    path = credential(CREDENTIAL) or address.credentials
    if path:
        return _parsed(path, read_secret(path, "the keys of a bucket"))
    found = {name: environment.get(name.upper(), "") for name in _NAMES}
    if not found[_NAMES[0]] or not found[_NAMES[1]]:
        raise KeyMissingError(
            f"{address}: no keys for it",
            hint=f"give --s3-credentials FILE, the systemd credential {CREDENTIAL}, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY in the environment",
        )
    return Keys(access_key=found[_NAMES[0]], secret_key=found[_NAMES[1]], token=found[_NAMES[2]])


def _parsed(path: str, text: str) -> Keys:
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, sign, value = line.partition("=")
        name = name.strip().lower()
        if sign and name in _NAMES and name not in found:
            found[name] = value.strip()
    if not found.get(_NAMES[0]) or not found.get(_NAMES[1]):
        raise KeyWrongError(
            f"{path}: has no keys for a bucket",
            hint="it has the lines AWS_ACCESS_KEY_ID=... and AWS_SECRET_ACCESS_KEY=..., as `aws configure` writes them",
        )
    return Keys(access_key=found[_NAMES[0]], secret_key=found[_NAMES[1]], token=found.get(_NAMES[2], ""))


def open_s3(address: BucketAddress) -> "ObstoreBucket":
    """Return the bucket at an address; nothing is asked yet.

    Raises:
        HomeError: obstore is not installed.
        CredentialError: there are no keys for it.
    """
    keys = find_keys(address, os.environ)
    try:
        from obstore.store import S3Store  # noqa: PLC0415 - an extra, and only who has a bucket needs it
    except ImportError as error:
        raise HomeError(
            f"{address}: buckets need obstore, which is not installed", hint="pip install 'replicator[s3]'"
        ) from error
    config: dict[str, Any] = {
        "access_key_id": keys.access_key,
        "secret_access_key": keys.secret_key,
        "region": address.region,
        "skip_signature": False,
        "unsigned_payload": False,
    }
    if keys.token:
        config["session_token"] = keys.token
    if address.endpoint:
        config["endpoint"] = address.endpoint
    return ObstoreBucket(
        S3Store(
            address.bucket,
            config=config,  # type: ignore[arg-type] # built as its keys are known
            client_options={
                "allow_http": address.endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=CONNECT_S),
                "read_timeout": timedelta(seconds=SILENT_S),
                "timeout": timedelta(seconds=REQUEST_S),
            },
            retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRIES_S)},
        )
    )


class ObstoreBucket:
    """A :class:`~replicator.store.bucket.Bucket` that obstore speaks to."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    def put(self, key: str, data: bytes, *, fresh: bool) -> bool:
        """Store in one request, whose body the server checks against the signature."""
        import obstore  # noqa: PLC0415 - as above
        from obstore.exceptions import AlreadyExistsError, PreconditionError  # noqa: PLC0415

        with _told():
            try:
                obstore.put(self._client, key, data, mode="create" if fresh else "overwrite", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                if not fresh:
                    raise
                return False
        return True

    def version_of(self, key: str, data: bytes) -> str:
        """Store, and return what the bucket calls this version of it; empty if it keeps no versions."""
        import obstore  # noqa: PLC0415 - as above

        with _told():
            found = obstore.put(self._client, key, data, use_multipart=False)
        version = found["version"]
        return "" if version in (None, "null") else str(version)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | None:
        """Return bytes, all of them or a range; of what is larger than an object so many that this is seen."""
        import obstore  # noqa: PLC0415 - as above

        with _told():
            try:
                if length is None:
                    found = obstore.get(self._client, key)
                    if found.meta["size"] <= LARGEST:
                        return bytes(found.bytes())[offset:]
                    length = LARGEST + 1 - offset  # whoever else has keys put it there, and not into our memory
                return bytes(obstore.get_range(self._client, key, start=offset, length=length))
            except FileNotFoundError:
                return None

    def size(self, key: str) -> int | None:
        """Return a size."""
        import obstore  # noqa: PLC0415 - as above

        with _told():
            try:
                return obstore.head(self._client, key)["size"]
            except FileNotFoundError:
                return None

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        """Return sizes. At the first error what was not asked for yet is left."""
        if len(keys) == 1:
            return [self.size(keys[0])]
        with ThreadPoolExecutor(ASKED, thread_name_prefix="bucket-sizes") as asking:
            return list(asking.map(self.size, keys))

    def pages(self, prefix: str, after: str = "") -> Iterator[list[tuple[str, int]]]:
        """Yield pages of keys."""
        import obstore  # noqa: PLC0415 - as above

        with _told():
            stream = iter(obstore.list(self._client, prefix.rstrip("/") or None, offset=after or None, chunk_size=PAGE))
        while True:
            with _told():
                page = next(stream, None)
            if page is None:
                return
            yield [(one["path"], one["size"]) for one in page]

    def copy(self, key: str, target: str) -> None:
        """Copy within the bucket, on the server."""
        import obstore  # noqa: PLC0415 - as above

        with _told():
            obstore.copy(self._client, key, target)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete, a thousand at a time."""
        import obstore  # noqa: PLC0415 - as above

        for at in range(0, len(keys), PAGE):
            with _told(), contextlib.suppress(FileNotFoundError):
                obstore.delete(self._client, list(keys[at : at + PAGE]))


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn whatever the client raises into an error that says nothing about an object."""
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError  # noqa: PLC0415 - an extra

    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        text = str(error).partition("\n\nDebug source")[0]  # which repeats it with the whole request in it
        if _FULL.search(text):  # Ceph says that with the status of a refusal
            raise SpaceError("the bucket takes no more", hint="give it more room, or this provider less") from None
        refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
        raise BucketError(errno.EACCES if refused else errno.EREMOTEIO, _gist(text)) from None


def _gist(text: str) -> str:
    """Return what a server said of itself, else how the attempt ended; without the address, which has names in it."""
    said = _SAID.search(text)
    gist = ": ".join(filter(None, said.groups())) if said is not None else text.rpartition(" - ")[2]
    return " ".join(gist.split())[:300].rstrip(": ")
