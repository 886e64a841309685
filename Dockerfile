# `docker build .`, or `make image` on a machine without a container engine: that builds this very file
# on packages of Debian, runs the image and writes a list of its parts. `make test` reads it only
# (tests/unit/test_container_files.py).

# The tag is for readers; the digest decides. Renew both together.
ARG PYTHON_IMAGE=python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src

# The requirements alone first: this layer stays as long as the lock does.
COPY requirements/run.txt requirements/build.txt requirements/
RUN python -m venv /opt/builder \
 && /opt/builder/bin/pip install --require-hashes -r requirements/build.txt \
 && python -m venv /opt/milepost \
 && /opt/milepost/bin/pip install --require-hashes -r requirements/run.txt

COPY pyproject.toml README.md LICENSE ./
COPY clients/python clients/python
COPY migrations migrations
COPY service service
RUN /opt/builder/bin/pip wheel --no-deps --no-build-isolation --wheel-dir wheels . ./clients/python \
 && /opt/milepost/bin/pip install --no-deps --no-index wheels/*.whl \
 && /opt/milepost/bin/pip uninstall --yes pip \
 && install --directory --owner 10001 --group 10001 /data

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/milepost /opt/milepost
COPY --from=build --chown=10001:10001 /data /var/lib/milepost
ENV PATH=/opt/milepost/bin:$PATH PYTHONUNBUFFERED=1
# Where the embedded store puts its file, unless it is told otherwise; PostgreSQL needs nothing here.
WORKDIR /var/lib/milepost
ENV MILEPOST_DATABASE_URL=sqlite:////var/lib/milepost/milepost.db
# Others can reach these, so `serve` asks for MILEPOST_ALLOW_PLAINTEXT=true: TLS is the proxy's part.
ENV MILEPOST_LISTEN=0.0.0.0:7450 MILEPOST_HTTP_LISTEN=0.0.0.0:7451
USER 10001:10001
EXPOSE 7450 7451
STOPSIGNAL SIGTERM
# One process. For more cores, on PostgreSQL: `serve --processes 4`.
ENTRYPOINT ["/opt/milepost/bin/milepost"]
CMD ["serve"]
