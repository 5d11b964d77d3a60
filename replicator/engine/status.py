"""Is my data safe, as of when, and what is to be done."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from replicator.catalog.snapshots import SnapshotRow
from replicator.clock import HOUR_S, NS
from replicator.config import counted, format_size
from replicator.engine.audit import Audited, PeerView, audited, looked_for, survey
from replicator.engine.beside import BesideState, besides
from replicator.engine.clearing import left_at
from replicator.engine.digest import Deletions, digest, heard_deletions, remember_deletions
from replicator.engine.drills import drill_advice, drills, known_datasets
from replicator.engine.edge import Edge
from replicator.engine.extra import Extra, extras, overdue
from replicator.engine.federation import Federation
from replicator.engine.findings import Findings, KeptFinding, advice_for, in_words
from replicator.engine.forgetting import without_forgotten
from replicator.engine.freshness import Sighting, freshness
from replicator.engine.givenup import given_up
from replicator.engine.groups import group_advice
from replicator.engine.heads import KnownHead
from replicator.engine.home import ERASURE_FILE, Half
from replicator.engine.notices import in_words as notice_in_words
from replicator.engine.notices import notice_of
from replicator.engine.placing import PACK_KINDS, Ground, debts_in_words, objects_of, pack_id, peer_id, thin_in_words
from replicator.engine.printed import address_advice
from replicator.engine.roots import Announced, announced
from replicator.engine.sync import sync_all
from replicator.engine.ways import Relay, behind, relays
from replicator.errors import HomeError
from replicator.format.charter import PeerPin
from replicator.format.drill import Drill
from replicator.format.policy import at_least_as_strong, coding_in_words
from replicator.ids import Identity, identity_of, short
from replicator.notify.alarms import LATE_S, STALE_S

ADOPTED = "(snapshots from an earlier life of this home)"
State = Literal["safe", "below promise", "below minimum", "damaged", "stale", "waiting", "unknown", "nothing yet"]
"""Unknown: this home has asked nobody yet who holds the newest of it."""


@dataclass(slots=True, kw_only=True)
class DatasetStatus:
    """How one dataset stands. ``copies`` is the fewest copies that any of its objects has now.

    Of packs that are cut into shards, so many as survive the loss of the same number of peers.
    """

    id: str
    name: str
    state: State
    newest_ns: int = 0
    newest_snapshot: str = ""
    files: int = 0
    bytes: int = 0
    copies: int = 0
    promised: int = 0
    minimum: int = 0
    coding: str = ""
    objects: int = 0
    stored_bytes: int = 0
    debt: int = 0
    """Objects with fewer copies than promised."""
    late: bool = False
    """It should have a newer snapshot by now."""
    unasked: bool = False
    """Who holds the newest snapshot is not known: this home has asked nobody since it heard of it."""
    gaps: list[str] = field(default_factory=list)
    age_s: int = 0
    """Of the newest snapshot."""
    witnesses: list[Sighting] = field(default_factory=list)
    """Who has seen it."""
    warnings: list[str] = field(default_factory=list)
    """What speaks against there being nothing newer: too few witnesses, providers that are behind."""
    relays: list[str] = field(default_factory=list)
    """Relays without which the newest snapshot could not be read: some of it is reached through that one alone."""


@dataclass(slots=True, kw_only=True)
class PeerStatus:
    """How one provider stands."""

    id: str
    name: str
    owner: str
    site: str
    region: str
    country: str
    reachable: bool
    contacted_ns: int
    reached: str = ""
    """Where it answers: "host:port", or "via:RELAY@host:port"; of one that was not asked, what is tried first."""
    behind: list[str] = field(default_factory=list)
    """The relays, one of which it takes to reach it; empty: it is dialled itself."""
    objects: int = 0
    bytes: int = 0
    free: int = 0
    missing: int = 0
    damaged: int = 0
    probes: int = 0
    proved: int = 0
    wrong: int = 0
    absent: int = 0
    late: int = 0
    """Of the proofs that were asked for now; wrong, absent and late are told apart as in an audit."""
    spoilt: list[str] = field(default_factory=list)
    """What recovery begins with and is damaged there: "charter", "keybag"."""
    week: Audited | None = None
    """What it proved within the last week."""
    silent_s: int = 0
    """Since when it has not answered whoever asked it from here."""
    stands: str = "answers"
    """How it is taken in plans, in a word of :mod:`scheduler.standing`."""
    leaves_ns: int = 0
    """From when on it keeps no more than ``keeps`` bytes, as it said itself; 0: it said nothing."""
    keeps: int = 0
    leaving: str = ""
    """The same in words, with whether it said so later than promised."""
    left: int = 0
    """Bytes there that keep their promise only with it, where it leaves; ``stuck``: of these without other place."""
    stuck: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class SurplusAt:
    """What one provider has beyond the promise: copies that still count, and ``released`` ones, which were given up."""

    id: str
    name: str
    objects: int = 0
    bytes: int = 0
    released: int = 0
    released_bytes: int = 0


@dataclass(slots=True, kw_only=True)
class Status:
    """The whole answer. ``as_of_ns`` is when peers were asked; ``exit_code`` as in design: 0, 3, 4 or 5."""

    tenant: str
    as_of_ns: int
    asked: bool
    datasets: list[DatasetStatus]
    peers: list[PeerStatus]
    problems: list[str]
    notices: list[str]
    advice: list[str]
    spooled_bytes: int
    exit_code: int
    drills: list[Drill] = field(default_factory=list)
    """The newest trial restore of each dataset that was made here."""
    undrilled: list[str] = field(default_factory=list)
    """Datasets that no trial restore was made of, as far as this home knows their names."""
    integrity: list[str] = field(default_factory=list)
    """Of the problems those that are integrity failures."""
    findings: list[KeptFinding] = field(default_factory=list)
    """Evidence that nobody has acknowledged."""
    found: list[str] = field(default_factory=list)
    """The findings in words, in the same order."""
    acknowledged: list[str] = field(default_factory=list)
    """Findings that somebody has acknowledged, in words: they stay."""
    roots: list[Announced] = field(default_factory=list)
    """Other roots that are announced to follow this one."""
    extras: list[Extra] = field(default_factory=list)
    """Copies in plain folders and buckets, which count for nothing."""
    besides: dict[str, BesideState] = field(default_factory=dict)
    """How archives of Borg beside datasets stand, by dataset. They are no copies."""
    late: dict[str, str] = field(default_factory=dict)
    """Of the problems those of archives beside, by dataset."""
    deletions: list[Deletions] = field(default_factory=list)
    """What is marked for deletion at providers, or went lately; as last heard if nobody was asked."""
    deletions_ns: int = 0
    """When that was heard; 0: never."""
    surplus: list[SurplusAt] = field(default_factory=list)
    """Providers with copies beyond the promise."""


async def status(half: Half, edge: Edge, *, keeper: Half | None = None, offline: bool = False) -> Status:
    """Return how things stand, after asking every peer what it holds and for proof; ``offline`` asks nobody.

    Nothing in here trusts the catalog where a peer can be asked: an object counts only where the peer's present
    inventory lists it with its size, no proof of it failed, and the store is the one that gave the receipt. ``keeper``
    is the half beside a node's that makes the drills.
    """
    keeper = half if half.role in {"keeper", "drill"} else keeper
    federation = Federation(half, edge)
    if offline:
        found = _judge(half, keeper, edge, federation, {}, {}, asked=False)
        found.deletions_ns, found.deletions = heard_deletions(half)
        return found
    async with federation:
        heads = await sync_all(half, federation)
        views = await survey(half, federation, edge)
        deletions = await digest(federation, half.charter.root.floors)
        found = _judge(half, keeper, edge, federation, views, heads, asked=True)
        found.deletions, found.deletions_ns = deletions, edge.clock.now_ns()
        remember_deletions(half, deletions, found.deletions_ns)
        return found


def _judge(
    half: Half,
    keeper: Half | None,
    edge: Edge,
    federation: Federation,
    views: dict[bytes, PeerView],
    heads: dict[bytes, KnownHead],
    *,
    asked: bool,
) -> Status:
    ground = Ground(half, federation)
    ground.refresh()
    answering = Ground(half, federation, lost_now=True, held=ground.held) if asked else ground
    now = edge.clock.now_ns()
    peers_now = {pin.identity for pin in half.peers}  # who was removed is asked no more, and heals nothing
    damaged = {
        holding.object_id
        for holding in half.catalog.objects.holdings()
        if holding.state == "damaged" and holding.peer in peers_now
    }
    groups = _groups(half)
    ended = {
        short(identity_of(right.holder_key)) for right in half.charter.charter.rights if right.revoked
    }  # nobody waits for anything newer of theirs
    unseen = set() if asked else _unseen(half, groups)
    between = relays(half)
    datasets = [
        _dataset(
            *(half, ground, answering, key, name, rows, damaged, now, unseen, between),
            awaited=bool(key) and key not in ended,
        )
        for key, name, rows in groups
    ]
    for one, (_, _, rows) in zip(datasets, groups, strict=True):
        _witnessed(half, one, rows, heads, now)
    kept_findings = [(kept, in_words(half, kept.finding)) for kept in Findings(half).all()]
    findings = [kept for kept, _ in kept_findings if not kept.noted_ns]
    words = [text for kept, text in kept_findings if not kept.noted_ns]
    for kept, said in zip(findings, words, strict=True):
        text = f"{said} (finding {kept.id})"
        told = federation.integrity if kept.open else federation.notices
        if text not in told:
            told.append(text)
    if asked:
        _unclaimed(half, federation, ground)
    week = audited(half, now)
    peers = [_peer(half, federation, pin_identity, views) for pin_identity in _identities(half)]
    for peer, pin in zip(peers, half.peers, strict=True):
        peer.week = week.get(peer.id)
        peer.stands = ground.standing(pin, now).word
        since_ns = half.catalog.peers.get(Identity(pin.identity)).failing_since_ns
        peer.silent_s = max(0, now - since_ns) // NS if since_ns else 0
        _leaving(half, ground, peer, pin)
        if peer.stands == "gone" and peer.reachable:
            federation.notices.append(
                f"{peer.name} was said to be gone and answers: `replicator peer set {peer.name} --state ok` if it is"
            )
    problems = [f"{peer.name}: {problem}" for peer in peers for problem in peer.problems]
    problems += [problem for problem in federation.integrity if problem not in problems]
    roots = announced(half, federation.successions, now)
    problems = [*(one.text for one in roots), *problems]
    advice = [*(one.advice for one in roots), *_advice(half, datasets, peers, asked=asked), *group_advice(half)]
    code = worst_of(severity(dataset.state) for dataset in datasets)
    if federation.integrity or any(peer.damaged for peer in peers):
        code = 4
    advice += [f"{advice_for(kept.finding)} (finding {kept.id})" for kept in findings]
    if code == 0 and (
        any(peer.missing or peer.absent or peer.late for peer in peers)
        or any(link.owes for link in federation.links.values())
    ):
        code = 3
    made, undrilled = [], []
    if keeper is not None:
        made = drills(keeper)
        undrilled = _undrilled(half, keeper, {one.dataset for one in made})
        advice += drill_advice(made, undrilled, now, any(one.newest_ns for one in datasets))
        if keeper.fs.size(keeper.file(ERASURE_FILE)) is not None:
            advice.append("this tenant was ordered to be erased: `replicator erase report` says who has obeyed")
        if keeper.role == "keeper":
            advice += address_advice(keeper, federation, asked=asked)
    if code == 0 and not all(one.passed for one in made):
        code = 3  # copies of what cannot be used keep nothing safe
    if code == 0 and roots:
        code = 3  # whoever watches this has thirty days to object
    besides = _besides(half)
    late = _beside_problems(besides, now)
    try:
        copies = extras(half)
        behind = [text for one in copies if (text := overdue(one, now))]
    except HomeError as error:  # what counts as no copy hides nothing of those that do
        copies, behind = [], [f"{error.message}: {error.hint}"]
    if code == 0 and (late or behind or any(peer.stuck for peer in peers)):
        code = 3
    oldest = min((row.contacted_ns for row in (half.catalog.peers.get(i) for i in _identities(half))), default=0)
    spooled = sum(row.size for row in half.catalog.objects.all("spooled"))
    return Status(
        tenant=half.member.name,
        as_of_ns=now if asked else oldest,
        asked=asked,
        datasets=datasets,
        peers=peers,
        problems=[*problems, *late.values(), *behind],
        extras=copies,
        besides=besides,
        late=late,
        notices=federation.notices,
        advice=advice,
        spooled_bytes=spooled,
        drills=made,
        undrilled=undrilled,
        integrity=list(federation.integrity),
        surplus=_surplus(half, ground),
        findings=findings,
        found=words,
        acknowledged=[f"{text} (finding {kept.id})" for kept, text in kept_findings if kept.noted_ns],
        roots=roots,
        exit_code=code,
    )


def _unseen(half: Half, groups: list[tuple[str, str, list[SnapshotRow]]]) -> set[bytes]:
    """Return the snapshots that came to be known here after providers were last asked what they hold.

    A node has receipts of its own; who only reads has to ask.
    """
    if half.role == "node":
        return set()
    names = [row.name for _, _, rows in groups for row in rows]
    newest = looked_for(half)
    return {bytes(row.name) for row in half.catalog.objects.by_names(names) if row.id > newest}


def _besides(half: Half) -> dict[str, BesideState]:
    """Return how the archives beside this node's datasets stand, as far as they are wanted."""
    wanted = {} if half.role != "node" else {one.name: one.also_borg for one in half.catalog.datasets.all()}
    known = besides(half) if any(wanted.values()) else {}
    found = {}
    for name, repository in wanted.items():
        state = known.get(name)
        if repository:
            fits = state is not None and state.repository == repository
            found[name] = state if state is not None and fits else BesideState(repository=repository)
    return found


