"""Benchmarks: kernels and parts by pytest-benchmark, whole processes by bench.peers. Nothing here is a test."""
