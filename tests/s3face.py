"""A face of S3 on loopback, with faults at will, so that the real client meets what servers answer on bad days.

It keeps objects in memory and checks no signature. Whether real servers are understood is tried with real servers
(tests/store/test_s3servers.py).
"""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote
from xml.sax.saxutils import escape

from aiohttp import web

Answer = web.StreamResponse | None


@dataclass
class Face:
    """What it holds, and what is to go wrong: ``fault`` may answer a request in its place."""

    bucket: str = "attic"
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    fault: Callable[[str, str], Answer] = lambda _method, _key: None
    endpoint: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer as S3 does, as far as a provider needs it."""
        path = unquote(request.path).lstrip("/")
        bucket, _, key = path.partition("/")
        self.asked.append((request.method, key))
        self.headers.append(dict(request.headers))
        body = await request.read()
        found = self.fault(request.method, key)
        if found is not None:
            return found
        if bucket != self.bucket:
            return said("NoSuchBucket", 404)
        match request.method:
            case "PUT" if "x-amz-copy-source" in request.headers:
                source = unquote(request.headers["x-amz-copy-source"]).lstrip("/").partition("/")[2]
                self.objects[key] = self.objects[source]
                return _xml("CopyObjectResult", "<ETag>&quot;1&quot;</ETag>")
            case "PUT":
                if request.headers.get("If-None-Match") == "*" and key in self.objects:
                    return said("PreconditionFailed", 412)
                self.objects[key] = body
                return web.Response(headers={"ETag": '"1"'})
            case "POST":
                keys = re.findall(r"<Key>([^<]*)</Key>", body.decode())
                for one in keys:
                    self.objects.pop(one, None)
                return _xml("DeleteResult", "".join(f"<Deleted><Key>{escape(one)}</Key></Deleted>" for one in keys))
            case "GET" if not key:
                return self._listed(request)
            case _:
                return self._given(request, key)

    def _listed(self, request: web.Request) -> web.Response:
        prefix, after = request.query.get("prefix", ""), request.query.get("start-after", "")
        keys = [key for key in sorted(self.objects) if key.startswith(prefix) and key > after]
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;1&quot;</ETag><Size>{len(self.objects[key])}</Size></Contents>"
            for key in keys
        )
        return _xml("ListBucketResult", f"<IsTruncated>false</IsTruncated><KeyCount>{len(keys)}</KeyCount>{rows}")

    def _given(self, request: web.Request, key: str) -> web.Response:
        data = self.objects.get(key)
        if data is None:
            return said("NoSuchKey", 404)
        usual = {"ETag": '"1"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        if wanted is None:
            return web.Response(body=data, headers=usual)
        start, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
        shown = f"bytes {start}-{last}/{len(data)}"
        return web.Response(status=206, body=data[start : last + 1], headers=usual | {"Content-Range": shown})


def said(code: str, status: int, message: str = "") -> web.Response:
    """Return an error as S3 words it."""
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")


def _xml(name: str, inner: str) -> web.Response:
    text = f"<?xml version='1.0' encoding='UTF-8'?><{name}>{inner}</{name}>"
    return web.Response(text=text, content_type="application/xml")


@contextmanager
def facing() -> Iterator[Face]:
    """Serve on a free port, on a thread of its own, while the block runs."""
    face = Face()
    started, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", face.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        face.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(30), "it listens"
        yield face
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
