"""Where errors of the core become the wire's words. No message names an object or a path."""

import contextlib
import errno
import logging
import os
from collections.abc import Iterator

from replicator.errors import FormatError, IntegrityError, NotFoundError, SpaceError, UnsupportedVersionError
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import Refusal

log = logging.getLogger(__name__)


@contextlib.contextmanager
def refusing(*, integrity: Refusal) -> Iterator[None]:
    """Turn the core's errors into refusals; ``integrity`` is the word for an IntegrityError here."""
    try:
        yield
    except SpaceError as error:
        raise RequestRefusedError("full", "the disk is full") from error
    except UnsupportedVersionError as error:
        raise RequestRefusedError("unsupported", error.message) from error
    except FormatError as error:
        raise RequestRefusedError("bad-request", error.message) from error
    except IntegrityError as error:
        raise RequestRefusedError(integrity, error.message) from error
    except NotFoundError as error:
        raise RequestRefusedError("not-found", "no such object") from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise RequestRefusedError("full", "the disk is full") from error
        # Without the error's text: it holds the file's name.
        log.error("the disk answers: %s", os.strerror(error.errno or 0))  # noqa: TRY400 - a traceback has names too
        raise RequestRefusedError("unavailable", "the disk does not work as it should") from error
