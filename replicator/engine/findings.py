"""Findings: evidence that a chain was forked, cut or gone on with elsewhere, kept in files that nothing deletes.

HOME/<half>/evidence/<id>         the signed finding
HOME/<half>/evidence/<id>.noted   that a person has seen it, with a word of theirs
"""

import os
from dataclasses import dataclass, replace

from blake3 import blake3

from replicator.charter.chain import check_finding
from replicator.crypto.sign import Context, signer_of, verify
from replicator.engine.home import Half
from replicator.errors import HomeError, ReplicatorError
from replicator.format.charter import Count
from replicator.format.codec import Record, decode, encode
from replicator.format.finding import Finding, FindingKind
from replicator.fs import write_atomic
from replicator.ids import short

NOBODY = bytes(32)
"""The provider of a finding that is no provider's fault."""
QUIET: frozenset[FindingKind] = frozenset({"continued"})
"""Told, and no integrity failure: as a rule a home that was put back."""
_NOTED = ".noted"
_ID_HEX = 16


class _Noted(Record, frozen=True, kw_only=True):
    noted_ns: Count
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFinding:
    """A finding as this home keeps it. ``noted_ns`` 0: nobody has acknowledged it."""

    id: str
    finding: Finding
    signed: bytes
    noted_ns: int = 0
    note: str = ""

    @property
    def open(self) -> bool:
        """Whether it still asks for a person."""
        return not self.noted_ns and self.finding.kind not in QUIET


class Findings:
    """The findings of one half of a home."""

    def __init__(self, half: Half) -> None:
        self._half = half
        self._folder = half.file("evidence")

    def all(self) -> list[KeptFinding]:
        """Return all of them, oldest first.

        Raises:
            HomeError: a file of them is damaged.
        """
        names = [name for name, _ in self._half.fs.list_files(self._folder) if len(name) == _ID_HEX]
        return sorted((self._read(name) for name in names), key=lambda kept: (kept.finding.found_ns, kept.id))

    def keep(self, finding: Finding) -> KeptFinding:
        """Keep a finding and return it; what is known already, or is more of what nobody has looked at yet, is not new.

        Raises:
            IntegrityError: its statements do not show what it says.
        """
        name = finding_id(finding)
        if self._half.fs.size(os.path.join(self._folder, name)) is not None:
            return self._read(name)
        check_finding(finding)
        matter = (finding.kind, finding.writer, finding.provider)
        for kept in self.all():
            if kept.open and (kept.finding.kind, kept.finding.writer, kept.finding.provider) == matter:
                return kept
        signed = self._half.signing.sign(Context.FINDING, encode(finding))
        self._half.fs.makedirs(self._folder)
        write_atomic(self._half.fs, os.path.join(self._folder, name), signed)
        return KeptFinding(id=name, finding=finding, signed=signed)

    def note(self, kept: KeptFinding, note: str, now_ns: int) -> KeptFinding:
        """Keep that a person has seen a finding; the finding itself stays."""
        path = os.path.join(self._folder, kept.id + _NOTED)
        write_atomic(self._half.fs, path, encode(_Noted(noted_ns=now_ns, note=note)))
        return replace(kept, noted_ns=now_ns, note=note)

    def _read(self, name: str) -> KeptFinding:
        path = os.path.join(self._folder, name)
        fs = self._half.fs
        try:
            signed = fs.read(path)
            finding = read_finding(signed)
            noted = None
            if fs.size(path + _NOTED) is not None:
                noted = decode(_Noted, fs.read(path + _NOTED))
        except ReplicatorError as error:
            raise HomeError(
                f"{path}: damaged ({error})", hint="put back a copy of it; if there is none, move it away"
            ) from error
        kept = KeptFinding(id=name, finding=finding, signed=signed)
        return kept if noted is None else replace(kept, noted_ns=noted.noted_ns, note=noted.note)


def read_finding(signed: bytes) -> Finding:
    """Return a finding that the home which it names has signed.

    Raises:
        IntegrityError, FormatError: it is none.
    """
    return decode(Finding, verify(signed, Context.FINDING, [signer_of(signed)]))


def finding_id(finding: Finding) -> str:
    """Return what a finding is called: the same trouble at the same number is one finding, however often it shows."""
    parts = (finding.kind.encode(), finding.writer, finding.provider, finding.number.to_bytes(8, "big"))
    return blake3(b"\x00".join(parts)).hexdigest()[:_ID_HEX]


def in_words(half: Half, finding: Finding) -> str:
    """Return what was found, in one sentence."""
    writer = next((one.name for one in half.private.nodes if one.identity == finding.writer), short(finding.writer))
    provider = next((pin.name for pin in half.peers if pin.identity == finding.provider), short(finding.provider))
    number = finding.number
    return {
        "fork": f"{writer}: two histories part at snapshot {number} (a fork): two machines write with one key",
        "rollback": f"{provider}: had signed that it saw snapshot {number} of {writer}, and now shows an older state: "
        "it went back, or shows different members different things",
        "lost": f"{writer}: snapshot {number} was witnessed, and no provider shows it any more",
        "revoked": f"{writer}: snapshot {number} was written after this node was revoked",
        "continued": f"{writer}: peers knew snapshots up to {number} of this node that its home did not",
        "interleaved": f"{writer}: again somebody else wrote on in this node's chain, up to snapshot {number}: "
        "it looks as if two machines take turns with one key",
        "charters": f"two charters of number {number} or the next cannot stand beside each other: somebody else "
        "signs with the owner key",
    }[finding.kind]


def advice_for(finding: Finding) -> str:
    """Return what a person does about a finding, in one sentence."""
    return {
        "fork": "if the node was cloned or its disk put back while it ran on, stop one of the two; if neither, its key "
        "is stolen; in either case make a new key with `node request` and `node add`, and `node revoke` the old one",
        "rollback": "ask its operator whether disk or database were put back; if not, do not count on it: "
        "`peer remove`",
        "lost": "ask providers whether they were put back; run `replicator repair` and `backup` on the node, which "
        "stores what it still has again",
        "revoked": "whoever has that key goes on using it; do not restore from that snapshot",
        "continued": "fine if its home was put back from a copy or its catalog was lost; if not, its key is used "
        "elsewhere: make a new one with `node request` and `node add`, and `node revoke` the old one",
        "interleaved": "if the home was really put back twice, say so with `findings acknowledge`; else stop one of "
        "the machines, or revoke a stolen key: `node request` and `node add` a new one, `node revoke` the old one",
        "charters": "with the sheet, `replicator key rotate owner --sheet -` names another owner and shows what "
        "somebody else put into the charter",
    }[finding.kind]
