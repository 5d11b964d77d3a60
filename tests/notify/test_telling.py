"""One message for each change of state: what is told, what is not told again, and what is told as over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.clock import HOUR_S, NS
from replicator.notify.alarms import CODES, LATE_S, Alarm, by_weight
from replicator.notify.memory import Memory
from replicator.notify.telling import (
    acknowledged,
    after_failure,
    after_telling,
    failing,
    look,
    news,
    only,
    waiting,
    write,
)
from tests.fakes import START_NS

STANDING = "Your data is safe as of then."


def alarm(code: str = "data.stale", about: str = "dataset photos", extent: int = 1) -> Alarm:
    return Alarm(code=code, about=about, what=f"{about}: trouble", todo="do it", extent=extent)


class Teller:
    """Nights of one channel: each is given what is so, and says what was told."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.now_ns = START_NS

    def night(self, *present: Alarm, hours: float = 24, works: bool = True) -> tuple[list[str], list[str]]:
        self.now_ns += round(hours * HOUR_S * NS)
        self.memory = look(self.memory, present, self.now_ns)
        said = news(self.memory, "mail", present, self.now_ns)
        if said and not works:
            self.memory = after_failure(self.memory, "mail", "no answer", self.now_ns)
        else:
            self.memory = after_telling(self.memory, "mail", said, present)
        return [one.code for one in said.raised], list(said.over)


def test_what_stays_is_told_once_and_its_end_is_told_once() -> None:
    nights = Teller()
    assert nights.night(alarm()) == (["data.stale"], [])
    for _ in range(30):
        assert nights.night(alarm()) == ([], [])
    assert nights.night() == ([], ["data.stale dataset photos"])
    assert nights.night() == ([], [])


def test_what_comes_back_is_new() -> None:
    nights = Teller()
    nights.night(alarm())
    nights.night()
    assert nights.night(alarm()) == (["data.stale"], [])


def test_what_comes_and_goes_with_a_friends_router_is_never_told() -> None:
    nights = Teller()
    flapping = alarm("data.below-promise")
    for _ in range(20):
        assert nights.night(flapping) == ([], [])
        assert nights.night() == ([], [])


def test_what_stays_longer_than_its_patience_is_told_then() -> None:
    nights = Teller()
    slow = alarm("data.below-promise")
    assert CODES[slow.code].patience_s == LATE_S == 36 * HOUR_S
    assert nights.night(slow) == ([], [])
    assert nights.night(slow, hours=35.9) == ([], [])
    assert waiting(nights.memory, [slow], nights.now_ns)[slow.key] == 360
    assert nights.night(slow, hours=0.2) == (["data.below-promise"], [])
    assert waiting(nights.memory, [slow], nights.now_ns) == {}


def test_a_clock_that_goes_back_makes_nobody_wait_for_ever() -> None:
    nights = Teller()
    slow = alarm("data.below-promise")
    nights.night(slow, hours=24 * 3650)
    nights.night(slow, hours=-24 * 3650)
    assert nights.night(slow, hours=36) == (["data.below-promise"], [])


def test_of_what_is_still_in_trouble_in_another_way_nobody_hears_that_it_is_well() -> None:
    nights = Teller()
    thin, thinner = alarm("data.below-promise"), alarm("data.below-minimum")
    assert nights.night(thinner) == (["data.below-minimum"], [])
    assert nights.night(thin) == ([], [])
    assert nights.night(thinner) == (["data.below-minimum"], []), "it got worse again"
    assert nights.night(thin) == ([], [])
    assert nights.night() == ([], ["data.below-minimum dataset photos"])


def test_a_channel_that_failed_is_told_the_same_again() -> None:
    nights = Teller()
    assert nights.night(alarm(), works=False) == (["data.stale"], [])
    assert nights.memory.failed["mail"].reason == "no answer"
    since_ns = nights.memory.failed["mail"].since_ns
    assert nights.night(alarm(), works=False) == (["data.stale"], [])
    assert nights.memory.failed["mail"].since_ns == since_ns
    [failed] = failing(nights.memory)
    assert (failed.code, failed.about) == ("notify.failed", "channel mail")
    assert nights.night(alarm()) == (["data.stale"], [])
    assert failing(nights.memory) == []
    assert nights.night(alarm()) == ([], [])


def test_channels_do_not_know_of_each_other_and_a_new_one_is_told_all() -> None:
    nights = Teller()
    nights.night(alarm())
    said = news(nights.memory, "ntfy", [alarm()], nights.now_ns)
    assert [one.code for one in said.raised] == ["data.stale"]
    assert only(nights.memory, ["ntfy"]).told == {}


def test_what_has_grown_to_more_than_twice_is_told_again() -> None:
    nights = Teller()
    assert nights.night(alarm("data.damaged", extent=3)) == (["data.damaged"], [])
    assert nights.night(alarm("data.damaged", extent=6)) == ([], [])
    assert nights.night(alarm("data.damaged", extent=7)) == (["data.damaged"], [])
    assert nights.night(alarm("data.damaged", extent=2)) == ([], [])


