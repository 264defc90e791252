"""A worker cannot ask a terminal anything: whoever tries gets an end of file or an error, at once."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

ASKS = {
    "input": "input('yes? ')",
    "getpass": "__import__('getpass').getpass()",
    "the terminal": "open('/dev/tty').readline() or 1/0",
    "OpenSSL": "__import__('ssl').SSLContext(2).load_cert_chain({cert!r}, {key!r})",
}
PROGRAM = """
import sys
from app.serve.processes.terminal import leave_terminal
leave_terminal()
try:
    {ask}
except Exception as error:
    print("refused", type(error).__name__, flush=True)
"""


@pytest.mark.parametrize("ask", ASKS)
def test_no_question_reaches_the_terminal(ask, tmp_path):
    cert, key = encrypted_pair(tmp_path)
    program = PROGRAM.format(ask=ASKS[ask].format(cert=cert, key=key))
    pid, terminal = pty.fork()
    if pid == 0:
        # As a worker is: not the leader of its session, so that the terminal can be left.
        code = subprocess.run([sys.executable, "-c", program], check=False).returncode
        os._exit(code)
    output = b""
    while True:
        try:
            if not (piece := os.read(terminal, 4096)):
                break
        except OSError:
            break
        output += piece
    _, status = os.waitpid(pid, 0)
    assert b"refused" in output, output
    assert os.waitstatus_to_exitcode(status) == 0


def encrypted_pair(folder):
    """A certificate and its key, which has a password."""
    import trustme
    from cryptography.hazmat.primitives import serialization

    leaf = trustme.CA().issue_cert("localhost")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(leaf.cert_chain_pems[0].bytes())
    private = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key.write_bytes(private.private_bytes(pem, form, encryption))
    return str(cert), str(key)
