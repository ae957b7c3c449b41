# A plain image of pinned packages.
# Written by envbuild from the lock sha256:….
# Change the spec and render again, rather than this file.

# Debian trixie: 2 packages, each pinned by its SHA-256 in lock/envbuild.lock.
FROM scratch AS base
ADD base.tar.gz /

FROM base
COPY lock/ Dockerfile /usr/share/envbuild/

ENV HOME="/home/env" \
    LANG="C.UTF-8" \
    LOGNAME="env" \
    OMP_NUM_THREADS="4" \
    PATH="/opt/env/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    USER="env"
LABEL "dev.envbuild.definition"="sha256:3333333333333333333333333333333333333333333333333333333333333333" \
      "dev.envbuild.level"="L2" \
      "dev.envbuild.lock"="sha256:…" \
      "org.opencontainers.image.created"="1970-01-01T00:00:00Z"
WORKDIR /home/env
USER 1000:1000
CMD ["sh"]