def _beside_problems(states: Mapping[str, BesideState], now_ns: int) -> dict[str, str]:
    """Return what is wrong with archives beside, by dataset."""
    problems = {}
    for name, state in states.items():
        age_s = (now_ns - state.archived_ns) // NS
        if state.failed_ns:
            problems[name] = f"archive of '{name}' beside failed: {state.error}"
        elif not state.archived_ns:
            problems[name] = f"archive of '{name}' beside, in {state.repository}: none yet"
        elif age_s > STALE_S:
            problems[name] = f"archive of '{name}' beside, in {state.repository}, is {_hours(age_s)} old"
    return problems


def _witnessed(
    half: Half, one: DatasetStatus, rows: list[SnapshotRow], heads: dict[bytes, KnownHead], now: int
) -> None:
    """Say how old the newest snapshot is and who has seen it."""
    published = [row for row in rows if row.published_ns]
    if not published:
        return
    found = freshness(half, published[-1], heads.get(published[-1].writer), now)
    one.age_s, one.witnesses = found.age_s, list(found.witnesses)
    one.warnings += found.warnings


def _undrilled(half: Half, keeper: Half, drilled: set[str]) -> list[str]:
    """Return the datasets that have snapshots and no drill; a keeper by itself knows those of its last drill."""
    published = without_forgotten(half, half.catalog.snapshots.all("published_ns != 0 AND dataset != ''"))
    names = {row.dataset for row in published} | set(known_datasets(keeper))
    return sorted(names - drilled)


