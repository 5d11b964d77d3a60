"""A provider's home: made whole or not at all, private, its invites and its offer."""

import contextlib
import dataclasses
import json
import os
import stat

import pytest

from replicator.clock import DAY_S, NS
from replicator.crypto.sign import Context, verify
from replicator.errors import HomeError, KeyMissingError, NotFoundError, UsageError
from replicator.format.codec import decode
from replicator.format.codes import read_code
from replicator.format.offer import Invite, Offer, decode_offer
from replicator.provider.home import init_provider
from tests.crashfs import Crash, CrashFs
from tests.fakes import SeededRng
from tests.provider.stand import Stand
from tests.provider.tenant import MIB, House, Tenant, enrol, terms


@pytest.fixture
def house(tmp_path: str) -> House:
    return House(str(tmp_path))


def _file(house: House, name: str = "home.json") -> str:
    return os.path.join(house.home, "provider", name)


def test_a_new_home_is_private_and_has_an_offer(house: House) -> None:
    provider = house.init(lock_s=60, advertise=("backup.example:7710", "[2001:db8::1]:7710"))
    offer = provider.offer()
    assert offer == Offer(
        provider_key=provider.key.public,
        number=1,
        endpoints=["backup.example:7710", "[2001:db8::1]:7710"],
        capacity=1000 * MIB,
        owner="alice",
        site="cellar",
        region="umea",
        country="SE",
        lock_s=60,
        grace_s=14 * DAY_S,
        wire=[1],
        created_ns=house.clock.now_ns(),
    )
    for folder, _, files in os.walk(house.path):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700 or folder == house.path
        for name in files:
            assert stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode) == 0o600, name
    provider.close()


def test_nothing_but_the_store_lies_in_the_data_folder(stand: Stand) -> None:
    assert sorted(os.listdir(stand.house.data)) == [".generation", ".replicator-store", stand.tenant.id.hex()]
    for folder, _, files in os.walk(os.path.join(stand.house.data, stand.tenant.id.hex())):
        for name in files:
            assert len(name) == 64, folder


def test_a_home_is_opened_as_it_was_made(house: House) -> None:
    provider = house.init()
    key, offer = provider.key.public, provider.offer()
    provider.close()
    again = house.open()
    assert (again.key.public, again.offer(), again.listen) == (key, offer, "127.0.0.1:7710")
    again.close()


def test_a_home_is_made_once_and_a_data_folder_has_one_provider(house: House, tmp_path: str) -> None:
    provider = house.init()
    with pytest.raises(HomeError, match="already"):
        house.init()
    provider.start().stop()
    provider.close()
    with pytest.raises(HomeError, match="belongs to a provider already") as caught:
        init_provider(
            os.path.join(tmp_path, "second"),
            data=house.data,
            terms=terms(),
            fs=house.fs,
            clock=house.clock,
            rng=house.rng,
        )
    assert caught.value.hint


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("country", "Sweden"),
        ("owner", ""),
        ("site", "x" * 65),
        ("capacity", -1),
        ("lock_s", -1),
        ("listen", "here"),
        ("advertise", ("::1:80",)),
    ],
)
def test_terms_that_no_offer_can_have_are_refused_before_anything_is_written(
    house: House, field: str, value: object
) -> None:
    with pytest.raises(UsageError, match="these terms cannot be offered"):
        house.init(**{field: value})
    assert os.listdir(house.path) == []


def test_an_interrupted_init_can_be_repeated(house: House) -> None:
    """Stopped at any step, by a kill or a power cut: there is a whole home, or init makes one."""
    fs = CrashFs(os.path.join(house.path, "graveyard"))
    dataclasses.replace(house, path=os.path.join(house.path, "count"), fs=fs).init().close()
    fs.close()
    for stop in range(len(fs.steps) + 1):
        for loss in (None, frozenset[str](), frozenset({"home.json"})):
            path = os.path.join(house.path, f"{stop} {'killed' if loss is None else sorted(loss)}")
            fs = CrashFs(os.path.join(house.path, "graveyard"))
            fs.stop_at(stop)
            made = dataclasses.replace(house, path=path, fs=fs, rng=SeededRng(1))
            with contextlib.suppress(Crash):
                made.init().close()
            if loss is not None:
                kept = loss
                fs.power_loss(keep=lambda entry, kept=kept: os.path.basename(entry) in kept, torn=True)  # type: ignore[misc]
            fs.close()
            after = House(path, rng=SeededRng(2))
            try:
                provider = after.open()
            except KeyMissingError:
                provider = after.init()
            service = provider.start()
            enrol(provider, service, Tenant("first"))
            service.stop()
            provider.close()


def test_a_home_that_is_not_there_damaged_or_newer_is_refused_with_what_to_do(house: House) -> None:
    with pytest.raises(KeyMissingError, match="no provider lives here") as absent:
        house.open()
    assert "provider init" in absent.value.hint
    house.init().close()
    with open(_file(house)) as file:
        settings = json.load(file)
    assert (settings["format"], settings["role"]) == (1, "provider")
    for text, message in (
        ("{", "damaged"),
        ("[]", "damaged"),
        (json.dumps(settings | {"format": 2}), "format 2"),
        (json.dumps(settings | {"data": 5}), "damaged"),
        (json.dumps(settings | {"colour": "red"}), "damaged"),
    ):
        with open(_file(house), "w") as file:
            file.write(text)
        with pytest.raises(HomeError, match=message) as caught:
            house.open()
        assert caught.value.hint


