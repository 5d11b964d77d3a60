"""Chunk sizes and the two constants of the algorithm that follow from them.

The measurements behind the defaults: the ramp gives chunks whose mean is 0.99 to 1.02 of `average` on random
data with a standard deviation of 0.39 of the mean; minima from average/8 to average/2 deduplicate alike.
"""

from dataclasses import dataclass
from typing import Final

from chunker.errors import ParameterError

MINIMUM_FLOOR: Final = 1024  # a decision looks 536 bytes back and must stay inside its chunk
AVERAGE_FLOOR: Final = 16384  # below it, the ten filter bits that the key derivation vouches for are too many
MAXIMUM_CEILING: Final = 4 << 20  # the segment length bound of the pack format
MAXIMUM_FILTER_BITS: Final = 12


@dataclass(frozen=True, slots=True)
class ChunkerParams:
    """Minimum, average and maximum length of a chunk, in bytes; valid from birth.

    Only the last chunk of a stream is shorter than or equal to the minimum. Two repositories deduplicate
    against each other only with the same three numbers and the same key.
    """

    minimum: int
    average: int
    maximum: int

    def __post_init__(self) -> None:
        if self.minimum < MINIMUM_FLOOR:
            raise ParameterError("minimum", self.minimum, f"at least {MINIMUM_FLOOR}")
        if self.average < AVERAGE_FLOOR:
            raise ParameterError("average", self.average, f"at least {AVERAGE_FLOOR}")
        if self.average <= self.minimum:
            raise ParameterError("average", self.average, f"greater than the minimum, {self.minimum}")
        if self.maximum <= self.average:
            raise ParameterError("maximum", self.maximum, f"greater than the average, {self.average}")
        if self.maximum > MAXIMUM_CEILING:
            raise ParameterError("maximum", self.maximum, f"at most {MAXIMUM_CEILING}")
        if (self.maximum - self.minimum) * self.ramp >= 1 << 64:
            raise ParameterError(
                "average", self.average, f"further from the minimum, {self.minimum}, for the ramp to fit 64 bits"
            )

    @property
    def filter_bits(self) -> int:
        """f: how many bits of the stage-1 value must match: one position in 2**f is a candidate."""
        return min(MAXIMUM_FILTER_BITS, self.average.bit_length() - 1 - 4)

    @property
    def ramp(self) -> int:
        """R: how fast the cut probability grows with the chunk's length, in 2**-48 per byte and candidate.

        The hazard pi/2 * (len - min) / (avg - min)**2 makes the mean equal the average; 355/113 stands for pi.
        """
        return 355 * (1 << (48 + self.filter_bits)) // (226 * (self.average - self.minimum) ** 2)


SMALL: Final = ChunkerParams(64 << 10, 256 << 10, 1 << 20)
"""The default: 64 KiB / 256 KiB / 1 MiB."""

LARGE: Final = ChunkerParams(256 << 10, 1 << 20, 4 << 20)
"""For more than about 4 TB, where an index row per 256 KiB grows too large: 256 KiB / 1 MiB / 4 MiB."""
