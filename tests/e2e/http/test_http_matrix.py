"""The access matrix, over HTTP: the same cells, expectations and audit lines as over gRPC."""

import asyncio
import dataclasses
import uuid
from collections import Counter
from collections.abc import Iterable

import aiohttp
import pytest
from grpc import StatusCode

from tests.e2e import matrix
from tests.e2e.http import protocol
from tests.e2e.http.protocol import HTTP_RPCS
from tests.e2e.matrix import AT_ONCE, MORE_TRIES, Answer, Cell
from tests.e2e.people import people as people_of
from tests.e2e.service import Service
from tests.e2e.test_matrix import (
    EXACT,
    MAY_HAPPEN,
    NAME,
    Log,
    cells_about,
    check_audit,
    new_function,
)

ABOUT_ONE = [rpc for rpc in HTTP_RPCS if rpc.takes_id]
OTHERS = [rpc for rpc in HTTP_RPCS if not rpc.takes_id]
TOO_LONG = "huge id"
"""No URL of that length gets as far as the service."""


async def ask_all(service: Service, cells: Iterable[Cell]) -> list[tuple[Cell, Answer]]:
    """Call all cells over HTTP and return their answers."""
    gate = asyncio.Semaphore(AT_ONCE)
    async with aiohttp.ClientSession() as session:

        async def one(cell: Cell) -> tuple[Cell, Answer]:
            async with gate:
                answer = await protocol.ask(session, service.url, cell)
                for _ in range(MORE_TRIES):
                    if answer.code is not StatusCode.UNAVAILABLE:
                        break
                    cell = dataclasses.replace(cell, trace_id=uuid.uuid4().hex)
                    answer = await protocol.ask(session, service.url, cell)
                return cell, answer

        return await asyncio.gather(*(one(cell) for cell in cells if cell.what != TOO_LONG))


@pytest.mark.parametrize("rpc", ABOUT_ONE, ids=NAME)
async def test_answer_about_an_operation_is_what_the_policy_says(any_service, rpc):
    """Code, reason and audit line of every cell are those of the policy."""
    function = new_function()
    people = people_of(function, any_service.engine)
    log = Log(any_service)
    answers = await ask_all(any_service, cells_about(people, rpc, function, any_service))
    wrong = [
        f"{cell}: {answer.code.name} {answer.reason}, expected {cell.expected}"
        for cell, answer in answers
        if (answer.code, answer.reason) != cell.expected
    ]
    assert not wrong, "\n".join(wrong)
    check_audit(log, answers)


@pytest.mark.parametrize("rpc", OTHERS, ids=NAME)
async def test_answer_about_no_operation_is_what_the_policy_says(any_service, rpc):
    """Roles and grants alone decide over calls that are not about a single operation."""
    function = new_function()
    cells = [
        Cell(
            person=person,
            rpc=rpc,
            request=matrix.complete(rpc, function),
            what="nothing",
            owner=person.subject,
            function=function,
        )
        for person in people_of(function, any_service.engine)
    ]
    log = Log(any_service)
    answers = await ask_all(any_service, cells)
    for cell, answer in answers:
        if cell.access_refusal is not None:
            assert (answer.code, answer.reason) == cell.access_refusal, str(cell)
        elif rpc.method == "ClaimOperations" and not cell.relations:
            assert answer.code is StatusCode.PERMISSION_DENIED, str(cell)
        elif rpc.method in EXACT:
            assert answer.code is StatusCode.OK, str(cell)
        else:
            assert answer.code in MAY_HAPPEN, str(cell)
    check_audit(log, answers)


@pytest.mark.parametrize("rpc", ABOUT_ONE, ids=NAME)
async def test_stranger_gets_the_same_bytes_before_and_after_it_exists(any_service, rpc):
    """A stranger gets the same status, headers and body about an id before and after it exists."""
    people = people_of(new_function(), any_service.engine)
    function, owner = "elsewhere." + new_function(), f"alice-{uuid.uuid4().hex[:12]}"
    found = [
        (cell, operation_id)
        for person in people
        for cell, operation_id in matrix.about(person, rpc, function, owner)
        if cell.what in matrix.FATES and not cell.relations
    ]
    cells = [cell for cell, _ in found]
    before = await ask_all(any_service, cells)
    matrix.store(any_service.engine, [(id_, owner, function, c.what) for c, id_ in found])
    after = await ask_all(any_service, cells)
    for (cell, missing), (_, foreign) in zip(before, after, strict=True):
        assert foreign == missing, str(cell)
    strangers = Counter(cell.person.kind for cell, answer in after if answer.reason)
    assert {"another owner", "anonymous", "worker with another grant"} <= strangers.keys()
