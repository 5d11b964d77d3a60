"""What can go wrong in this package, and whose fault it is.

    ChunkerError
    ├── ParameterError (also a ValueError)   the caller's: a size, key, buffer or source that breaks a contract
    ├── KernelUnavailableError               the installation's: the kernel that was asked for is not there
    └── CorruptChunkError                    the data's: stored bytes are not what their entry says

Trying again helps none of them.
"""


class ChunkerError(Exception):
    """Base of every error this package raises on purpose."""


class ParameterError(ChunkerError, ValueError):
    """An argument breaks a documented contract.

    `name` is the argument, `value` what was given (never a key) and `rule` what it must be.
    """

    def __init__(self, name: str, value: object, rule: str) -> None:
        super().__init__(name, value, rule)
        self.name = name
        self.value = value
        self.rule = rule

    def __str__(self) -> str:
        return f"{self.name} is {self.value}, but must be {self.rule}"


class KernelUnavailableError(ChunkerError):
    """The cutting kernel that was demanded is not in this installation.

    `wanted` is its name, or None when simply the compiled extension is missing.
    """

    def __init__(self, wanted: str | None, available: tuple[str, ...], remedy: str) -> None:
        super().__init__(wanted, available, remedy)
        self.wanted = wanted
        self.available = available
        self.remedy = remedy

    def __str__(self) -> str:
        what = f"the cutting kernel {self.wanted!r}" if self.wanted else "the compiled cutting kernel"
        return f"{what} is not available (available: {', '.join(self.available)}); {self.remedy}"


class CorruptChunkError(ChunkerError):
    """Stored bytes do not decode to the chunk that their entry describes. `reason` says what is wrong."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the stored chunk is corrupt: {self.reason}"
