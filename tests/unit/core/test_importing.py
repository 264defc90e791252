"""Libraries are imported without looks for garbage, and what they hold is not walked again."""

from __future__ import annotations

import gc
import subprocess
import sys

from app.core.system.importing import importing_once

PROGRAM = """
import gc
from app.core.system.importing import importing_once
with importing_once("decimal"):
    import decimal
    assert not gc.isenabled()
assert gc.isenabled() and gc.get_freeze_count() > 1000
"""


def test_nothing_is_collected_while_a_library_is_imported_and_all_of_it_stays():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


def test_a_process_that_has_the_library_already_is_left_alone():
    frozen = gc.get_freeze_count()
    with importing_once("pytest"):
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


def test_an_import_that_fails_leaves_the_collector_on():
    program = """
import gc
from app.core.system.importing import importing_once
try:
    with importing_once("decimal"):
        import there_is_no_such_module
except ImportError:
    assert gc.isenabled()
    print("on")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "on\n"
