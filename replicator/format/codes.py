"""Codes that people pass on: a kind, base32 without confusion, a checksum.

``rpl-invite-…``, ``rpl-request-…``, ``rpl-renewal-…``, ``rpl-grant-…``, ``rpl-group-…``: lower case, hyphens and
white space are free, the last five bytes are BLAKE3 over kind and content, so that a slip of the pen is told from a
wrong code.
"""

import base64
import binascii
from typing import Literal, get_args

from blake3 import blake3

from replicator.errors import KeyWrongError

CodeKind = Literal["invite", "request", "renewal", "grant", "group"]
_CHECK = 5
_PREFIX = "rpl-"


def write_code(kind: CodeKind, content: bytes) -> str:
    """Return the code for ``content``."""
    body = content + _check(kind, content)
    return f"{_PREFIX}{kind}-{base64.b32encode(body).decode().rstrip('=').lower()}"


def code_kind(code: str) -> CodeKind:
    """Return what a code is for.

    Raises:
        KeyWrongError: not one of our codes.
    """
    clean = "".join(code.split()).lower()
    kinds: tuple[CodeKind, ...] = get_args(CodeKind)
    for kind in kinds:
        if clean.startswith(f"{_PREFIX}{kind}-"):
            return kind
    raise KeyWrongError(
        "this is not a replicator code",
        hint="a code begins with rpl-invite-, rpl-request-, rpl-renewal-, rpl-grant- or rpl-group-",
    )


def read_code(kind: CodeKind, code: str) -> bytes:
    """Return the content of a code of the given kind.

    Raises:
        KeyWrongError: another kind, damaged, or not a code.
    """
    found = code_kind(code)
    if found != kind:
        raise KeyWrongError(f"this is a code of kind '{found}'; one of kind '{kind}' is needed here")
    text = "".join(code.split()).lower().removeprefix(f"{_PREFIX}{kind}-").replace("-", "").upper()
    try:
        body = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError) as error:
        raise _damaged() from error
    content, check = body[:-_CHECK], body[-_CHECK:]
    if len(body) <= _CHECK or check != _check(kind, content):
        raise _damaged()
    return content


def _check(kind: str, content: bytes) -> bytes:
    return blake3(kind.encode() + b"\x00" + content).digest(length=_CHECK)


def _damaged() -> KeyWrongError:
    return KeyWrongError(
        "the code is damaged or incomplete", hint="copy it again, whole, from its first letter to its last"
    )
