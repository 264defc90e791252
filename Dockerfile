# syntax=docker/dockerfile:1
# One file for CPU and GPU; docs/deployment.md has the commands.
#   BASE_IMAGE  any image with Python 3.11 or 3.12, its venv module and useradd
#   TORCH_SPEC  what pip is asked for: the wheel decides between CPU and CUDA
#   EXTRAS      names of setup.cfg's extras, as grpc,zookeeper
#   COMPILER    1: with g++ and torch's headers, so that servers compile steps of models (docs/models.md)
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS dependencies
ARG TORCH_SPEC=torch==2.13.0
ARG EXTRAS=
ARG COMPILER=0
WORKDIR /build
# pip stays outside the environment that is copied on.
RUN python3 -m venv /build/tools && python3 -m venv --without-pip /opt/forklift
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# By far the largest download, and the one that changes least.
RUN /build/tools/bin/pip --python /opt/forklift/bin/python install ${TORCH_SPEC}
COPY setup.cfg constraints.txt ./
RUN /build/tools/bin/python -c "import configparser as c; p = c.ConfigParser(); p.read('setup.cfg'); \
print(p['options']['install_requires'], *(p['options.extras_require'][e] for e in '${EXTRAS}'.replace(',', ' ').split()))" \
 > requirements.txt \
 && /build/tools/bin/pip --python /opt/forklift/bin/python install -c constraints.txt -r requirements.txt \
 # C++ headers: without a compiler nothing in the image could compile with them.
 && if [ "${COMPILER}" != 1 ]; then rm -rf /opt/forklift/lib/python3*/site-packages/torch/include; fi

FROM dependencies AS application
COPY pyproject.toml README.md LICENSE forklift_client.py wsgi.py gunicorn.conf.py ./
COPY app ./app
RUN /build/tools/bin/pip --python /opt/forklift/bin/python install --no-deps --prefix /layer .

FROM ${BASE_IMAGE}
ARG COMPILER=0
RUN if [ "${COMPILER}" = 1 ]; then apt-get update && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*; fi
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin forklift \
 && mkdir -p /models
COPY --from=dependencies /opt/forklift /opt/forklift
COPY --from=application /layer /opt/forklift
COPY wsgi.py gunicorn.conf.py /srv/forklift/
WORKDIR /srv/forklift
# The driver mounts its libraries only for the capabilities named here; without a GPU nobody reads this.
ENV PATH=/opt/forklift/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
# 50051 where FORKLIFT_GRPC_BIND opens it (EXTRAS=grpc).
EXPOSE 5000 50051
STOPSIGNAL SIGTERM
# A large model loads for minutes; failures do not count until then, and the first success ends that time.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --retries=3 CMD ["python", "-m", "app.serve.probe"]
CMD ["gunicorn", "wsgi:app"]
