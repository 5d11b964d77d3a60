"""OpenStack Swift with its face of S3, on loopback: the real server that buckets are tried with.

It is not among the dependencies. ``make swift`` puts it into build/swift; REPLICATOR_SWIFT names another folder with
its programs. Of memcached, which it asks for, nothing that is tried here needs anything.
"""

import hashlib
import hmac
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from replicator.clock import NS, SystemClock

USER, KEY = "test:tester", "testing"
PATIENCE_S = 60.0
_FILTERS = "catch_errors gatekeeper cache listing_formats bulk s3api tempauth slo dlo versioned_writes symlink"
_OPTIONS = {
    "cache": "use = egg:swift#memcache\nmemcache_servers = 127.0.0.1:1",
    "s3api": "use = egg:swift#s3api\nlocation = us-east-1",
    "tempauth": f"use = egg:swift#tempauth\nuser_{USER.replace(':', '_')} = {KEY} .admin",
    "versioned_writes": "use = egg:swift#versioned_writes\nallow_object_versioning = true",
}


def programs() -> Path | None:
    """Return the folder with Swift's programs, None if it is not installed."""
    named = os.environ.get("REPLICATOR_SWIFT")
    folder = Path(named) if named else Path(__file__).parents[1] / "build" / "swift" / "bin"
    return folder if (folder / "swift-proxy-server").exists() else None


@contextmanager
def serving(folder: Path, work: Path) -> Iterator[str]:
    """Give the address of a server whose user is :data:`USER` with :data:`KEY`, and which has the bucket ``attic``."""
    etc = work / "etc"
    etc.mkdir(parents=True)
    (work / "srv" / "d1").mkdir(parents=True)
    host = _own_host()
    ports = {"account": 26202, "container": 26201, "object": 26200, "proxy": 26280}
    (etc / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = a\nswift_hash_path_prefix = b\n"
        "[storage-policy:0]\nname = one\ndefault = yes\n"
    )
    usual = f"bind_ip = {host}\nswift_dir = {etc}\nworkers = 0\nuser = {_user()}\nlog_address =\n"
    for kind in ("account", "container", "object"):
        for words in (
            ("create", "4", "1", "1"),
            ("add", f"r1z1-{host}:{ports[kind]}/d1", "1"),
            ("rebalance",),
        ):
            command = [str(folder / "swift-ring-builder"), str(etc / f"{kind}.builder"), *words]
            subprocess.run(command, check=False, capture_output=True, timeout=60)
        (etc / f"{kind}.conf").write_text(
            f"[DEFAULT]\n{usual}bind_port = {ports[kind]}\ndevices = {work}/srv\nmount_check = false\n"
            f"[pipeline:main]\npipeline = {kind}-server\n[app:{kind}-server]\nuse = egg:swift#{kind}\n"
        )
    filters = "".join(f"[filter:{one}]\n{_OPTIONS.get(one, f'use = egg:swift#{one}')}\n" for one in _FILTERS.split())
    (etc / "proxy.conf").write_text(
        f"[DEFAULT]\n{usual}bind_port = {ports['proxy']}\n[pipeline:main]\npipeline = {_FILTERS} proxy-server\n"
        f"[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n{filters}"
    )
    running = []
    try:
        for kind in ports:
            with (work / f"{kind}.log").open("wb") as log:
                command = [str(folder / f"swift-{kind}-server"), str(etc / f"{kind}.conf")]
                running.append(subprocess.Popen(command, stdout=log, stderr=log))
        endpoint = f"http://{host}:{ports['proxy']}"
        _make_bucket(endpoint, "attic")
        yield endpoint
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(timeout=PATIENCE_S)


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


def _own_host() -> str:
    """Return an address of loopback that only this process has: a port of 127.0.0.1 may be taken before it is bound."""
    first, last = divmod(os.getpid(), 250)
    return f"127.{1 + first // 250 % 250}.{first % 250}.{1 + last}"


def _make_bucket(endpoint: str, bucket: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            urllib.request.urlopen(_signed_put(endpoint, f"/{bucket}"), timeout=20).close()  # noqa: S310 - loopback
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
        else:
            return


def _signed_put(endpoint: str, path: str) -> urllib.request.Request:
    """Return a request that makes a bucket, which no store does; signed as AWS Signature Version 4 says."""
    now = datetime.fromtimestamp(SystemClock().now_ns() / NS, UTC)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    empty = hashlib.sha256(b"").hexdigest()
    host, signed = endpoint.partition("//")[2], "host;x-amz-content-sha256;x-amz-date"
    canonical = f"PUT\n{path}\n\nhost:{host}\nx-amz-content-sha256:{empty}\nx-amz-date:{stamp}\n\n{signed}\n{empty}"
    scope = f"{day}/us-east-1/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{KEY}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    said = f"AWS4-HMAC-SHA256 Credential={USER}/{scope}, SignedHeaders={signed}, Signature={signature}"
    headers = {"x-amz-date": stamp, "x-amz-content-sha256": empty, "Authorization": said}
    return urllib.request.Request(f"{endpoint}{path}", method="PUT", headers=headers)  # noqa: S310 - loopback
