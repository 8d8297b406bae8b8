# The image of one gateway: `docker build -t atlas .`, then `docker run -p 127.0.0.1:8080:8080 atlas serve --host 0.0.0.0 --insecure`.
# Two stages: what installs stays behind. Nothing is installed whose hash does not stand in the lock file.
# At run time no shell is needed, nothing is written to the file system, and any user id will do.

FROM python:3.12-slim AS build
# With OpenTelemetry: docker build --build-arg LOCK=requirements-otel.lock
ARG LOCK=requirements.lock
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN ["python", "-m", "venv", "--without-pip", "/opt/atlas"]
COPY ${LOCK} ./requirements.lock
RUN ["python", "-m", "pip", "--python", "/opt/atlas/bin/python", "install", "--require-hashes", "--only-binary", ":all:", "-r", "requirements.lock"]
COPY pyproject.toml README.md LICENSE ./
COPY config ./config
COPY agents ./agents
COPY gateway ./gateway
RUN ["python", "-m", "pip", "--python", "/opt/atlas/bin/python", "install", "--no-deps", "--no-build-isolation", "."]
RUN ["/opt/atlas/bin/atlas", "check"]

FROM python:3.12-slim
LABEL org.opencontainers.image.title="Atlas" \
      org.opencontainers.image.description="A self-hosted gateway in front of LLM providers" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/atlas /opt/atlas
ENV PATH=/opt/atlas/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# Liveness, not readiness: a gateway that drains, or whose Redis is away, must not be shot for it.
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('ATLAS_SERVER__PORT', '8080')}/livez\", timeout=2)"]
ENTRYPOINT ["atlas"]
CMD ["serve"]
