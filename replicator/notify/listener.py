"""Answers Prometheus on this machine, and nobody and nothing else."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from replicator.endpoints import join_endpoint, split_endpoint
from replicator.notify.metrics import CONTENT_TYPE


@contextlib.asynccontextmanager
async def metrics_listener(listen: str, text: Callable[[], Awaitable[str]]) -> AsyncIterator[str]:
    """Answer GET /metrics inside the block; yields where, with the real port.

    Raises:
        OSError: the address cannot be listened on.
    """

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=(await text()).encode(), headers={"Content-Type": CONTENT_TYPE})

    application = web.Application(client_max_size=0)
    application.router.add_get("/metrics", answer)
    host, port = split_endpoint(listen)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield join_endpoint(runner.addresses[0][0], runner.addresses[0][1])
    finally:
        await runner.cleanup()
