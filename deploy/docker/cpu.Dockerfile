# edge-resnet on the CPU, with cameras and videos.
#
# Build in the root of the checkout (needs BuildKit, which Docker 23 and newer include):
#   docker build -f deploy/docker/cpu.Dockerfile -t edge-resnet:cpu .
# Compile the engine for this CPU once. It is written into the artifact, so the mount is writable and the user is you:
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/artifacts:/artifacts" edge-resnet:cpu compile /artifacts/NAME
# Run with a read-only artifact:
#   docker run --device /dev/video0 -v "$PWD/artifacts:/artifacts:ro" edge-resnet:cpu run /artifacts/NAME --camera 0 --jsonl -
#
# The bases are pinned by exact tag. Their digests are not written here, since no image has been pulled and checked yet:
# `docker buildx imagetools inspect BASE` prints the digest to put behind the tag, as BASE@sha256:…
#
# Built: not yet on any machine.

FROM python:3.12.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY edge_resnet edge_resnet
COPY calibration calibration
COPY deploy deploy
# Headless OpenCV instead of the extra "camera": the same cameras and codecs without graphics libraries.
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt '.[compile]' 'opencv-python-headless==5.0.0.93'

FROM python:3.12.12-slim-bookworm
LABEL org.opencontainers.image.title="edge-resnet (CPU)" \
      org.opencontainers.image.description="Classifies camera frames with a ResNet on ONNX Runtime" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --groups video --no-create-home edge-resnet \
    && install -d -m 1777 /cache \
    && install -d -o edge-resnet /artifacts
COPY --from=build /opt/venv /opt/venv
COPY deploy/docker/healthcheck.py /usr/local/bin/healthcheck.py
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/cache
USER 10001
# If no artifact is named, the newest under ./artifacts is used, which is /artifacts here.
WORKDIR /
# Compiling an engine before the first frame may take minutes.
HEALTHCHECK --interval=30s --timeout=20s --start-period=15m --retries=3 \
    CMD ["/opt/venv/bin/python", "/usr/local/bin/healthcheck.py"]
ENTRYPOINT ["edge-resnet"]
CMD ["doctor"]
