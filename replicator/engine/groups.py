"""What a home knows of its group: kept in a file, swapped with providers at each contact, told when it is news.

Nothing here lets anybody in or counts on anybody: that takes the owner's word (:mod:`replicator.engine.joining`).
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from replicator.charter.group import Known, Seated, merge
from replicator.engine.home import Half
from replicator.errors import FormatError, HomeError, IntegrityError, PeerError, RefusedError
from replicator.format.codec import HASH_SIZE, decode, encode
from replicator.format.group import GroupFacts
from replicator.fs import write_atomic
from replicator.ids import Identity, identity_of
from replicator.wire.messages import PULLS_VERSION, GroupReply, GroupRequest

if TYPE_CHECKING:
    from replicator.engine.federation import Link

GROUP_FILE = "group.bin"
NO_GROUP = bytes(HASH_SIZE)


def member_of(half: Half) -> bytes:
    """Return which member a half's tenant would be in any group: its root decides, whatever owner key it names."""
    return identity_of(half.member.root_key)


def load_group(half: Half) -> Known | None:
    """Return what a half knows of its group, None if it is in none.

    Raises:
        HomeError: the file is damaged.
    """
    path = half.file(GROUP_FILE)
    if half.fs.size(path) is None:
        return None
    try:
        return merge(None, decode(GroupFacts, half.fs.read(path)).facts)
    except (FormatError, IntegrityError) as error:
        raise HomeError(
            f"{path}: damaged ({error})", hint="remove it: `replicator group show` asks for it again"
        ) from error


def keep_group(half: Half, known: Known) -> None:
    """Keep what is known of the group, together with what another process of this home has kept meanwhile."""
    before = load_group(half)
    if before is not None and before.group == known.group:
        known = merge(before, known.facts)
        if known.hashes == before.hashes:
            return
    write_atomic(half.fs, half.file(GROUP_FILE), encode(GroupFacts(facts=known.facts)))


async def swap_facts(half: Half, links: Mapping[Identity, "Link"]) -> list[str]:
    """Swap facts of the group with every provider that is in it, at the same time; return in words what is new here.

    What one tells is handed on to the others.
    """
    try:
        before = known = load_group(half)
    except HomeError as error:  # no reason to back nothing up
        return [f"{error.message}: {error.hint}"]
    if before is None or known is None:
        return []
    notices: list[str] = []
    told: dict[Identity, list[bytes]] = {}
    for _ in range(2):
        asked = [link for identity, link in links.items() if told.get(identity) != known.hashes]
        replies = await asyncio.gather(*(_swapped(link, known) for link in asked))
        for link, (found, problem) in zip(asked, replies, strict=True):
            told[link.identity] = found.hashes
            known = merge(known, found.facts)
            notices += problem
    if known.hashes != before.hashes:
        keep_group(half, known)
    pinned = {Identity(pin.identity) for pin in half.peers}
    return [*notices, *news(before, known, member_of(half), pinned)]


async def _swapped(link: "Link", known: Known) -> tuple[Known, list[str]]:
    """Return what is known after swapping facts with a provider, and what to say of it if that failed."""
    try:
        found, _ = await swap_with(link, known)
    except PeerError as error:
        silent = isinstance(error, RefusedError) and error.code in {"bad-request", "unsupported"}
        return known, [] if silent else [str(error)]
    except (FormatError, IntegrityError) as error:
        problem = f"what it tells of the group does not hold: {error}"
        link.problems.append(problem)
        return known, [f"{link.pin.name}: {problem}"]
    return found, []


async def swap_with(link: "Link", known: Known) -> tuple[Known, bool]:
    """Swap facts with one provider; return all that is known then, and whether that provider knows as much.

    One that is in no group, in another, or of an earlier build, tells nothing and knows nothing.

    Raises:
        PeerError: it does not answer, or refuses.
        IntegrityError, FormatError: what it tells does not hold.
    """
    if PULLS_VERSION not in link.info.wire:
        return known, False
    wanted: set[bytes] = set()
    for _ in range(3):
        bring = known.beside(set(known.hashes) - wanted)
        request = GroupRequest(group=known.group, have=b"".join(known.hashes), facts=bring)
        reply = await link.connection.call("group", request, GroupReply)
        if reply.group != known.group:
            return known, False
        known = merge(known, reply.facts)
        wanted = {reply.wanted[at : at + HASH_SIZE] for at in range(0, len(reply.wanted), HASH_SIZE)}
        if not wanted:
            return known, True
    return known, False


