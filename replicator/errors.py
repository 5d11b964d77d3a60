"""The tree of errors; ``cli/exits.py`` turns each into an exit code, and nothing else does.

ReplicatorError
├── UsageError               a request that cannot be meant: names, values, combinations
├── HomeError                the home is missing, damaged, unsafe or of a newer format
│   └── LockedError          another run works in this home
├── FormatError              stored or received bytes are not what the specification says
│   └── UnsupportedVersionError  a record of a later release
├── IntegrityError           bytes are not the ones that were stored; never retried into silence
│   └── ForkedError          somebody else writes with this node's key
├── RootWaitsError           a charter is under a root that does not count here yet
├── CredentialError
│   ├── KeyMissingError      this home does not hold the key that the command needs
│   └── KeyWrongError        a passphrase, sheet or code that does not open what it should
├── NotFoundError            no such snapshot, dataset, path or peer
├── SourceError              what is to be backed up cannot be read at all
├── RestoreError             unsafe or refused target
├── MountError               this machine cannot show a file system, or not there
├── SpaceError               a disk, quota or spool is full
├── MinimumNotMetError       too few copies: nothing was published, the spool is kept
└── PeerError                a named peer is at fault
    ├── UnreachableError     no answer; trying again can help
    ├── BusyError            the peer asks to come back later
    ├── RefusedError         the peer said no, with its reason
    └── ProtocolError        the peer answered what the protocol does not allow
"""


class ReplicatorError(Exception):
    """Base of all. ``hint`` says what to do next, in one sentence, or is empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ReplicatorError):
    """A request that cannot be meant."""


class HomeError(ReplicatorError):
    """The home is missing, damaged, unsafe or of a newer format."""


class LockedError(HomeError):
    """Another run works in this home."""


class FormatError(ReplicatorError):
    """Bytes that the specification does not allow."""


class UnsupportedVersionError(FormatError):
    """A record written by a later release."""


class IntegrityError(ReplicatorError):
    """Bytes are not the ones that were stored."""


class ForkedError(IntegrityError):
    """Somebody else writes, or wrote, with this node's key; a person has to say what to do."""


class RootWaitsError(ReplicatorError):
    """A charter is under a root that was announced and does not count here yet. ``change`` is the signed RootChange."""

    def __init__(self, message: str, *, change: bytes, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.change = change


class CredentialError(ReplicatorError):
    """A key is missing or wrong."""


class KeyMissingError(CredentialError):
    """This home does not hold the key that the command needs."""


class KeyWrongError(CredentialError):
    """A passphrase, sheet or code does not open what it should."""


class NotFoundError(ReplicatorError):
    """No such snapshot, dataset, path or peer."""


class SourceError(ReplicatorError):
    """What is to be backed up cannot be read at all."""


class RestoreError(ReplicatorError):
    """The target is unsafe, in the way, or cannot hold what is restored."""


class MountError(ReplicatorError):
    """This machine cannot show a file system, or not there."""


class SpaceError(ReplicatorError):
    """A disk, quota or spool is full."""


class MinimumNotMetError(ReplicatorError):
    """Too few copies; nothing was published and the spool is kept."""


class PeerError(ReplicatorError):
    """A named peer is at fault."""

    def __init__(self, peer: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{peer}: {message}", hint=hint)
        self.peer = peer
        self.reason = message


class UnreachableError(PeerError):
    """No answer within the time allowed, or the connection broke."""


class BusyError(PeerError):
    """The peer asks to come back after ``after_s`` seconds."""

    def __init__(self, peer: str, message: str, *, after_s: float) -> None:
        super().__init__(peer, message)
        self.after_s = after_s


class RefusedError(PeerError):
    """The peer said no. ``code`` is the wire's word for why (:mod:`replicator.wire.messages`)."""

    def __init__(self, peer: str, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(peer, message, hint=hint)
        self.code = code


class ProtocolError(PeerError):
    """The peer answered what the protocol does not allow."""
