"""The input type of this package: anything with a contiguous buffer, read in place and never copied."""

from array import array
from mmap import mmap
from typing import Any, TypeAlias

BytesLike: TypeAlias = "bytes | bytearray | memoryview | mmap | array[Any]"
