# An environment of pinned packages in /opt/env.
# Written by envbuild from the lock sha256:….
# Change the spec and render again, rather than this file.

FROM registry.example/ml/python:3.13-slim@sha256:5555555555555555555555555555555555555555555555555555555555555555 AS base
USER 0:0
# A standalone build of python 3.10.13, by its SHA-256 in lock/envbuild.lock.
ADD python.tar.gz /opt/
RUN /opt/python/bin/python3.10 -m compileall -q -f -j 0 --invalidation-mode=checked-hash \
      /opt/python/lib/python3.10 || true
RUN install -d -m 0775 -o 1000 -g 0 /home/env

# The software, each distribution by its hash. What installs it stays in this stage.
FROM base AS software
RUN /opt/python/bin/python3.10 -m venv --without-pip /opt/env
COPY installer/pip-26.3-py3-none-any.whl /installer/
COPY requirements.txt /installer/
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip-conf,target=/etc/pip.conf \
    --mount=type=secret,id=netrc,target=/root/.netrc \
    --mount=type=secret,id=ca-certificates,target=/run/secrets/ca-certificates.crt \
    /opt/python/bin/python3.10 /installer/pip-26.3-py3-none-any.whl/pip --python=/opt/env/bin/python install \
      --no-deps --require-hashes --only-binary=:all: --no-compile --progress-bar=off --root-user-action=ignore \
      --requirement=/installer/requirements.txt
# Byte code that no time makes stale. A package may hold files of another Python, which stay as they are.
RUN /opt/env/bin/python -m compileall -q -f -j 0 --invalidation-mode=checked-hash /opt/env/lib || true

FROM base
COPY --from=software /opt/env /opt/env
COPY lock/ Dockerfile /usr/share/envbuild/

ENV HOME="/home/env" \
    LANG="C.UTF-8" \
    LOGNAME="env" \
    OMP_NUM_THREADS="4" \
    PATH="/opt/env/bin:${PATH}" \
    USER="env" \
    VIRTUAL_ENV="/opt/env"
LABEL "dev.envbuild.definition"="sha256:3333333333333333333333333333333333333333333333333333333333333333" \
      "dev.envbuild.level"="L2" \
      "dev.envbuild.lock"="sha256:…" \
      "org.opencontainers.image.base.digest"="sha256:5555555555555555555555555555555555555555555555555555555555555555" \
      "org.opencontainers.image.base.name"="registry.example/ml/python:3.13-slim" \
      "org.opencontainers.image.created"="1970-01-01T00:00:00Z"
WORKDIR /home/env
USER 1000:1000
ENTRYPOINT []
CMD ["python"]
