"""The proof that nothing is lost: whole lives under faults, their history, and its checker.

`lives` are led by clients, which record every call in a `history`; a seeded `nemesis` causes faults
meanwhile. The `checker` compares the history with the transition table and the final tables. It is
apart from the rest and knows nothing of how a history came about. `seeded_bugs` proves that the
checker finds what it looks for.
"""
