from typing import Any

import msgspec
import pytest
from rich.pretty import pretty_repr

from replicator.errors import UnsupportedVersionError
from replicator.format.codec import encode, version_of
from replicator.format.offer import decode_offer, encode_offer
from tests.format.samples import INVITE, OFFER, OFFER_1, OFFER_2, accepted, refused
from tests.format.test_charter import NOT_PLAIN


@pytest.mark.parametrize(
    ("record", "field", "bad", "good"),
    [
        (OFFER, "provider_key", (bytes(31),), (bytes(32),)),
        (OFFER, "number", (0,), (1,)),
        (OFFER, "capacity", (-1,), (0, 10**15)),
        (OFFER, "owner", NOT_PLAIN, ("bo",)),
        (OFFER, "region", NOT_PLAIN, ("umeå",)),
        (OFFER, "country", ("", "SE\n", "se", "SEE"), ("SE",)),
        (OFFER, "endpoints", (["\x1b[2J:1"], ["a b"]), ([], ["a:1"])),
        (OFFER, "lock_s", (-1, 10 * 366 * 86400 + 1), (0,)),
        (OFFER, "legal_name", ("a\n", "\x1b", "x" * 201), ("", "Bo Ek AB", "x" * 200)),
        (OFFER, "contact", ("\u202ea",), ("", "+46 1")),
        (INVITE, "secret", (bytes(15), bytes(17)), (bytes(16),)),
        (INVITE, "identity", (bytes(16),), (bytes(32),)),
        (INVITE, "expires_ns", (-1,), (0,)),
    ],
)
def test_limits(record: Any, field: str, bad: tuple[Any, ...], good: tuple[Any, ...]) -> None:
    for value in bad:
        refused(record, **{field: value})
    for value in good:
        accepted(record, **{field: value})


def test_an_invite_shows_whose_it_is_and_never_its_secret() -> None:
    for shown in (repr(INVITE), str(INVITE), pretty_repr(INVITE)):
        assert INVITE.identity.hex() in shown
        assert INVITE.secret.hex() not in shown
        assert repr(INVITE.secret)[2:-1] not in shown


def test_an_offer_of_every_version_is_read_and_the_earliest_one_is_written_that_says_all() -> None:
    named = msgspec.structs.replace(OFFER, notice_s=0)
    silent = msgspec.structs.replace(named, legal_name="", contact="")
    assert [decode_offer(encode(one)) for one in (OFFER, OFFER_2, OFFER_1)] == [OFFER, named, silent]
    assert (encode_offer(OFFER), encode_offer(named)) == (encode(OFFER), encode(OFFER_2))
    assert encode_offer(silent) == encode(OFFER_1)
    for said in ({"legal_name": ""}, {"contact": ""}):
        assert version_of(encode_offer(msgspec.structs.replace(named, **said))) == 2
    assert version_of(encode_offer(msgspec.structs.replace(silent, notice_s=1))) == 3
    with pytest.raises(UnsupportedVersionError):
        decode_offer(encode(OFFER).replace(b"\x03", b"\x04", 1))
