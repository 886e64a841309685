"""Benchmarks of the service against an echo server and against usual implementations.

    make bench                                  # everything, a few minutes
    make bench ARGS="--only update/32"          # one block
    make bench ARGS="--rounds 3 --seconds 0.3"  # a quick look; ratios need 7 rounds

Read first: `plan` (the comparisons), `rounds` (the method), `targets` (the required ratios).
"""
