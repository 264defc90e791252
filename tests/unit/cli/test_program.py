"""The program as a whole: help everywhere, completion, ctrl-C, and nothing heavy before it is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import click
import pytest

from app.cli.commands.shell_completion import SHELLS
from app.cli.main import main

COMMANDS = sorted(main.commands)


def run_python(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={**os.environ, **environ}
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_tells_its_exit_codes(forklift, name):
    result = forklift(name, "--help")
    assert result.exit_code == 0
    if not isinstance(main.commands[name], click.Group):
        assert "Exit codes" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is(name):
    for parameter in main.commands[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help or parameter.show_default, parameter.name


def test_help_imports_neither_torch_nor_transformers_nor_flask():
    heavy = "{'torch', 'transformers', 'flask'}"
    code = f"import sys; from app.cli.main import main; print(sorted({heavy} & set(sys.modules)))"
    assert run_python(code).stdout == "[]\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_completion_script_of_a_shell_names_the_program(forklift, shell):
    result = forklift("completion", shell)
    assert result.exit_code == 0
    assert "_FORKLIFT_COMPLETE" in result.output


def test_bash_accepts_its_script(forklift):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    script = forklift("completion", "bash").output
    done = subprocess.run([bash, "-n"], input=script, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_are_completed():
    code = "from app.cli.main import main; main(prog_name='forklift')"
    environ = {"_FORKLIFT_COMPLETE": "bash_complete", "COMP_WORDS": "forklift do", "COMP_CWORD": "1"}
    assert run_python(code, **environ).stdout == "plain,doctor\n"


def test_ctrl_c_ends_with_130(forklift, monkeypatch):
    from app.cli.commands import top

    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(top, "watch", interrupted)
    assert forklift("top", "--url", "http://127.0.0.1:1").exit_code == 130


def test_an_unknown_command_is_wrong_usage(forklift):
    assert forklift("lift").exit_code == 2