def _unclaimed(half: Half, federation: Federation, ground: Ground) -> None:
    """Find peers that hold what we published and have no claim of ours: they may sweep it one day."""
    if half.role != "node":
        return
    published = half.catalog.snapshots.all("writer = ? AND published_ns != 0", (half.identity,))
    published = without_forgotten(half, published)
    packs = [row for row in objects_of(half, published) if row.kind in PACK_KINDS]
    needed = {pack_id(row.name) for row in half.catalog.objects.stored(packs)}
    for identity, link in federation.links.items():
        held = sum(peer_id(identity) in ground.held.get(pack, set()) for pack in needed)
        if held and not half.catalog.objects.claimed(identity):
            link.owe(
                f"holds {counted(held, 'object')} of ours and has no claim to them: the next `backup` or "
                "`repair` makes one"
            )


def severity(state: State) -> int:
    """Return the exit code that a dataset's state is worth."""
    return {"safe": 0, "damaged": 4, "below minimum": 5, "waiting": 5}.get(state, 3)


def worst_of(codes: Iterable[int]) -> int:
    """Return the exit code that wins, 0 of none."""
    return max(codes, key=_rank, default=0)


def _rank(code: int) -> int:
    return (0, 3, 5, 6, 1, 4).index(code)


def _identities(half: Half) -> list[Identity]:
    return [Identity(pin.identity) for pin in half.peers]


