"""Standard error that never blocks."""

from __future__ import annotations

import os
import sys

import pytest

from app.core.logs import log_writer
from app.core.logs.log_writer import MAX_WAITING_BYTES, LogWriter, never_blocking

LINE = "x" * 1023 + "\n"


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


def test_what_is_written_arrives_in_order(pipe):
    reader, fd = pipe
    writer = LogWriter(sys.stderr, fd)
    for number in range(100):
        writer.write(f"{number}\n")
    writer.drain(10.0)
    os.close(fd)
    assert os.read(reader, 65536).decode().split() == [str(number) for number in range(100)]
    assert writer.take_num_lost() == 0


def test_a_pipe_that_nobody_reads_takes_a_bounded_part_and_the_rest_is_counted(pipe):
    _, fd = pipe
    writer = LogWriter(sys.stderr, fd)
    num_lines = 3 * MAX_WAITING_BYTES // len(LINE)
    for _ in range(num_lines):
        assert writer.write(LINE) == len(LINE)
    writer.drain(0.05)
    lost = writer.take_num_lost()
    assert num_lines / 2 < lost < num_lines
    assert writer.take_num_lost() == 0


def test_a_closed_pipe_loses_lines_and_raises_nothing():
    reader, fd = os.pipe()
    os.close(reader)
    writer = LogWriter(sys.stderr, fd)
    writer.write(LINE)
    writer.drain(10.0)
    assert writer.take_num_lost() == 1
    os.close(fd)


def test_a_forked_process_writes_its_own_lines_only(pipe):
    reader, fd = pipe
    writer = LogWriter(sys.stderr, fd)
    writer.write("parent\n")
    writer.drain(10.0)
    pid = os.fork()
    if not pid:
        writer.write("child\n")
        writer.drain(10.0)
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(fd)
    assert os.read(reader, 65536) == b"parent\nchild\n"


def test_files_are_written_directly(tmp_path):
    with (tmp_path / "log").open("w") as file:
        assert never_blocking(file) is file
    assert log_writer.take_num_lost() >= 0
