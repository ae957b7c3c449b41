# An image taken as it is, with the variables and labels of its environment.
# Written by envbuild from the lock sha256:….
# Change the spec and render again, rather than this file.

FROM registry.example/ml/python:3.13-slim@sha256:5555555555555555555555555555555555555555555555555555555555555555
ENV OMP_NUM_THREADS="4"
LABEL "dev.envbuild.definition"="sha256:3333333333333333333333333333333333333333333333333333333333333333" \
      "dev.envbuild.level"="L2" \
      "dev.envbuild.lock"="sha256:…" \
      "org.opencontainers.image.base.digest"="sha256:5555555555555555555555555555555555555555555555555555555555555555" \
      "org.opencontainers.image.base.name"="registry.example/ml/python:3.13-slim" \
      "org.opencontainers.image.created"="1970-01-01T00:00:00Z"
