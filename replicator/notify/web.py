"""Web addresses that are asked for, by aiohttp: imported when somebody is told, and not before."""

import asyncio
import ssl
from collections.abc import Mapping

from replicator.aio import aiohttp
from replicator.notify.channels import LIMIT_S, ChannelError


def _connector() -> aiohttp.TCPConnector:
    """Return one that believes this machine's authorities, which :mod:`replicator.aio` leaves out."""
    return aiohttp.TCPConnector(ssl=ssl.create_default_context())


class HttpWeb:
    """The machine's way to the web. Follows no redirection: what is sent is for who was named."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Return the status of the answer.

        Raises:
            ChannelError: there is none.
        """
        timeout = aiohttp.ClientTimeout(total=LIMIT_S)
        try:
            async with (
                aiohttp.ClientSession(connector=_connector(), timeout=timeout) as session,
                session.post(url, data=body, headers=dict(headers), allow_redirects=False) as answer,
            ):
                return answer.status
        except TimeoutError as error:
            raise ChannelError(f"no answer within {LIMIT_S:.0f} s") from error
        except (aiohttp.ClientError, OSError, ValueError, asyncio.IncompleteReadError) as error:
            # By its kind alone: the texts hold addresses.
            raise ChannelError(f"no answer ({type(error).__name__})") from error
