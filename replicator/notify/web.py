"""Web addresses that are asked for, by aiohttp: imported when somebody is told, and not before."""

import asyncio
from collections.abc import Mapping

import aiohttp

from replicator.notify.channels import LIMIT_S, ChannelError


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
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(url, data=body, headers=dict(headers), allow_redirects=False) as answer,
            ):
                return answer.status
        except TimeoutError as error:
            raise ChannelError(f"no answer within {LIMIT_S:.0f} s") from error
        except (aiohttp.ClientError, OSError, ValueError, asyncio.IncompleteReadError) as error:
            # By its kind alone: the texts hold addresses.
            raise ChannelError(f"no answer ({type(error).__name__})") from error
