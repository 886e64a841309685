"""`ops list`: filters, pages, and tables on narrow terminals."""

import re

import pytest

from milepost_client import OperationError
from tests.e2e.commands import (
    DENIED,
    OK,
    USAGE,
    Done,
    create,
    on_a_terminal,
)


def test_operations_are_listed(caller):
    """The list is newest first, can be filtered, and says when there is more."""
    ids = [create(caller, f"list.{n}") for n in range(3)]
    page = caller("ops", "list", "--limit", "2", "--output", "json").json
    assert [item["id"] for item in page["operations"]] == [ids[2], ids[1]]
    assert page["more"]
    assert "result" not in page["operations"][0]
    listed = caller("ops", "list", "--all", "--output", "json").json
    assert not listed["more"]
    assert {item["id"] for item in listed["operations"]} >= set(ids)
    words = ("--function", "list.1", "--status", "pending", "--status", "COMPLETED")
    text = caller("ops", "list", *words).out
    assert ids[1] in text
    assert ids[0] not in text
    none = caller("ops", "list", "--function", "list.none")
    assert (none.code, none.out) == (OK, "No operations found.\n")


def test_lists_have_bounds_in_time(caller):
    """`--since` and `--until` take ages and times; the one is inclusive, the other exclusive."""
    first, second = create(caller), create(caller)
    created = caller("ops", "get", second, "--output", "json").json["create_time"]

    def listed(*words: str) -> list[str]:
        done: Done = caller("ops", "list", "--quiet", *words)
        return done.out.split()

    assert listed("--since", "1h") == [second, first]
    assert listed("--until", "1h") == []
    assert listed("--since", created) == [second]
    assert listed("--until", created) == [first]
    assert listed("--since", "2026-01-01", "--until", "2026-01-02T03:04+01:00") == []


def test_admin_lists_the_operations_of_one_owner(caller, service):
    """An admin may name an owner; to other callers that is refused."""
    id_ = create(caller)
    owner = caller("ops", "get", id_, "--output", "json").json["owner"]
    words = ("ops", "list", "--quiet", "--owner")
    root = service.api_key("root", roles=("ADMIN",))
    assert caller(*words, owner, MILEPOST_API_KEY=root).out == f"{id_}\n"
    assert caller(*words, "stranger", MILEPOST_API_KEY=root).out == ""
    assert caller(*words, "stranger").code == DENIED


def test_list_gives_the_message(caller, worker):
    """The list has the first error of a failed operation, or else the last progress message."""
    failed, running = create(caller), create(caller)
    worker.fail(failed, [OperationError("CODEC", "no\nsuch codec")])
    worker.start(running)
    worker.update_progress(running, 0.5, "half of the frames")
    lines = {line.split()[0]: line for line in caller("ops", "list").out.splitlines()}
    assert lines["ID"].endswith("MESSAGE")
    assert lines[failed].endswith("video.transcode  CODEC: no such codec")
    assert lines[running].endswith("video.transcode  half of the frames")


@pytest.mark.parametrize("columns", [40, 80])
def test_ids_and_functions_are_whole(access, caller, worker, columns):
    """However narrow the terminal is, no id and no function is cut or broken."""
    function = f"video.{'very-' * 12}long"
    ids = [create(caller, name) for name in ("video.transcode", function)]
    worker.fail(ids[0], [OperationError("CODEC", "a message of many words " * 5)])
    written = on_a_terminal("ops", "list", columns=columns, NO_COLOR="1", **access)
    for text in (*ids, "video.transcode", function):
        assert text in written
    [line] = [line for line in caller("ops", "list").out.splitlines() if ids[0] in line]
    assert line.endswith("of many words")


@pytest.mark.parametrize("arguments", [("--status", "LOST"), ("--limit", "0"), ("--limit", "x")])
def test_wrong_filters_are_one_line(caller, arguments):
    """An invalid filter is refused."""
    done = caller("ops", "list", *arguments)
    assert (done.code, len(done.err.splitlines())) == (USAGE, 1)


def test_no_colour_where_none_is_wanted(access, caller):
    """NO_COLOR is obeyed on a terminal, and ids are whole however narrow it is."""
    id_ = create(caller)
    written = on_a_terminal("ops", "list", columns=40, NO_COLOR="1", **access)
    assert id_ in written
    assert re.search(r"\x1b\[(3|4|9)\d", written) is None
