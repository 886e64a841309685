"""The CPU time of other processes, to the nanosecond."""

from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of a process so far."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((each / "schedstat").read_text().split()[0]) for each in threads) / 1e9
