"""A provider that leaves, shrinks, or gives one tenant up: what it says and takes, and that nothing is deleted."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.charter.verify import signed_hash
from replicator.cli.leaving import _document, _text
from replicator.clock import DAY_S, NS
from replicator.crypto.sign import Context, body_of, verify
from replicator.errors import HomeError, NotFoundError, UsageError
from replicator.format.codec import decode, encode
from replicator.format.merkle import name_of
from replicator.format.notice import Clearing, Notice
from replicator.ids import ObjectName
from replicator.provider.alarms import alarms_of
from replicator.provider.drain import emptying, shares
from replicator.wire.messages import Leaving, LeavingRequest, Signed
from tests.crashfs import Crash, CrashFs
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import MIB, SMALL, data_object, hire, put

LARGE = data_object(1, 2 * MIB)
NOTICE = 60 * DAY_S


def leave(
    stand: Stand, days: float, *, size: int | None = None, tenant: str | None = None, consent: bool = False
) -> bool:
    plan = stand.provider.plan_drain(tenant=tenant, size=size)
    by_ns = stand.clock.now_ns() + round(days * DAY_S * NS)
    return stand.provider.drain(plan, size=size, whole=tenant is None, by_ns=by_ns, consent=consent)


def claim(stand: Stand, *objects: bytes) -> None:
    names: list[bytes] = sorted(name_of(data) for data in objects)
    stand.node.claim(Signed(statement=stand.tenant.claim(stand.service.identity, 1, names)))


def ask(stand: Stand, clearing: bytes = b"") -> bytes:
    answer = stand.call("leaving", LeavingRequest(clearing=clearing))
    assert isinstance(answer, Leaving)
    return answer.notice


def say(stand: Stand, left: int, stuck: int, **changes: object) -> bytes:
    values: dict[str, object] = {
        "tenant": stand.tenant.id,
        "provider": stand.service.identity,
        "notice": signed_hash(ask(stand)),
        "left": left,
        "stuck": stuck,
        "said_ns": stand.clock.now_ns(),
    }
    return stand.tenant.node.sign(Context.CLEARING, encode(Clearing(**(values | changes))))  # type: ignore[arg-type]


def test_who_leaves_says_so_signed_takes_nothing_large_and_gives_out_everything(stand: Stand) -> None:
    put(stand.node, LARGE)
    assert ask(stand) == b""
    before = stand.node.info()
    assert not leave(stand, 30)
    signed = ask(stand)
    notice = decode(Notice, verify(signed, Context.NOTICE, [stand.provider.key.public]))
    assert (notice.tenant, notice.keeps, notice.is_short) == (stand.tenant.id, 0, False)
    assert notice.by_ns == stand.clock.now_ns() + 30 * DAY_S * NS
    info = stand.node.info()
    assert (info.quota, info.free, info.used) == (0, 0, before.used)
    assert refusal(lambda: put(stand.node, data_object(2, 2 * MIB))) == "quota"
    put(stand.node, data_object(3, SMALL))
    assert stand.node.get(ObjectName(name_of(LARGE))) == LARGE
    with pytest.raises(HomeError, match="leaves by"):
        stand.provider.invite(quota=MIB, label="late")
    stand.restart()
    assert ask(stand) == signed, "it holds over a restart"
    assert stand.provider.cancel_drain(None) == 1
    assert (ask(stand), stand.node.info().quota) == (b"", before.quota)
    put(stand.node, data_object(2, 2 * MIB))
    stand.provider.invite(quota=MIB, label="late")


def test_what_is_left_is_what_is_claimed_until_the_writer_says_otherwise(stand: Stand) -> None:
    put(stand.node, LARGE)
    claim(stand, LARGE)
    leave(stand, 30)

    def left() -> tuple[int, int, bool]:
        [one] = stand.provider.draining()[1]
        return one.left, one.stuck, bool(one.told_ns)

    assert left() == (2 * MIB, 0, False)
    ask(stand, say(stand, MIB, MIB // 2))
    assert left() == (MIB, MIB // 2, True)
    stand.clock.advance(DAY_S)
    older = say(stand, 5, 5, said_ns=stand.clock.now_ns() - DAY_S * NS - 1)
    ask(stand, say(stand, MIB // 4, 0))
    ask(stand, older)
    assert left() == (MIB // 4, 0, True), "an older word that comes late says nothing"
    [one] = stand.provider.draining()[1]
    done_s = (one.done_ns(stand.clock.now_ns()) - stand.clock.now_ns()) / NS
    assert done_s == pytest.approx(DAY_S / 7), "seven eighths took a day"
    leave(stand, 40)
    assert left() == (2 * MIB, 0, False), "it speaks of the notice before"
    assert stand.provider.draining()[1][0].began_ns == one.began_ns
    ask(stand, say(stand, 2 * MIB, 9 * MIB))
    assert left() == (2 * MIB, 2 * MIB, True), "no more than lies there"


def test_who_has_hardly_begun_is_late_by_a_date_that_can_be_written(stand: Stand) -> None:
    put(stand.node, LARGE)
    claim(stand, LARGE)
    leave(stand, 30)
    stand.clock.advance(DAY_S)
    ask(stand, say(stand, 2 * MIB - 1, 0))
    now_ns = stand.clock.now_ns()
    whole, found = stand.provider.draining()
    assert found[0].done_ns(now_ns) == now_ns + 36_525 * DAY_S * NS
    text = "\n".join(map(str, _text(whole, found, now_ns)))
    assert "at this pace it is done" in text
    assert _document(whole, found, now_ns)["tenants"][0]["done"]


@pytest.mark.parametrize("change", ["tenant", "provider", "notice"])
def test_a_word_about_something_else_is_refused(stand: Stand, change: str) -> None:
    leave(stand, 30)
    wrong = {"tenant": bytes(16), "provider": bytes(32), "notice": bytes(32)}[change]
    assert refusal(lambda: ask(stand, say(stand, 1, 0, **{change: wrong}))) in {"bad-request", "conflict"}
    keeper = say(stand, 1, 0)
    assert refusal(lambda: stand.keeper.leaving(LeavingRequest(clearing=keeper))) == "forbidden"
    stand.provider.cancel_drain(None)
    assert refusal(lambda: ask(stand, keeper)) == "conflict"


def test_a_notice_shorter_than_promised_needs_consent_and_is_said(stand: Stand) -> None:
    stand.provider.change_offer(notice_s=NOTICE)
    with pytest.raises(UsageError, match=r"this provider promises 60 days of notice, and these are 30") as caught:
        leave(stand, 30)
    assert "--yes" in caught.value.hint
    assert ask(stand) == b""
    with pytest.raises(UsageError, match="that day is over"):
        leave(stand, 0, consent=True)
    assert not leave(stand, 61)
    stand.clock.advance(10 * DAY_S)
    assert not leave(stand, 51), "the same day again is no shorter"
    with pytest.raises(UsageError, match="50"):
        leave(stand, 50)
    assert leave(stand, 30, consent=True)
    assert decode(Notice, body_of(ask(stand))).is_short


def test_a_longer_notice_that_was_promised_before_holds_until_it_has_run_out(stand: Stand) -> None:
    stand.provider.change_offer(notice_s=NOTICE)
    stand.clock.advance(DAY_S)
    stand.provider.change_offer(notice_s=NOTICE // 6)
    stand.provider.change_offer(notice_s=0)
    with pytest.raises(
        UsageError, match="an earlier word of this provider promises 60 days of notice, and these are 59"
    ):
        leave(stand, 59)
    stand.clock.advance(20 * DAY_S)
    stand.provider = stand.house.open()
    with pytest.raises(UsageError, match="promises 40 days"):
        leave(stand, 39)
    assert leave(stand, 39, consent=True)
    assert decode(Notice, body_of(ask(stand))).is_short
    assert stand.provider.cancel_drain(None) == 1
    assert not leave(stand, 41)
    assert not decode(Notice, body_of(ask(stand))).is_short
    assert stand.provider.cancel_drain(None) == 1
    stand.clock.advance(40 * DAY_S)
    assert not leave(stand, 1), "it has run out"


def test_who_was_erased_meanwhile_is_in_no_list_and_no_hindrance(stand: Stand) -> None:
    plan = stand.provider.plan_drain(tenant=None, size=None)
    stand.service.erase(stand.tenant.erase_order())
    by_ns = stand.clock.now_ns() + 90 * DAY_S * NS
    assert not stand.provider.drain(plan, size=None, whole=True, by_ns=by_ns, consent=False)
    assert stand.provider.draining()[1] == []
    assert emptying(stand.provider._database, {stand.tenant.id: (0, by_ns)}) == []
    assert stand.provider.cancel_drain(None) == 0, "something was said, and to nobody"
    assert stand.provider.cancel_drain(None) is None


def test_stopped_while_it_is_said_nothing_is_said_and_it_can_be_said_again(tmp_path: Path) -> None:
    fs = CrashFs(str(tmp_path / "graveyard"))
    stand = Stand(str(tmp_path), fs)
    fs.errors["commit drain"] = Crash("here")
    with pytest.raises(Crash):
        leave(stand, 30)
    fs.errors.clear()
    assert (ask(stand), stand.provider.draining()) == (b"", (None, []))
    leave(stand, 30)
    fs.errors["commit clearing"] = Crash("here")
    with pytest.raises(Crash):
        ask(stand, say(stand, 1, 0))
    fs.errors.clear()
    assert stand.provider.draining()[1][0].told_ns == 0
    stand.provider.close()
    fs.close()


def test_a_provider_put_back_from_before_it_said_so_says_nothing_in_a_new_incarnation(
    stand: Stand, tmp_path: Path
) -> None:
    put(stand.node, LARGE)
    before = stand.service.incarnation
    stand.service.stop()
    stand.provider.close()
    shutil.copytree(stand.provider.folder, tmp_path / "backup")
    stand.provider = stand.house.open()
    stand.service = stand.provider.start()
    leave(stand, 30)
    stand.service.stop()
    stand.provider.close()
    shutil.rmtree(stand.provider.folder)
    shutil.copytree(tmp_path / "backup", stand.provider.folder)
    stand.provider = stand.house.open()
    stand.service = stand.provider.start()
    assert stand.service.incarnation != before
    assert (ask(stand), stand.provider.draining()) == (b"", (None, []))
    assert stand.node.get(ObjectName(name_of(LARGE))) == LARGE


def test_one_tenant_is_told_alone_and_who_comes_later_to_one_that_leaves_gets_nothing(stand: Stand) -> None:
    with pytest.raises(NotFoundError, match="no tenant 'nobody'"):
        leave(stand, 30, tenant="nobody")
    leave(stand, 30, tenant=stand.tenant.id.hex()[:8])
    assert ask(stand)
    assert stand.provider.draining()[0] is None
    stand.provider.invite(quota=MIB, label="others are welcome")
    stand.provider.cancel_drain(stand.tenant.id.hex())
    leave(stand, 30)
    stand.provider._database.write(
        "late", lambda connection: connection.execute("DELETE FROM drains WHERE tenant != x''")
    )
    assert (ask(stand), stand.node.info().quota) == (b"", 0)


def test_of_whom_it_is_taken_back_alone_stays_while_the_others_leave(stand: Stand) -> None:
    put(stand.node, LARGE)
    claim(stand, LARGE)
    before = stand.node.info().quota
    leave(stand, 30)
    began_ns = stand.clock.now_ns()
    assert stand.provider.cancel_drain(stand.tenant.id.hex()) == 1
    assert (ask(stand), stand.node.info().quota) == (b"", before)
    whole, others = stand.provider.draining()
    assert (whole is not None, others) == (True, [])
    put(stand.node, data_object(2, 2 * MIB))
    assert stand.provider.cancel_drain(stand.tenant.id.hex()) is None
    stand.clock.advance(DAY_S)
    leave(stand, 30)
    [one] = stand.provider.draining()[1]
    assert (bool(ask(stand)), stand.node.info().quota, one.began_ns > began_ns) == (True, 0, True), "and anew"
    stand.provider.cancel_drain(stand.tenant.id.hex())
    assert stand.provider.cancel_drain(None) == 0
    assert (stand.provider.draining(), stand.node.info().quota) == ((None, []), before)


def test_who_shrinks_shares_out_what_stays(stand: Stand) -> None:
    put(stand.node, LARGE)
    claim(stand, LARGE)
    with pytest.raises(UsageError, match="no less than"):
        leave(stand, 30, size=stand.provider.offer().capacity)
    leave(stand, 30, size=MIB)
    notice = decode(Notice, body_of(ask(stand)))
    assert (notice.keeps, stand.node.info().quota) == (MIB, MIB)
    [one] = stand.provider.draining()[1]
    assert (one.left, one.began) == (MIB, MIB)


def test_nothing_is_deleted_on_the_day_nor_after_it_and_the_operator_is_told_what_would_be_lost(stand: Stand) -> None:
    hire(stand.service, stand.tenant)
    put(stand.node, LARGE)
    claim(stand, LARGE)
    [(lock,)] = stand.provider._database.rows("SELECT max(lock_until_ns) FROM objects")
    leave(stand, 10)
    ask(stand, say(stand, 2 * MIB, MIB))
    assert "drain.stuck" in {one.code for one in alarms_of(stand.provider.state())}
    for _ in range(50):
        stand.clock.advance(DAY_S)
        stand.service.sweep()
    assert stand.node.get(ObjectName(name_of(LARGE))) == LARGE
    assert stand.provider._database.rows("SELECT max(lock_until_ns) FROM objects") == [(lock,)]
    [late] = [one for one in alarms_of(stand.provider.state()) if one.code == "drain.late"]
    assert "2.1 MB are not elsewhere" in late.what
    ask(stand, say(stand, 0, 0))
    assert not {"drain.late", "drain.stuck"} & {one.code for one in alarms_of(stand.provider.state())}


def test_an_erased_tenant_leaves_nothing_of_what_was_said(stand: Stand) -> None:
    put(stand.node, LARGE)
    claim(stand, LARGE)
    leave(stand, 30, tenant=stand.tenant.id.hex())
    ask(stand, say(stand, 1, 0))
    stand.service.erase(stand.tenant.erase_order())
    assert stand.provider.draining() == (None, [])
    assert stand.provider._database.rows("SELECT * FROM clearings") == []


def test_a_quota_set_afterwards_holds_at_once_and_not_against_what_is_declared(stand: Stand) -> None:
    put(stand.node, LARGE)
    stand.provider.set_quota(stand.tenant.id.hex()[:10], MIB)
    assert (stand.node.info().quota, stand.node.info().free) == (MIB, 0)
    assert stand.node.get(ObjectName(name_of(LARGE))) == LARGE
    assert refusal(lambda: put(stand.node, data_object(2))) == "quota"


def test_a_database_of_a_version_before_gets_the_tables(stand: Stand) -> None:
    stand.service.stop()
    stand.provider.close()
    with sqlite3.connect(os.path.join(stand.provider.folder, "provider.db")) as connection:
        for table in ("drains", "clearings", "receipts"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    stand.provider = stand.house.open()
    stand.service = stand.provider.start()
    leave(stand, 30)
    assert ask(stand)


AMOUNT = st.integers(0, 1000)


@given(AMOUNT, st.dictionaries(st.binary(min_size=1, max_size=1), st.tuples(AMOUNT, AMOUNT), max_size=6))
def test_shares_fit_and_nobody_gives_up_what_could_stay(size: int, tenants: dict[bytes, tuple[int, int]]) -> None:
    found = shares(size, tenants)
    used = {name: used for name, (used, _) in tenants.items()}
    assert found.keys() == tenants.keys()
    assert sum(found.values()) <= size
    assert all(found[name] <= max(tenants[name]) for name in found)
    if sum(used.values()) <= size:
        assert all(found[name] >= used[name] for name in found), "nobody has to move anything"
    else:
        assert sum(found.values()) > size - len(tenants), "what stays is used"
        assert all(found[name] <= used[name] for name in found)
    for one, (_, weight) in tenants.items():
        for other, (_, heavier) in tenants.items():
            if found[one] < used[one] and weight <= heavier and found[other] < used[other]:
                assert found[one] <= found[other] + 1, "by quota"