async def ask_group(half: Half, links: Iterable["Link"]) -> Known | None:
    """Ask providers which group this home's tenant is in, where the home does not know: it was recovered, or is new.

    What they say is believed as far as members signed it, one of whom is this tenant.
    """
    for link in links:
        if PULLS_VERSION not in link.info.wire:
            continue
        try:
            reply = await link.connection.call("group", GroupRequest(group=NO_GROUP, have=b"", facts=[]), GroupReply)
            if reply.group == NO_GROUP:
                continue
            known = merge(None, reply.facts, group=reply.group)
        except (PeerError, FormatError, IntegrityError):
            continue
        if known.word_of(member_of(half)) is not None:
            keep_group(half, known)
            return known
    return None


def waiting(known: Known, member: bytes, pinned: Collection[Identity]) -> list[Seated]:
    """Return the members whose providers this tenant might use and does not yet, each provider once."""
    found = {
        one.provider: one
        for one in reversed(known.members((member,)))
        if one.state == "in" and one.id != member and one.offer is not None and one.provider not in pinned
    }
    return list(reversed(found.values()))


def group_advice(half: Half) -> list[str]:
    """Return what a person has to do about the group, from what this home knows offline."""
    try:
        known = load_group(half)
    except HomeError as error:
        return [f"{error.message}: {error.hint}"]
    if known is None:
        return []
    member = member_of(half)
    pins = {Identity(pin.identity): pin.name for pin in half.peers}
    standing = {said.identity for said in half.private.standings}
    seats = known.members((member,))
    if any(one.id == member and one.state != "in" for one in seats):
        kept = sorted(pins[one.provider] for one in seats if one.provider in pins and one.provider not in standing)
        return (
            [f"this tenant is not in '{known.name}' any more: {', '.join(kept)} take nothing new of it"] if kept else []
        )
    found = []
    offered = [one.name for one in waiting(known, member, pins) if not one.expelled_by]
    if offered:
        found.append(
            f"{', '.join(offered)} of '{known.name}' offer disk: `replicator group accept` shows it, on the keeper"
        )
    gone = [
        (one.name, one.state, pins[one.provider])
        for one in seats
        if one.state != "in" and one.provider in pins and one.provider not in standing
    ]
    found += [
        f"'{name}' {'has left' if state == 'left' else 'is expelled from'} '{known.name}': `replicator peer set {peer} "
        "--state draining` has its copies made elsewhere"
        for name, state, peer in gone
    ]
    return found


def news(before: Known, after: Known, member: bytes, pinned: Collection[Identity]) -> list[str]:
    """Return in words what became of members since."""
    was = {one.id: one for one in before.members((member,))}
    now = {one.id: one for one in after.members((member,))}
    names = {one.id: one.name for one in now.values()}
    found = []
    for one in now.values():
        if one.id == member:
            continue
        old = was.get(one.id)
        if one.state == "in" and (old is None or old.state != "in"):
            by = names.get(one.invited_by, "somebody who is not known")
            found.append(f"{after.name}: '{one.name}' has joined, invited by '{by}'" + _offered(one, pinned))
        elif old is not None and old.state == "in" and one.state == "left":
            found.append(f"{after.name}: '{one.name}' has left" + _still_there(one, pinned))
        elif old is not None and old.state == "in" and one.state == "expelled":
            found.append(f"{after.name}: '{one.name}' is expelled" + _still_there(one, pinned))
        heard = {who for who, _ in old.expelled_by} if old is not None else set()
        for who, reason in one.expelled_by:
            if who not in heard | {member}:
                why = f" ({reason})" if reason else ""
                found.append(f"{after.name}: '{names.get(who, '?')}' has expelled '{one.name}'{why}")
    return found


def _offered(one: Seated, pinned: Collection[Identity]) -> str:
    if one.offer is None or one.provider in pinned:
        return ""
    return "; `replicator group accept` shows the disk that it offers"


def _still_there(one: Seated, pinned: Collection[Identity]) -> str:
    if one.provider not in pinned:
        return ""
    return "; its provider keeps what it has of yours: `replicator peer set PEER --state draining` makes other copies"
