"""The header of a run says which tools are here."""

from tests.deploy import tools


def pytest_report_header() -> str:
    """Say which tools read the files under deploy/."""
    missing = tools.missing()
    return (
        f"tools of deploy/: {', '.join(missing)} not built: UNTESTED"
        if missing
        else "tools of deploy/: all"
    )
