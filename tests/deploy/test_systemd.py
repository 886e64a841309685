"""The unit for systemd, read by systemd itself."""

import configparser
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from milepost import config
from tests.deploy.tools import ROOT
from tests.programs import Program

UNIT: Final = ROOT / "deploy/systemd/milepost.service"
ANALYZER: Final = Program(
    command="systemd-analyze",
    variable="MILEPOST_TEST_SYSTEMD",
    absence="systemd-analyze is not installed (apt install systemd)",
)
PROGRAM: Final = "/opt/milepost/bin/milepost"
MAX_EXPOSURE: Final = 20
"""Of 100 points of systemd-analyze security, where services without settings have 96."""
ANALYSIS_S: Final = 60


def analyzed(*arguments: str | Path) -> str:
    """Return what systemd-analyze reports; skip the test where it is missing."""
    done = subprocess.run(
        [ANALYZER.require(), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=ANALYSIS_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is here."""
    text = UNIT.read_text(encoding="utf-8")
    assert PROGRAM in text
    path = tmp_path / UNIT.name
    path.write_text(text.replace(PROGRAM, str(Path(sys.executable).with_name("milepost"))))
    return path


def section(name: str) -> configparser.SectionProxy:
    """Return one section of the unit."""
    parser = configparser.RawConfigParser(strict=False, inline_comment_prefixes=("#",))
    parser.read(UNIT, encoding="utf-8")
    return parser[name]


def test_unit_is_valid(unit):
    """Systemd finds nothing wrong with the unit."""
    assert UNIT.name not in analyzed("verify", "--man=no", unit)


def test_unit_confines_the_service(unit):
    """The unit takes from the service what it does not need."""
    report = analyzed("security", "--offline=true", f"--threshold={MAX_EXPOSURE}", unit)
    assert re.search(r"Overall exposure level", report)


def test_unit_has_time_to_stop():
    """The unit kills the service no earlier than 10 s after it must have drained."""
    settings = config.Settings.model_fields
    drain = settings["drain_seconds"].default + settings["not_ready_seconds"].default
    assert int(section("Service")["TimeoutStopSec"]) >= drain + 10


def test_unit_schedules_batches():
    """The unit has the scheduling policy that the guide for operators recommends."""
    assert section("Service")["CPUSchedulingPolicy"] == "batch"
