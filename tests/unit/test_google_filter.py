"""The filter of ListOperations of google.longrunning."""

import pytest

from milepost.api.google_filter import MAX_LENGTH, selection_of
from milepost.domain.operation import Status
from milepost.domain.selection import Selection
from milepost.domain.transitions import ACTIVE, TERMINAL


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Selection()),
        ("  ", Selection()),
        ("done=true", Selection(statuses=tuple(sorted(TERMINAL)))),
        ("done = false", Selection(statuses=tuple(sorted(ACTIVE)))),
        ("metadata.status=FAILED", Selection(statuses=(Status.FAILED,))),
        ('metadata.status = "PENDING"', Selection(statuses=(Status.PENDING,))),
        ("metadata.function=video.transcode", Selection(function="video.transcode")),
        ('metadata.function="AND so on"', Selection(function="AND so on")),
        (
            ' metadata.function = "f" AND  done=true ',
            Selection(statuses=tuple(sorted(TERMINAL)), function="f"),
        ),
    ],
)
def test_conditions_select(text, expected):
    """A filter selects by end, status and function."""
    assert selection_of(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "done",
        "done=maybe",
        "done=TRUE",
        "done=true AND",
        "done=true AND done=true",
        "done=true OR done=false",
        "done=true metadata.function=f",
        "done=true ANDmetadata.function=f",
        "done=true AND metadata.status=FAILED",
        "metadata.status=DONE",
        'metadata.function=""',
        'metadata.function="f',
        "metadata.owner=alice",
        "name:*",
        "-done=true",
        "done=true\0",
        'metadata.function="a\0b"',
        'metadata.function="a\nb"',
        "metadata.function=" + MAX_LENGTH * "f",
    ],
)
def test_other_texts_are_refused(text):
    """Anything else is refused, with a message that says what a filter is."""
    with pytest.raises(ValueError, match=r"conditions that AND joins"):
        selection_of(text)