def _groups(half: Half) -> list[tuple[str, str, list[SnapshotRow]]]:
    """Snapshots by dataset where this half knows names (a node's own), else by writer."""
    if half.role == "node":
        snapshots = without_forgotten(half, half.catalog.snapshots.all("writer = ?", (half.identity,)))
        names = sorted({row.dataset for row in snapshots} | {one.name for one in half.catalog.datasets.all()})
        groups = [(name, name, [row for row in snapshots if row.dataset == name]) for name in names if name]
        # Taken over from peers: this half cannot read what they are snapshots of.
        adopted = [row for row in snapshots if not row.dataset]
        return [*groups, *([("", ADOPTED, adopted)] if adopted else [])]
    names_of = {node.identity: node.name for node in half.private.nodes}
    snapshots = without_forgotten(half, half.catalog.snapshots.all())
    return [
        (
            short(writer),
            f"all of {names_of.get(writer, short(writer))}",
            [row for row in snapshots if row.writer == writer],
        )
        for writer in sorted({row.writer for row in snapshots})
    ]


def _dataset(
    half: Half,
    ground: Ground,
    answering: Ground,
    key: str,
    name: str,
    rows: list[SnapshotRow],
    damaged: set[int],
    now: int,
    unseen: set[bytes],
    between: list[Relay],
    *,
    awaited: bool,
) -> DatasetStatus:
    published = [row for row in rows if row.published_ns]
    if not published:
        return DatasetStatus(id=key, name=name, state="waiting" if rows else "nothing yet")
    newest = published[-1]
    policy = half.catalog.datasets.policies()[newest.policy]
    looked = [row for row in published if row.name not in unseen]
    objects = objects_of(half, looked)
    plan = ground.plan(objects, frozen=True, today=True)
    copies = min(ground.copies_of(objects, policy), default=0)
    gaps = debts_in_words(ground, plan, ground.plan(objects))
    warnings = []
    records = [row for row in objects if row.kind not in PACK_KINDS]
    thin = [row for row in records if ground.copies(row.name, policy) < policy.minimum]
    if thin:
        gaps.append(thin_in_words(len(thin), policy.minimum))
    unconfirmed = answering.plan(objects, frozen=True, today=True).gaps
    if unconfirmed and not gaps:
        gaps.append(
            f"{counted(sum(gap.packs for gap in unconfirmed), 'object counts', 'objects count')} on peers "
            "that do not answer now"
        )
    age_s = (now - newest.created_ns) // NS
    state: State = "safe"
    late = False
    if awaited and age_s > STALE_S:
        state = "stale"
        late = True
        gaps.append(f"the newest snapshot is {_hours(age_s)} old")
    elif awaited and age_s > LATE_S:
        late = True
        warnings.append(f"the newest snapshot is {_hours(age_s)} old: is it backed up every night?")
    if half.role == "node" and any(
        one.name == name and not at_least_as_strong(policy, one.policy) for one in half.catalog.datasets.all()
    ):
        gaps.append("its policy became stronger: the next `backup` stores it again under that")
    hangs = [one.name for one in ground.hanging(between, objects_of(half, [newest]))] if between else []
    warnings += [
        f"some of the newest snapshot is reached through '{one}' alone: nothing is lost while that is away, and that "
        "part cannot be restored until it is back"
        for one in hangs
    ]
    if gaps:
        state = "below promise" if state == "safe" else state
    if plan.refused or thin:
        state = "below minimum"
    if any(row.id in damaged for row in half.catalog.objects.stored(objects)):
        state = "damaged"
    if len(looked) < len(published):
        gaps.append(
            f"no provider was asked yet from here whether it holds {len(published) - len(looked)} of {len(published)} "
            "snapshots: `replicator status` asks"
        )
        state = "unknown" if state in {"safe", "below promise"} else state
    if len(rows) > len(published) and state == "safe":
        state = "below promise"
        gaps.append(
            f"{counted(len(rows) - len(published), 'newer snapshot waits', 'newer snapshots wait')} to be published"
        )
    return DatasetStatus(
        id=key,
        name=name,
        state=state,
        newest_ns=newest.created_ns,
        newest_snapshot=newest.name.hex(),
        files=newest.files,
        bytes=newest.size,
        copies=copies,
        promised=policy.copies,
        minimum=policy.minimum,
        coding=coding_in_words(policy),
        objects=len(objects),
        stored_bytes=sum(row.size for row in objects),
        debt=sum(gap.packs for gap in plan.gaps) + len(thin),
        late=late,
        unasked=newest.name in unseen,
        gaps=gaps,
        warnings=warnings,
        relays=hangs,
    )


