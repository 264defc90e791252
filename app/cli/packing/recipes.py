"""The texts of a kit: how to install it, as a script, an image recipe and a page. Pure."""

from __future__ import annotations

INSTALL = """\
#!/bin/sh
# Checks this kit, then installs it without any network.   ./install.sh [FOLDER of the new environment]
set -eu
kit=$(cd "$(dirname "$0")" && pwd)
target=${{1:-$kit/environment}}
python=${{PYTHON:-python3}}
if [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" != "{python}" ]; then
  echo "install.sh: the wheels are for Python {python}; name one: PYTHON=python{python} ./install.sh" >&2
  exit 1
fi
if [ "$(uname -m)" != "{machine}" ]; then
  echo "install.sh: the wheels are for {machine}, this is $(uname -m)" >&2
  exit 1
fi
(cd "$kit" && sha256sum --check --quiet --strict SHA256SUMS)
"$python" -m venv "$target"
"$target/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \\
  --find-links "$kit/wheels" --requirement "$kit/requirements.txt"
export HF_HUB_OFFLINE=1
{doctor}
echo "Installed. Start it with:"
echo "  {start}"
"""

DOCKERFILE = """\
# An image from this kit alone; only the base image must be in the intranet's registry.
ARG BASE_IMAGE=python:{python}-slim-bookworm
FROM ${{BASE_IMAGE}} AS packages
COPY requirements.txt /kit/
COPY wheels /kit/wheels
RUN python3 -m venv /opt/forklift \\
 && /opt/forklift/bin/pip install --no-cache-dir --disable-pip-version-check --no-index --no-deps \\
    --find-links /kit/wheels --requirement /kit/requirements.txt

FROM ${{BASE_IMAGE}}
RUN useradd --system --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin forklift
COPY --from=packages /opt/forklift /opt/forklift
{models}WORKDIR /opt/forklift/share/forklift
ENV PATH=/opt/forklift/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 \\
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
EXPOSE 5000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --retries=3 CMD ["python", "-m", "app.serve.probe"]
CMD ["gunicorn", "wsgi:app"]
"""

README = """\
# Forklift {version}, packed for a machine without a network

For Linux on {machine} with Python {python} and its venv module; made from {num_wheels} wheels in the versions that ran
where this kit was packed.

    sha256sum --check SHA256SUMS      # or: forklift pack --verify .
    ./install.sh                      # a virtual environment in ./environment; another folder as its argument
    {start}

As an image: `docker build -t forklift .` in this folder; `--build-arg BASE_IMAGE=` names one of your own registry.
{models}
`forklift doctor` checks the machine, `forklift --help` lists what else there is. `kit.json` says where each wheel came
from.
"""


def install_script(python: str, machine: str, models: list[str]) -> str:
    """Exits with 1 where Python, machine, sums or the doctor say no."""
    checks = [f'"$target/bin/forklift" doctor --model "$kit/models/{name}"' for name in models]
    return INSTALL.format(
        python=python,
        machine=machine,
        doctor="\n".join(checks or ['"$target/bin/forklift" doctor']),
        start=_start("$target", "$kit/", models),
    )


def dockerfile(python: str, models: list[str]) -> str:
    """The first model is the one that is served unless the environment says otherwise."""
    lines = "".join(f"COPY models/{name} /models/{name}\n" for name in models)
    first = f"ENV FORKLIFT_MODEL=/models/{models[0]}\n" if models else ""
    return DOCKERFILE.format(python=python, models=lines + first)


def readme(version: str, python: str, machine: str, num_wheels: int, models: list[str]) -> str:
    listed = "\nModels: " + ", ".join(f"`models/{name}`" for name in models) + ".\n" if models else ""
    start = _start("environment", "", models)
    return README.format(
        version=version, python=python, machine=machine, num_wheels=num_wheels, models=listed, start=start
    )


def _start(environment: str, kit: str, models: list[str]) -> str:
    model = f" --model {kit}models/{models[0]}" if models else ""
    return f"{environment}/bin/forklift serve{model}"
