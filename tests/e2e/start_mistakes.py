"""Mistakes at a start, each tried with the real program: what it says, its exit code, how long that took.

``python -m tests.e2e.start_mistakes`` prints docs/start-errors.md. The faults of the first group are
found by the master, before anything is forked or a model library imported.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT_S = 300.0
Environ = dict[str, str]
TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
CONFIG = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 10}


@dataclass(frozen=True)
class Mistake:
    """``prepare`` makes what is wrong in an empty folder; ``said`` is what the line must hold."""

    name: str
    said: str
    prepare: Callable[[Path], Environ]
    needs_model: bool = False
    without_rights: bool = False


@dataclass(frozen=True)
class Outcome:
    mistake: Mistake
    code: int
    output: str
    seconds: float
    cpu_seconds: float
    folder: str = field(repr=False)

    @property
    def lines(self) -> list[str]:
        """The lines for people; others are log lines in JSON."""
        return [line for line in self.output.splitlines() if not line.startswith("{")]

    @property
    def line(self) -> str:
        """The last one, without the paths of this run."""
        return self.lines[-1].replace(self.folder, "/models") if self.lines else ""


def settings(**values: object) -> Callable[[Path], Environ]:
    """Wrong settings alone; ``{folder}`` stands for the folder of the run."""

    def prepare(folder: Path) -> Environ:
        return {f"FORKLIFT_{name}": str(value).replace("{folder}", str(folder)) for name, value in values.items()}

    return prepare


def option(text: str) -> Callable[[Path], Environ]:
    return lambda _folder: {"GUNICORN_CMD_ARGS": text}


def tables(text: str) -> Callable[[Path], Environ]:
    def prepare(folder: Path) -> Environ:
        (folder / "models.toml").write_text(text)
        return {"FORKLIFT_MODELS": str(folder / "models.toml")}

    return prepare


def write_weights(path: Path, header: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)


def model(change: Callable[[Path], object], config: dict[str, object] | None = None) -> Callable[[Path], Environ]:
    """A folder that has nothing wrong but what ``change`` does to it."""

    def prepare(folder: Path) -> Environ:
        whole = folder / "m"
        whole.mkdir()
        (whole / "config.json").write_text(json.dumps(CONFIG | (config or {})))
        (whole / "tokenizer.json").write_text("{}")
        write_weights(whole / "model.safetensors", json.dumps({"a": TENSOR}).encode())
        change(whole)
        return {"FORKLIFT_MODEL": str(whole)}

    return prepare


def demo(change: Callable[[Path], object], **values: object) -> Callable[[Path], Environ]:
    """A copy of the embedded demo model with something wrong that only the libraries find."""

    def prepare(folder: Path) -> Environ:
        shutil.copytree(REPOSITORY / "app/models/demo", folder / "m")
        change(folder / "m")
        return {"FORKLIFT_MODEL": str(folder / "m"), **settings(**values)(folder)}

    return prepare


def change_config(**values: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return change


def nothing(_folder: Path) -> None:
    """Leave the folder as it is."""


def replace(name: str, put: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        put(folder / name)

    return change


def locked_key(folder: Path) -> Environ:
    import trustme
    from cryptography.hazmat.primitives import serialization

    leaf = trustme.CA().issue_cert("localhost")
    (folder / "tls.crt").write_bytes(leaf.cert_chain_pems[0].bytes())
    private = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "tls.key").write_bytes(private.private_bytes(pem, form, serialization.BestAvailableEncryption(b"x")))
    return settings(TLS_CERT="{folder}/tls.crt", TLS_KEY="{folder}/tls.key")(folder)


def as_file(name: str) -> Callable[[Path], Environ]:
    def prepare(folder: Path) -> Environ:
        (folder / name).write_bytes(b"GGUF")
        return {"FORKLIFT_MODEL": str(folder / name)}

    return prepare


def above(folder: Path) -> Environ:
    model(nothing)(folder)
    return {"FORKLIFT_MODEL": str(folder)}


MANY = json.dumps({f"t{index}": TENSOR for index in range(700_000)}).encode
INDEX = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})

MISTAKES = (
    Mistake("a name that does not exist", "did you mean FORKLIFT_MAX_QUEUE?", settings(MAX_QUEU=1)),
    Mistake("no number", "FORKLIFT_MAX_QUEUE: ", settings(MAX_QUEUE="many")),
    Mistake("quotes from an env file", "leave the quotes out", settings(MAX_QUEUE='"7"')),
    Mistake("out of bounds", "FORKLIFT_MAX_BATCH_SIZE: ", settings(MAX_BATCH_SIZE=0)),
    Mistake("a blank value", "FORKLIFT_TLS_CERT: is set and blank", settings(TLS_CERT=" ")),
    Mistake("keys without a key", "FORKLIFT_API_KEYS: is set and holds no key", settings(API_KEYS=",")),
    Mistake("keys that are empty", "FORKLIFT_API_KEYS: is set and holds no key", settings(API_KEYS="")),
    Mistake("an unknown host", "FORKLIFT_BIND: 'abc' is neither an address", settings(BIND="abc")),
    Mistake("a port alone", "FORKLIFT_BIND: 70000 is a port without", settings(BIND="70000")),
    Mistake("no port", "FORKLIFT_BIND: 70000 in 127.0.0.1:70000 is no port", settings(BIND="127.0.0.1:70000")),
    Mistake("a URL to listen on", "FORKLIFT_BIND: http://127.0.0.1:80 is a URL", settings(BIND="http://127.0.0.1:80")),
    Mistake("a port that is taken", "is in use by another program", settings(BIND="127.0.0.1:{taken}")),
    Mistake("another machine's address", "192.0.2.1 is no address of this", settings(BIND="192.0.2.1")),
    Mistake("a socket in no folder", "is no folder", settings(BIND="unix:/nowhere/f.sock")),
    Mistake("a path prefix that is none", "FORKLIFT_PATH_PREFIX: is no path", settings(PATH_PREFIX="llm")),
    Mistake("no GPU", "FORKLIFT_DEVICE is cuda, but no GPU", settings(DEVICE="cuda")),
    Mistake("two settings at odds", "cannot both be above 1", settings(GPUS_PER_WORKER=2, WORKERS_PER_GPU=2)),
    Mistake("a certificate alone", "TLS_CERT and TLS_KEY are needed together", settings(TLS_CERT="/x")),
    Mistake("a key with a password", "a key with a password", locked_key),
    Mistake("no chat template", "FORKLIFT_CHAT_TEMPLATE: the file /x does not", settings(CHAT_TEMPLATE="/x")),
    Mistake("no file of models", "FORKLIFT_MODELS: cannot read", settings(MODELS="/nowhere.toml")),
    Mistake("a model's name with a slash", 'quote the name: ["org/m"]', tables("[org/m]\npath = '/m'")),
    Mistake("a model's name with a dot", 'quote it: ["qwen2.5"]', tables("[qwen2.5]\npath = '/m'")),
    Mistake("names that differ by case", "differ by case only", tables("[a]\npath = '/m'\n[A]\npath = '/n'")),
    Mistake("--max-requests", "option --max-requests is not possible here", option("--max-requests 20")),
    Mistake("--preload", "option --preload is not possible here", option("--preload")),
    Mistake("--reload", "option --reload is not possible here", option("--reload")),
    Mistake("--threads", "option --threads 2 is not possible here", option("--threads 2")),
    Mistake("-k gevent", "option --worker-class gevent is not possible here", option("-k gevent")),
    Mistake("no such folder", "/models/none does not exist", settings(MODEL="{folder}/none")),
    Mistake("a tilde", "only a shell knows ~", settings(MODEL="~/models/m")),
    Mistake("a file of weights", "MODEL is the folder that holds it", as_file("model.safetensors")),
    Mistake("a GGUF file", "is a GGUF file", as_file("model.gguf")),
    Mistake("the folder above", "has no config.json; /models/m has one", above),
    Mistake("a folder of another user", "permission denied", model(lambda path: path.chmod(0)), without_rights=True),
    Mistake(
        "weights of another user",
        "permission denied",
        model(lambda path: (path / "model.safetensors").chmod(0)),
        without_rights=True,
    ),
    Mistake(
        "a link that leads nowhere",
        "which does not exist",
        model(replace("tokenizer.json", lambda path: path.symlink_to("/nowhere/blob"))),
    ),
    Mistake("a pipe", "it is a named pipe", model(replace("config.json", os.mkfifo))),
    Mistake("a device", "it is a device", model(replace("config.json", lambda path: path.symlink_to("/dev/zero")))),
    Mistake(
        "config.json, 100,000 deep",
        "is nested too deeply",
        model(replace("config.json", lambda path: path.write_text("[" * 100_000))),
    ),
    Mistake("eos_token_id: x", "eos_token_id is 'x', not a token id", model(nothing, {"eos_token_id": "x"})),
    Mistake("a hub's kernel", "code is not fetched for it", model(nothing, {"attn_implementation": "someone/kernel"})),
    Mistake(
        "a damaged tokenizer.json",
        "is not valid JSON",
        model(replace("tokenizer.json", lambda path: path.write_text("{"))),
    ),
    Mistake(
        "pickled weights",
        "is a pickle file, which is never loaded",
        model(lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin")),
    ),
    Mistake(
        "a Git LFS pointer",
        "are a Git LFS pointer",
        model(
            replace("model.safetensors", lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"))
        ),
    ),
    Mistake(
        "weights cut short",
        "are cut short",
        model(
            lambda path: os.truncate(path / "model.safetensors", path.joinpath("model.safetensors").stat().st_size - 2)
        ),
    ),
    Mistake(
        "a shard is missing",
        "lacks 2 of 2 weight files",
        model(
            lambda path: [
                (path / "model.safetensors").unlink(),
                (path / "model.safetensors.index.json").write_text(INDEX),
            ]
        ),
    ),
    Mistake(
        "a header 100,000 deep",
        "have a broken header",
        model(lambda path: write_weights(path / "model.safetensors", b"[" * 100_000)),
    ),
    Mistake(
        "700,000 tensors", "hold 700000 tensors", model(lambda path: write_weights(path / "model.safetensors", MANY()))
    ),
    Mistake(
        "code of its own",
        "FORKLIFT_TRUST_REMOTE_CODE",
        demo(change_config(model_type="other", auto_map={"AutoConfig": "x.X"})),
        needs_model=True,
    ),
    Mistake(
        "a task that is not served",
        "is not served",
        demo(change_config(architectures=["LlamaForSequenceClassification"])),
        needs_model=True,
    ),
    Mistake(
        "weights of another model", "cannot load the model", demo(change_config(num_hidden_layers=99)), needs_model=True
    ),
    Mistake(
        "no tokenizer",
        "tokenizer",
        demo(lambda path: [one.unlink() for one in path.glob("tokenizer*")]),
        needs_model=True,
    ),
)


def attempt(mistake: Mistake) -> Outcome:
    """Start the server with the mistake and wait for its end."""
    with scratch() as folder, socket.create_server(("127.0.0.1", 0)) as taken:
        given = mistake.prepare(folder)
        given = {name: value.replace("{taken}", str(taken.getsockname()[1])) for name, value in given.items()}
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("FORKLIFT_", "CUDA_"))}
        environ = clean | {"FORKLIFT_BIND": "127.0.0.1:0", "FORKLIFT_DEVICE": "cpu", "HOME": str(folder)} | given
        command = [*(as_others() if mistake.without_rights else ()), sys.executable, "-m", "gunicorn", "wsgi:app"]
        start_s, cpu_start_s = time.monotonic(), cpu_seconds()
        ended = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_S,
            check=False,
        )
        seconds = time.monotonic() - start_s
        output = ended.stdout.decode(errors="replace")
        return Outcome(mistake, ended.returncode, output, seconds, cpu_seconds() - cpu_start_s, str(folder))


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that other users may enter."""
    folder = Path(tempfile.mkdtemp(prefix="forklift-start-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def cpu_seconds() -> float:
    """Of the children that have ended; true for one start where they are tried one after the other."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def as_others() -> tuple[str, ...]:
    """Root may read everything; without these rights it is as any other user with its own files."""
    if os.geteuid() != 0:
        return ()
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def possible() -> list[Mistake]:
    """Those that can be made here."""
    can_drop = os.geteuid() != 0 or shutil.which("setpriv") is not None
    return [one for one in MISTAKES if can_drop or not one.without_rights]


PAGE = """# Mistakes at a start

What the server says where it cannot start: one line on stderr, exit code 3. Written by
`python -m tests.e2e.start_mistakes`, which starts the real program with each mistake, one after the other; a test
does the same. Seconds on two cores that were busy with other work, and the processor time in them, which is what a
start takes on a free machine; the last four are found only when torch and the model's library have been imported.
What to do about each line: [operations](operations.md#what-stops-a-start).

| mistake | line | exit code | seconds | of processor time |
|---|---|---|---|---|
"""


def row(outcome: Outcome) -> str:
    # A page names no setting that does not exist, not even as an example.
    line = outcome.line.replace("|", "\\|").replace("`", "'").replace("MAX_QUEU;", "...;")
    return f"| {outcome.mistake.name} | `{line}` | {outcome.code} | {outcome.seconds:.1f} | {outcome.cpu_seconds:.1f} |"


def main() -> None:
    print(PAGE + "\n".join(row(attempt(mistake)) for mistake in possible()))


if __name__ == "__main__":
    main()