def _leaving(half: Half, ground: Ground, peer: PeerStatus, pin: PeerPin) -> None:
    """Say what a provider said of leaving, and how much of what lies there still needs it."""
    identity = Identity(pin.identity)
    notice = notice_of(half, identity)
    if notice is None:
        return
    peer.leaves_ns, peer.keeps, peer.leaving = notice.by_ns, notice.keeps, notice_in_words(pin.name, notice)
    if not notice.keeps:
        kept = without_forgotten(half, half.catalog.snapshots.all("published_ns != 0"))
        found = left_at(ground, objects_of(half, kept), identity)
        peer.left, peer.stuck = found.left, found.stuck


def _surplus(half: Half, ground: Ground) -> list[SurplusAt]:
    """Return what is more than was promised, by provider."""
    kept = without_forgotten(half, half.catalog.snapshots.all("published_ns != 0"))
    found = {peer_id(pin.identity): SurplusAt(id=peer_id(pin.identity), name=pin.name) for pin in half.peers}
    for row, one in ground.surplus(row for row in objects_of(half, kept) if row.kind in PACK_KINDS):
        found[one.peer].objects += 1
        found[one.peer].bytes += row.size
    for identity, given in given_up(ground).items():
        at = found.get(peer_id(identity))
        if at is not None:
            at.released, at.released_bytes = len(given), sum(row.size for row in given)
    return [one for one in found.values() if one.objects or one.released]


