"""The runner itself: wrong expectations, and clients that differ, fail with a readable report."""

from pathlib import Path

import pytest

from tests.conformance.languages import Language, read_languages, selected, summary
from tests.conformance.normal_form import differences, normal_form
from tests.conformance.patterns import Absent, Between, Keep, Kept, Names, Own, Present, Text
from tests.conformance.patterns import mismatches as mismatches_of
from tests.conformance.play import play
from tests.conformance.scenario import Problem, read_file, read_scenarios
from tests.conformance.testee import Testee

WRONG = """
service: {none: true}
scenarios:
  wrong:
    says: A signature is verified.
    steps:
      - anyone: verify_webhook
        with: {secrets: [whsec_AAAA], body: "{}", headers: {webhook-id: x}}
        error: {class: RateLimited}
      - anyone: verify_webhook
        with: {secrets: [whsec_AAAA], body: "{}", headers: {}}
        error: {class: NotVerified}
  right:
    says: A signature is verified.
    steps:
      - anyone: verify_webhook
        with: {secrets: [whsec_AAAA], body: "{}", headers: {webhook-id: x}}
        error: {class: NotVerified}
  lacking:
    says: A command that a testee lacks fails, unless the scenario allows it.
    steps:
      - {anyone: no_such_call, with: {client: any}, ok: {}}
  allowed:
    says: The languages that a step names may lack it; there the scenario ends.
    steps:
      - {anyone: no_such_call, with: {client: any}, ok: {}, unsupported: [python]}
      - {anyone: verify_webhook, with: {secrets: [], body: "", headers: {}}, ok: {}}
"""
OTHER = """
import json, sys
for line in sys.stdin:
    answer = {"class": "NotVerified", "reason": "R", "code": "C", "message": "m", "metadata": {}}
    print(json.dumps({"id": json.loads(line)["id"], "error": answer}), flush=True)
"""
"""A testee that gives one answer to every command."""


@pytest.fixture
def scenarios(tmp_path):
    """The scenarios above, by their names."""
    path = tmp_path / "runner.yaml"
    path.write_text(WRONG, encoding="utf-8")
    return {scenario.id.removeprefix("runner/"): scenario for scenario in read_file(path)}


@pytest.fixture
def python():
    """The Python client."""
    return next(each for each in read_languages() if each.name == "python")


async def test_wrong_expectation_fails_with_a_readable_report(scenarios, python):
    """The report names the language, the step with its arguments, both values and the answer."""
    async with Testee(python) as testee:
        reports = await play(scenarios["wrong"], {"python": (testee, testee)}, None)
    report = reports["python"]
    assert report is not None
    lines = report.splitlines()
    assert lines[0].startswith("python: runner/wrong, step 1: anyone: verify_webhook {'secrets'")
    assert lines[1] == "  answer.error.class: expected 'RateLimited', found 'NotVerified'"
    assert lines[2].startswith("  the whole answer: {'error': {'class': 'NotVerified'")
    assert len(lines) == 3


async def test_right_expectation_passes(scenarios, python):
    """A scenario whose expectations hold has no report."""
    async with Testee(python) as testee:
        cast = {"python": (testee, testee)}
        assert await play(scenarios["right"], cast, None) == {"python": None}


async def test_answers_of_the_languages_are_compared(scenarios, python, tmp_path):
    """A client whose answer is not that of the first one fails, even if it is as expected."""
    other = Language("other", tmp_path, (), (), (*python.start[:1], "-c", OTHER))
    async with Testee(python) as one, Testee(other) as two:
        cast = {"python": (one, one), "other": (two, two)}
        reports = await play(scenarios["right"], cast, None)
    assert reports["python"] is None
    assert "the answers of python and of other differ:" in str(reports["other"])
    assert "answer.error.reason: '<absent>' and 'R'" in str(reports["other"])


async def test_unsupported_command_is_a_failure_unless_the_step_allows_it(scenarios, python):
    """A testee without the command fails the scenario; if that is allowed, the scenario ends."""
    async with Testee(python) as testee:
        cast = {"python": (testee, testee)}
        lacking = await play(scenarios["lacking"], cast, None)
        assert "does not support" in str(lacking["python"])
        assert await play(scenarios["allowed"], cast, None) == {"python": None}


async def test_testee_that_ends_fails_the_scenario(scenarios, python, tmp_path):
    """A testee that crashes is a failure, with what it wrote to its standard error."""
    crash = "import sys; sys.stdin.readline(); sys.exit('crashed')"
    language = Language("crash", tmp_path, (), (), (*python.start[:1], "-c", crash))
    async with Testee(language) as testee:
        reports = await play(scenarios["right"], {"crash": (testee, testee)}, None)
    assert "the testee has ended" in str(reports["crash"])


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ("{alice: get, bob: get}", "one actor"),
        ("{alice: get, expects: {}}", "unknown: expects"),
        ("{with: {}}", "one actor"),
    ],
)
def test_malformed_step_is_a_problem_with_its_place(tmp_path, step, problem):
    """A mistake in a scenario file is reported with the name of the scenario and the step."""
    path = tmp_path / "bad.yaml"
    path.write_text(f"scenarios: {{one: {{says: x, steps: [{step}]}}}}", encoding="utf-8")
    with pytest.raises(Problem, match=f"bad/one, step 1: .*{problem}"):
        read_file(path)


