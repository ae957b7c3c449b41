# A Spark environment: Java, pyspark and pinned packages in /opt/env.
# Written by envbuild from the lock sha256:….
# Change the spec and render again, rather than this file.

# Debian trixie: 3 packages, each pinned by its SHA-256 in lock/envbuild.lock.
FROM scratch AS base
ADD base.tar.gz /

# The software, each distribution by its hash. What installs it stays in this stage.
FROM base AS software
RUN /usr/bin/python3.13 -m venv --without-pip /opt/env
COPY installer/pip-26.3-py3-none-any.whl /installer/
COPY requirements.txt /installer/
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip-conf,target=/etc/pip.conf \
    --mount=type=secret,id=netrc,target=/root/.netrc \
    --mount=type=secret,id=ca-certificates,target=/run/secrets/ca-certificates.crt \
    /usr/bin/python3.13 /installer/pip-26.3-py3-none-any.whl/pip --python=/opt/env/bin/python install \
      --no-deps --require-hashes --only-binary=:all: --no-compile --progress-bar=off --root-user-action=ignore \
      --requirement=/installer/requirements.txt
# Byte code that no time makes stale. A package may hold files of another Python, which stay as they are.
RUN /opt/env/bin/python -m compileall -q -f -j 0 --invalidation-mode=checked-hash /opt/env/lib || true

FROM base
COPY --from=software /opt/env /opt/env
COPY jars/ /opt/env/lib/python3.13/site-packages/pyspark/jars/
COPY lock/ Dockerfile /usr/share/envbuild/

ENV HOME="/home/env" \
    JAVA_HOME="/usr/lib/jvm/java-21-openjdk-amd64" \
    LANG="C.UTF-8" \
    LOGNAME="env" \
    OMP_NUM_THREADS="4" \
    PATH="/opt/env/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    PYSPARK_DRIVER_PYTHON="/opt/env/bin/python" \
    PYSPARK_PYTHON="/opt/env/bin/python" \
    SPARK_HOME="/opt/env/lib/python3.13/site-packages/pyspark" \
    USER="env" \
    VIRTUAL_ENV="/opt/env"
LABEL "dev.envbuild.definition"="sha256:3333333333333333333333333333333333333333333333333333333333333333" \
      "dev.envbuild.level"="L2" \
      "dev.envbuild.lock"="sha256:…" \
      "org.opencontainers.image.created"="1970-01-01T00:00:00Z"
WORKDIR /home/env
USER 1000:1000
CMD ["python"]