def test_a_key_that_others_can_read_that_is_gone_or_cut_is_refused(house: House) -> None:
    house.init().close()
    for name in ("identity.seed", "identity.pem"):
        os.chmod(_file(house, name), 0o640)
        with pytest.raises(HomeError, match="others can read") as caught:
            house.open()
        assert "chmod 600" in caught.value.hint
        os.chmod(_file(house, name), 0o600)
    os.truncate(_file(house, "identity.seed"), 31)
    with pytest.raises(HomeError, match="not a key"):
        house.open()
    os.unlink(_file(house, "identity.seed"))
    with pytest.raises(HomeError, match="missing"):
        house.open()


def test_an_invite_carries_all_that_a_tenant_needs_and_is_not_stored(house: House) -> None:
    provider = house.init()
    code = provider.invite(quota=5 * MIB, label="bob")
    invite = decode(Invite, read_code("invite", code))
    assert invite.identity == provider.key.identity
    assert invite.endpoints == ["127.0.0.1:7710"]
    assert invite.quota == 5 * MIB
    assert invite.expires_ns == house.clock.now_ns() + 7 * DAY_S * NS
    provider.close()
    for folder, _, files in os.walk(house.path):
        for name in files:
            with open(os.path.join(folder, name), "rb") as file:
                assert invite.secret not in file.read(), name


def test_invites_are_listed_with_their_state(stand: Stand) -> None:
    stand.clock.advance(1)
    stand.provider.invite(quota=MIB, label="open")
    stand.provider.invite(quota=MIB, label="revoked")
    by_label = {invite.label: invite for invite in stand.provider.invites()}
    assert by_label["stand"].state == "used"
    assert by_label["stand"].tenant == stand.tenant.id.hex()
    stand.provider.revoke_invite(by_label["revoked"].id)
    stand.clock.advance(8 * DAY_S)
    states = {invite.label: invite.state for invite in stand.provider.invites()}
    assert states == {"stand": "used", "open": "expired", "revoked": "revoked"}


@pytest.mark.parametrize("wrong", ["", "zz", "00"])
def test_only_an_open_invite_can_be_revoked(house: House, wrong: str) -> None:
    provider = house.init()
    provider.invite(quota=MIB, label="")
    with pytest.raises(NotFoundError):
        provider.revoke_invite(wrong)
    found = provider.invites()[0]
    provider.revoke_invite(found.id)
    with pytest.raises(NotFoundError):
        provider.revoke_invite(found.id)
    provider.close()


@pytest.mark.parametrize("quota", [0, -1, 1000 * MIB + 1])
def test_an_invite_is_worth_something_and_no_more_than_is_offered(house: House, quota: int) -> None:
    provider = house.init()
    with pytest.raises(UsageError, match="quota"):
        provider.invite(quota=quota, label="")
    provider.close()


def test_a_changed_offer_has_the_next_number_and_an_unchanged_one_has_not(house: House) -> None:
    provider = house.init()
    house.clock.advance(60)
    assert provider.change_offer(capacity=1000 * MIB).number == 1
    changed = provider.change_offer(capacity=5 * MIB, country="NO")
    assert (changed.number, changed.capacity, changed.country) == (2, 5 * MIB, "NO")
    assert changed.created_ns == house.clock.now_ns()
    assert provider.offer() == changed
    with pytest.raises(UsageError):
        provider.change_offer(country="Norway")
    assert provider.offer() == changed
    provider.close()


def test_the_offer_follows_where_it_listens_unless_an_address_is_advertised(house: House) -> None:
    provider = house.init(listen="127.0.0.1:0")
    provider.listening_on("127.0.0.1:4711")
    assert (provider.offer().endpoints, provider.offer().number) == (["127.0.0.1:4711"], 2)
    provider.listening_on("127.0.0.1:4711")
    assert provider.offer().number == 2
    provider.change_offer(endpoints=["backup.example:443"])
    provider.listening_on("127.0.0.1:4712")
    assert provider.offer().endpoints == ["backup.example:443"]
    provider.close()


def test_where_others_reach_it_can_be_said_and_taken_back(house: House) -> None:
    provider = house.init(listen="192.0.2.1:7144")
    provider.advertise(["new.example:7144", "new.example:7144", "[2001:db8::1]:7144"])
    assert provider.offer().endpoints == ["new.example:7144", "[2001:db8::1]:7144"]
    provider.listening_on("192.0.2.1:7145")
    assert provider.offer().number == 2, "what is advertised stays"
    for bad in (["nowhere"], ["via:x@y:1"], [f"h{n}.example:1" for n in range(9)]):
        with pytest.raises(UsageError):
            provider.advertise(bad)
    provider.advertise([])
    assert (provider.offer().endpoints, provider.offer().number) == (["192.0.2.1:7144"], 3)
    provider.listening_on("192.0.2.1:7145")
    assert provider.offer().endpoints == ["192.0.2.1:7145"]
    provider.close()


def test_status_tells_rows_and_disk(stand: Stand) -> None:
    status = stand.provider.status()
    assert status["identity"] == stand.provider.key.identity.hex()
    assert status["mounted"] is True
    assert status["used"] == status["tenants"][0]["used"] == 2 * 65536
    assert status["tenants"][0]["objects"] == 2
    assert status["tenants"][0]["charter"] == 1
    assert status["disk_reserve"] == 50 * MIB
    assert status["disk_free"] > 0
    assert status["offer"]["capacity"] == 1000 * MIB
    assert [invite["state"] for invite in status["invites"]] == ["used"]
    json.dumps(status)


def test_the_served_offer_is_signed(stand: Stand) -> None:
    signed = stand.node.info().offer
    assert decode_offer(verify(signed, Context.OFFER, [stand.provider.key.public])) == stand.provider.offer()