def test_unknown_word_of_a_scenario_is_a_problem(tmp_path):
    """A scenario has no other members than the documented ones."""
    path = tmp_path / "bad.yaml"
    path.write_text("scenarios: {one: {says: x, step: [], steps: []}}", encoding="utf-8")
    with pytest.raises(Problem, match="bad/one: unknown: step"):
        read_file(path)


@pytest.mark.parametrize(
    ("expected", "found", "problem"),
    [
        (1, 1.0, None),
        (1, True, "expected 1, found True"),
        ({"a": 1}, {"a": 1, "b": 2}, None),
        ({"a": 1}, {}, "answer.a: expected 1, found nothing"),
        ({"a": Absent()}, {"a": 1}, "answer.a: expected nothing, found 1"),
        ({"a": Absent()}, {}, None),
        ({"result": {"a": 1}}, {"result": {"a": 1, "b": 2}}, "answer.result.b: expected nothing"),
        ({"result": [1]}, {"result": [1, 2]}, "answer.result: expected 1 items"),
        (Text("^a+$"), "aaa", None),
        (Text("^a+$"), "b", "expected a text like"),
        (Between(1, 2), 3, "expected a number from 1 to 2, found 3"),
        (Present(), None, "expected a value, found None"),
        (Kept("known"), "value", None),
        (Own("f"), "f-run", None),
        ({"a": Keep("new")}, {}, "answer.a: expected a value, found nothing"),
    ],
)
def test_expectations(expected, found, problem):
    """An object names the members that matter; data of the user is compared completely."""
    names = Names("run", {"known": "value"})
    mismatches = mismatches_of(expected, found, names)
    assert (problem is None) == (not mismatches)
    assert problem is None or problem in mismatches[0]


def test_kept_value_is_filled_in_later():
    """A value that was kept is what a later step expects or sends."""
    names = Names("run")
    assert mismatches_of({"id": Keep("one")}, {"id": "op_1"}, names) == []
    assert mismatches_of({"id": Kept("one")}, {"id": "op_2"}, names) != []


def test_normal_form_has_no_trace_of_the_run():
    """Ids, times and names of a run are replaced; everything else is compared."""
    one = {"id": "op_0a1b", "owner": "alice-run1", "create_time": "2026-11-27T02:00:00.1Z", "n": 1}
    two = {
        "id": "op_9f8e",
        "owner": "alice-run2",
        "create_time": "2026-11-27T03:00:00+00:00",
        "n": 1.0,
    }
    assert differences(normal_form(one, "run1"), normal_form(two, "run2")) == []
    assert differences({"a": [1]}, {"a": [2]}) == ["answer.a[0]: 1 and 2"]
    assert normal_form({"a": 1, "b": 2}, "run", ["b"]) == {"a": 1}


def test_language_without_its_toolchain_is_reported(tmp_path):
    """A missing toolchain is named, and so is a language that was not demanded."""
    missing = Language("cobol", tmp_path, ["no-such-compiler"], (), ())
    present = Language("sh", tmp_path, ["sh"], (), ())
    assert selected([missing, present], {}) == ["sh"]
    assert selected([missing, present], {"MILEPOST_TEST_LANGUAGES": "cobol"}) == ["cobol"]
    assert summary([missing, present], ["sh"]) == [
        "clients tested: sh",
        "CLIENT NOT TESTED: cobol (not installed: no-such-compiler)",
    ]


def test_broken_build_is_an_error(tmp_path):
    """A testee that cannot be built is an error with the output of its command."""
    broken = Language("sh", tmp_path, ["sh"], [["sh", "-c", "echo no such header; exit 1"]], ())
    with pytest.raises(RuntimeError, match="no such header"):
        broken.prepare()


def test_every_reason_of_the_contract_stands_in_a_scenario():
    """Every reason that a client can meet is expected by a scenario."""
    text = Path("clients/README.md").read_text(encoding="utf-8")
    expected = "\n".join(str(step.expected) for each in read_scenarios() for step in each.steps)
    rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    reasons = [name for name in rows if f"'{name}'" not in expected and name.isupper()]
    assert [name for name in reasons if name not in {"PENDING", "PROCESSING"}] == []


def test_every_call_of_the_testees_stands_in_a_scenario():
    """Every command of README.md is performed by a scenario."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    table = text[text.index("| call |") : text.index("## The speed")]
    documented = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    steps = [step for each in read_scenarios() for step in each.steps]
    performed = {step.action for step in steps if isinstance(step.action, str)}
    assert documented - performed - {"bench"} == set()