def _peer(half: Half, federation: Federation, identity: Identity, views: dict[bytes, PeerView]) -> PeerStatus:
    pin = next(pin for pin in half.peers if pin.identity == identity)
    row = half.catalog.peers.get(identity)
    link = federation.links.get(identity)
    view = views.get(identity)
    failure = federation.failures.get(identity)
    found = PeerStatus(
        id=peer_id(identity),
        name=pin.name,
        owner=pin.owner,
        site=pin.site,
        region=pin.region,
        country=pin.country,
        reachable=link is not None,
        contacted_ns=row.contacted_ns,
        reached=link.connection.endpoint if link else next(iter((*row.endpoints, *pin.endpoints)), ""),
        behind=behind(half, pin),
        free=row.free,
        problems=list(link.problems) if link else [],
    )
    if failure is not None:
        found.problems.append(getattr(failure, "reason", str(failure)))
    if view is not None:
        found.objects, found.bytes, found.probes = view.objects, view.bytes, view.probes
        found.proved, found.wrong, found.absent, found.late = view.proved, view.wrong, view.absent, view.late
        found.missing, found.damaged = len(view.missing), len(view.damaged)
        found.spoilt = list(view.spoilt)
    else:
        holdings = half.catalog.objects.holdings(peer=identity)
        found.objects = sum(holding.state in {"held", "released"} for holding in holdings)
        found.bytes = half.catalog.objects.held_bytes(identity)
        found.missing = sum(holding.state == "missing" for holding in holdings)
        found.damaged = sum(holding.state == "damaged" for holding in holdings)
    return found


def _advice(half: Half, datasets: list[DatasetStatus], peers: list[PeerStatus], *, asked: bool) -> list[str]:
    """Return what to do. If nobody was ``asked`` now, silent is who has not answered for long."""
    advice = []
    if asked:
        quiet = [peer for peer in peers if not peer.reachable]
    else:
        quiet = [peer for peer in peers if peer.silent_s > LATE_S]
    silent = [peer.name for peer in quiet if peer.stands not in ("away", "gone")]
    if not peers:
        advice.append("no provider yet: ask a friend for an invite, then `replicator peer add CODE` on the keeper")
    thin = any(dataset.state in {"below promise", "below minimum", "damaged"} for dataset in datasets)
    if thin or any(peer.missing or peer.damaged or peer.problems for peer in peers if peer.reachable):
        advice.append("run `replicator repair`: it stores missing and damaged copies again and deletes nothing")
    if silent:
        advice.append(
            f"ask after {', '.join(silent)}: silent peers' copies count as lost after 14 days "
            "(`replicator peer set NAME --state away` or `gone` says otherwise)"
        )
    for peer in peers:
        if peer.stuck:
            advice.append(
                f"{peer.leaving}: {format_size(peer.stuck)} there have no other place; add a provider (`peer add`), "
                "then run `replicator repair`"
            )
        elif peer.left:
            advice.append(f"{peer.leaving}: `replicator repair`, or the next night, makes its copies elsewhere")
    if any(dataset.state in {"nothing yet", "waiting", "stale"} for dataset in datasets):
        advice.append("run `replicator backup`")
    if half.role == "node" and not datasets:
        advice.append("nothing is backed up here yet: `replicator dataset add NAME PATH...`")
    return advice


def _hours(seconds: float) -> str:
    """Return an age in the unit that its limits have."""
    return counted(round(seconds / HOUR_S), "hour")
