import chunker


def test_everything_promised_is_there_and_sorted_by_the_linter() -> None:
    assert all(hasattr(chunker, name) for name in chunker.__all__)
    assert {"Chunker", "chunks", "ChunkHasher", "Compressor", "decompress", "SeenIndex"} <= set(chunker.__all__)
