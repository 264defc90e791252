"""Whatever a grammar makes its compiler do, it ends its own process and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from app.core.errors import ConstraintTooCostlyError, InvalidParameterError, RequestTimeoutError
from app.core.work.sampling_params import Constraint
from app.models.grammars.constraints import Constraints
from app.models.grammars.grammar_messages import Source
from app.models.grammars.running_grammar import Grammar
from app.models.grammars.zygote import Zygote
from tests.processes import is_alive
from tests.unit.models.json_schemas.sampled import END, TOKENIZER, allowed_by, constraints, write
from tests.waiting import wait_until

WORD = Constraint("regex", "[a-z]{4}")


@pytest.fixture(scope="module")
def owner():
    made = constraints()
    yield made
    made.close()


@pytest.fixture(scope="module")
def zygote(owner) -> Zygote:
    return owner._prepared()


def schema(**words: object) -> Source:
    return Source("json_schema", json.dumps(words))


def forever() -> None:
    pass


@pytest.mark.parametrize(
    "source",
    [
        # Takes minutes; takes gigabytes; aborts its process from Rust.
        pytest.param(schema(type="integer", multipleOf=9999991), id="time", marks=pytest.mark.slow),
        pytest.param(
            schema(type="object", patternProperties={f"^a{i}.*b{i}$": {} for i in range(400)}),
            id="memory",
            marks=pytest.mark.chaos,
        ),
        pytest.param(schema(type="integer", multipleOf=19999999), id="abort", marks=pytest.mark.slow),
    ],
)
def test_a_grammar_that_takes_too_much_is_refused_and_the_next_is_compiled(zygote, source):
    with pytest.raises(ConstraintTooCostlyError):
        zygote.compile(source, forever)
    assert write(zygote.compile(Source("regex", "[a-z]{4}"), forever), 1) is not None


def test_a_panic_of_the_compiler_is_a_refusal(zygote):
    with pytest.raises(InvalidParameterError):
        zygote.compile(schema(minLength="a" + "姓名" * 40), forever)


def test_a_caller_who_leaves_ends_the_compilation(zygote, monkeypatch):
    pids: list[int] = []
    made = Grammar.__init__

    def noted(grammar: Grammar, end: object, pid: int, pidfd: int, param: str) -> None:
        pids.append(pid)
        made(grammar, end, pid, pidfd, param)

    monkeypatch.setattr(Grammar, "__init__", noted)
    num_asked = 0

    def leave_at_the_third() -> None:
        nonlocal num_asked
        num_asked += 1
        if pids and num_asked >= 3:
            raise RequestTimeoutError("late")

    with pytest.raises(RequestTimeoutError):
        zygote.compile(schema(type="integer", multipleOf=9999991), leave_at_the_third)
    wait_until(lambda: not is_alive(pids[0]))


def test_a_grammar_ends_with_the_last_reference_to_it(zygote):
    grammar = zygote.compile(Source("regex", "[0-9]+"), forever)
    pid = grammar.pid
    assert is_alive(pid)
    del grammar
    wait_until(lambda: not is_alive(pid))


def test_one_that_ended_unseen_is_compiled_again(owner):
    first = owner.compiled(WORD)
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(first.pid))
    assert write(owner.compiled(WORD), 1) is not None


def test_a_lost_first_process_is_replaced(owner):
    zygote = owner._prepared()
    owner.compiled(WORD)
    assert zygote._control is not None
    parents = Path(f"/proc/{owner.compiled(WORD).pid}/status").read_text(encoding="ascii")
    parent = int(parents.split("PPid:")[1].split()[0])
    os.kill(parent, signal.SIGKILL)
    wait_until(lambda: not is_alive(parent))
    assert write(owner.compiled(Constraint("regex", "[g-z]{4}")), 1) is not None


def test_callers_share_a_grammar_only_under_one_key(owner):
    ours = owner.compiled(WORD, "our key")
    assert owner.compiled(WORD, "our key") is ours
    assert owner.compiled(WORD, "their key").pid != ours.pid


def test_those_who_ask_for_the_same_at_once_get_one_grammar(owner):
    found: list[Grammar] = []
    threads = [
        threading.Thread(target=lambda: found.append(owner.compiled(Constraint("regex", "[a-f]{9}")))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({grammar.pid for grammar in found}) == 1


def test_masks_of_many_sequences_come_to_whom_they_belong(owner):
    grammar = owner.compiled(Constraint("regex", "ab|cd"))
    matchers = [grammar.matcher([END]) for _ in range(64)]
    letters = dict(zip("abcd", TOKENIZER.convert_tokens_to_ids(list("abcd")), strict=True))
    for at, matcher in enumerate(matchers):
        allowed_by(matcher, len(TOKENIZER))
        matcher.accept(letters["ac"[at % 2]])
    for at, matcher in reversed(list(enumerate(matchers))):
        allowed = allowed_by(matcher, len(TOKENIZER))
        assert np.flatnonzero(allowed).tolist() == [letters["bd"[at % 2]]]


def test_the_processes_know_neither_torch_nor_the_settings():
    code = (
        "import sys, app.models.grammars.grammar_process;"
        "print(sorted({'torch', 'transformers', 'flask'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_the_processes_do_not_inherit_keys(monkeypatch):
    monkeypatch.setenv("FORKLIFT_API_KEYS", "secret")
    made = constraints()
    try:
        environ = Path(f"/proc/{made.compiled(WORD).pid}/environ").read_bytes()
    finally:
        made.close()
    assert b"FORKLIFT_" not in environ


CHILD_OF_A_WORKER = """
import sys, time
from app.core.work.sampling_params import Constraint
from tests.processes import is_alive
from tests.unit.models.json_schemas.sampled import constraints
owner = constraints()
grammar = owner.compiled(Constraint("regex", "[a-z]+"))
status = open(f"/proc/{grammar.pid}/status").read()
print(grammar.pid, status.split("PPid:")[1].split()[0], flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_all_end_with_a_worker_that_is_killed():
    worker = subprocess.Popen([sys.executable, "-c", CHILD_OF_A_WORKER], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    pids = [int(pid) for pid in worker.stdout.readline().split()]
    assert len(pids) == 2 and all(map(is_alive, pids))
    worker.kill()
    worker.communicate()
    wait_until(lambda: not any(map(is_alive, pids)), limit_s=30)


def test_no_more_grammars_are_kept_than_there_is_room_for(monkeypatch):
    made: Constraints = constraints()
    made._cache._max_grammars = 3
    try:
        first = made.compiled(Constraint("regex", "a{1}")).pid
        for i in range(2, 6):
            made.compiled(Constraint("regex", f"a{{{i}}}"))
        assert len(made._cache) == 3
        wait_until(lambda: not is_alive(first))
    finally:
        made.close()