def test_what_is_known_is_not_told_until_there_is_more_of_it() -> None:
    nights = Teller()
    known = alarm("data.damaged", extent=3)
    nights.memory = acknowledged(look(nights.memory, [known], nights.now_ns), known, "the old disk", nights.now_ns)
    assert nights.night(known) == ([], [])
    assert nights.memory.known[known.key].note == "the old disk"
    assert nights.night(alarm("data.damaged", extent=2)) == ([], []), "less of it is known too"
    assert nights.night(alarm("data.damaged", extent=4)) == (["data.damaged"], [])
    assert not nights.memory.known


def test_what_is_known_and_was_told_rings_again_when_it_grows_by_one() -> None:
    nights = Teller()
    nights.night(alarm("data.damaged", extent=3))
    nights.memory = acknowledged(nights.memory, alarm("data.damaged", extent=3), "", nights.now_ns)
    assert nights.night(alarm("data.damaged", extent=4)) == (["data.damaged"], [])


def test_what_was_known_and_over_is_new_when_it_comes_back() -> None:
    nights = Teller()
    known = alarm("data.damaged", extent=3)
    nights.memory = acknowledged(look(nights.memory, [known], nights.now_ns), known, "", nights.now_ns)
    assert nights.night(known) == ([], [])
    assert nights.night() == ([], []), "of what nobody was told nobody hears that it is over"
    assert nights.night(known) == (["data.damaged"], [])


def test_a_look_that_was_not_whole_calls_nothing_over_and_forgets_nothing() -> None:
    nights = Teller()
    known = alarm("data.damaged", "provider bob", extent=3)
    nights.night(alarm())
    nights.memory = acknowledged(look(nights.memory, [alarm(), known], nights.now_ns), known, "", nights.now_ns)
    broken = [alarm("run.failed", "run backup")]
    memory = look(nights.memory, broken, nights.now_ns, whole=False)
    said = news(memory, "mail", broken, nights.now_ns, whole=False)
    assert ([one.code for one in said.raised], said.over) == (["run.failed"], ())
    nights.memory = after_telling(memory, "mail", said, broken, whole=False)
    assert nights.night(alarm(), known) == ([], ["run.failed run backup"]), "what was told and known is so still"


def test_a_message_says_what_happened_whether_the_data_is_safe_what_to_do_and_its_code() -> None:
    nights = Teller()
    present = [alarm("peer.silent", "provider bob"), alarm("data.damaged", "provider bob")]
    memory = look(Memory(), present, nights.now_ns)
    message = write(news(memory, "mail", present, nights.now_ns), who="attic", standing=STANDING)
    assert message.subject == "attic: provider bob: trouble (and 1 more)"
    assert message.codes == ("data.damaged", "peer.silent"), "the heaviest first"
    assert message.level == "red"
    for words in ("To do: do it.", "Code: data.damaged", present[1].id, STANDING, "docs/operate/alarms.md"):
        assert words in message.text
    told = after_telling(memory, "mail", news(memory, "mail", present, nights.now_ns), present)
    good = write(news(told, "mail", [], nights.now_ns), who="attic", standing=STANDING)
    assert (good.level, good.subject) == ("good", "attic: over: provider bob, provider bob")
    assert "Over: provider bob (data.damaged)." in good.text


def test_a_warning_alone_is_no_red_message() -> None:
    present = [alarm("peer.silent", "provider bob")]
    memory = look(Memory(), present, START_NS)
    assert write(news(memory, "mail", present, START_NS), who="attic", standing=STANDING).level == "warning"


@pytest.mark.parametrize("code", CODES)
def test_every_alarm_has_an_id_of_its_own(code: str) -> None:
    assert (
        len(
            {
                alarm(code).id,
                alarm(code, "dataset other").id,
                alarm("data.late" if code != "data.late" else "data.stale").id,
            }
        )
        == 3
    )


@given(st.lists(st.sets(st.sampled_from(["a", "b", "c"])), max_size=12))
def test_whatever_happens_a_person_who_reads_all_messages_knows_what_is_so(nights: list[set[str]]) -> None:
    teller, known = Teller(), set[str]()
    for night in nights:
        present = [alarm(about=about) for about in sorted(night)]
        before = set(teller.memory.told.get("mail", {}))
        raised, over = teller.night(*present)
        after = set(teller.memory.told["mail"])
        known = (known - {key.partition(" ")[2] for key in over}) | {key.partition(" ")[2] for key in after - before}
        assert known == night
        assert len(raised) + len(over) <= len(night) + len(before)


def test_alarms_are_told_the_heaviest_first() -> None:
    one, two, three = alarm("peer.silent"), alarm("data.stale"), alarm("data.integrity")
    assert by_weight([one, two, three]) == [three, two, one]
