from chunker.errors import ChunkerError, CorruptChunkError, KernelUnavailableError, ParameterError


def test_every_error_is_a_chunker_error() -> None:
    assert issubclass(ParameterError, ChunkerError)
    assert issubclass(KernelUnavailableError, ChunkerError)
    assert issubclass(CorruptChunkError, ChunkerError)


def test_a_parameter_error_is_a_value_error_and_says_what_is_allowed() -> None:
    error = ParameterError("minimum", 3, "at least 1024")
    assert isinstance(error, ValueError)
    assert (error.name, error.value, error.rule) == ("minimum", 3, "at least 1024")
    assert str(error) == "minimum is 3, but must be at least 1024"


def test_an_unavailable_kernel_names_what_there_is_and_what_to_do() -> None:
    error = KernelUnavailableError("avx9", ("portable", "python"), "unset it")
    assert (error.wanted, error.available, error.remedy) == ("avx9", ("portable", "python"), "unset it")
    assert str(error) == ("the cutting kernel 'avx9' is not available (available: portable, python); unset it")


def test_a_missing_extension_is_named_as_such() -> None:
    assert "the compiled cutting kernel is not available" in str(KernelUnavailableError(None, ("python",), "x"))


def test_a_corrupt_chunk_says_why() -> None:
    error = CorruptChunkError("7 bytes follow the frame")
    assert error.reason == "7 bytes follow the frame"
    assert str(error) == "the stored chunk is corrupt: 7 bytes follow the frame"
