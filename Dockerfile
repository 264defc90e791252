# Build for a GPU: --build-arg BASE_IMAGE=<an image with CUDA and Python 3.11 or 3.12>
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}

WORKDIR /srv/forklift
COPY setup.cfg pyproject.toml constraints.txt README.md LICENSE wsgi.py gunicorn.conf.py ./
COPY app ./app
RUN python -m venv /opt/forklift \
 && /opt/forklift/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt . \
 && rm -rf app build *.egg-info

RUN useradd --system --uid 10001 --home-dir /nonexistent forklift
USER 10001
ENV PATH=/opt/forklift/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp
EXPOSE 5000
STOPSIGNAL SIGTERM
CMD ["gunicorn", "wsgi:app"]
