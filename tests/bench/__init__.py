"""How fast the service is, beside what nothing could beat and beside what others would build.

    make bench                                  # everything, a few minutes
    make bench ARGS="--only update/32"          # one block
    make bench ARGS="--rounds 3 --seconds 0.3"  # a glance; ratios need 7 rounds

Read first: `plan` (what is compared with what), `rounds` (how), `targets` (what is wanted).
"""
