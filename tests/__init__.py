"""The tests of Milepost."""

import os

# Before gRPC is imported: while calls run, its handlers of a fork may crash the child that is to
# become PostgreSQL.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
