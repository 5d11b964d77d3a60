"""What providers said of leaving or shrinking: their signed word, kept as it came until they say something else."""

from replicator.clock import DAY_S, NS, day_of
from replicator.config import format_size
from replicator.crypto.sign import Context, body_of, verify
from replicator.engine.home import Half
from replicator.errors import FormatError, IntegrityError, ProtocolError, RefusedError
from replicator.format.codec import decode
from replicator.format.notice import Notice
from replicator.ids import Identity
from replicator.transport.base import Connection
from replicator.wire.messages import PULLS_VERSION, Info, Leaving, LeavingRequest


def signed_notice(half: Half, identity: Identity) -> bytes:
    """Return what a provider said last, as it signed it; empty if it stays as it is."""
    return half.catalog.meta(_place(identity)) or b""


def notice_of(half: Half, identity: Identity) -> Notice | None:
    """Return what a provider said last, None if it stays as it is."""
    signed = signed_notice(half, identity)
    return decode(Notice, body_of(signed)) if signed else None


def note_notice(half: Half, identity: Identity, signed: bytes) -> bool:
    """Remember what a provider says now; return whether that is new."""
    if signed_notice(half, identity) == signed:
        return False
    half.catalog.set_meta(_place(identity), signed)
    return True


async def ask_notice(connection: Connection, info: Info, key: bytes, tenant: bytes, *, known: bool) -> bytes | None:
    """Ask a provider whether it leaves or shrinks; None if there is no reason to, or it cannot say.

    There is one where it grants less than lies there, and where it said so before (``known``).

    Raises:
        ProtocolError: its word does not hold.
        PeerError: it does not answer.
    """
    if PULLS_VERSION not in info.wire or not (known or info.used > info.quota):
        return None
    try:
        reply = await connection.call("leaving", LeavingRequest(clearing=b""), Leaving)
    except RefusedError as error:
        if error.code in ("bad-request", "not-found"):  # a build that is older than this question
            return None
        raise
    if reply.notice:
        name = connection.target.name
        try:
            notice = decode(Notice, verify(reply.notice, Context.NOTICE, [key]))
        except (FormatError, IntegrityError) as error:
            raise ProtocolError(name, f"what it says of leaving does not hold ({error})") from error
        if notice.tenant != tenant:
            raise ProtocolError(name, "what it says of leaving is for another tenant")
    return reply.notice


def in_words(name: str, notice: Notice) -> str:
    """Return a notice for people."""
    what = f"keeps no more than {format_size(notice.keeps)}" if notice.keeps else "keeps nothing"
    short = ""
    if notice.is_short:
        given, promised = (notice.by_ns - notice.said_ns) / NS / DAY_S, notice.promised_s / DAY_S
        short = f"; it says so {given:.0f} days before, and had promised {promised:.0f}"
    return f"{name} {what} of this tenant from {day_of(notice.by_ns)} on{short}"


def _place(identity: Identity) -> str:
    return f"notice of {identity.hex()}"
