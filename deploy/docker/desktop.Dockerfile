# edge-resnet on an NVIDIA GPU of a desktop or server (x86-64), with cameras and videos.
# The host needs NVIDIA driver 580 or newer (CUDA 13) and the NVIDIA Container Toolkit.
#
# Build in the root of the checkout (needs BuildKit, which Docker 23 and newer include):
#   docker build -f deploy/docker/desktop.Dockerfile -t edge-resnet:desktop .
# Compile the engine for this GPU once. It is written into the artifact, so the mount is writable and the user is you:
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD/artifacts:/artifacts" edge-resnet:desktop \
#       compile /artifacts/NAME
# Run with a read-only artifact:
#   docker run --gpus all --device /dev/video0 -v "$PWD/artifacts:/artifacts:ro" edge-resnet:desktop \
#       run /artifacts/NAME --camera 0 --jsonl -
#
# The CUDA compiler is only in the build stage: the driver compiles the kernels that resize frames from the PTX of the package.
#
# The bases are pinned by exact tag. Their digests are not written here, since no image has been pulled and checked yet:
# `docker buildx imagetools inspect BASE` prints the digest to put behind the tag, as BASE@sha256:…
#
# Built: not yet on any machine.

FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS build
# The tag of the base image pins the release from which these packages come.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY edge_resnet edge_resnet
COPY calibration calibration
COPY deploy deploy
# PyCUDA has no wheel: it is compiled here against the headers and the driver stub, and needs neither at run time.
# Headless OpenCV instead of the extra "camera": the same cameras and codecs without graphics libraries.
ENV PATH=/usr/local/cuda/bin:$PATH
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt '.[tensorrt]' \
        'opencv-python-headless==5.0.0.93' 'pycuda==2026.1' 'tensorrt==11.4.0.106'

FROM nvidia/cuda:13.0.1-base-ubuntu24.04
LABEL org.opencontainers.image.title="edge-resnet (desktop GPU)" \
      org.opencontainers.image.description="Classifies camera frames with a ResNet on TensorRT" \
      org.opencontainers.image.licenses="Apache-2.0"
# PyCUDA is linked with cuRAND; TensorRT contains its own libraries.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libcurand-13-0 python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --groups video --no-create-home edge-resnet \
    && install -d -m 1777 /cache \
    && install -d -o edge-resnet /artifacts
COPY --from=build /opt/venv /opt/venv
COPY deploy/docker/healthcheck.py /usr/local/bin/healthcheck.py
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/cache CUDA_CACHE_PATH=/cache/nv
USER 10001
# If no artifact is named, the newest under ./artifacts is used, which is /artifacts here.
WORKDIR /
# Compiling an engine before the first frame takes minutes.
HEALTHCHECK --interval=30s --timeout=20s --start-period=15m --retries=3 \
    CMD ["/opt/venv/bin/python", "/usr/local/bin/healthcheck.py"]
ENTRYPOINT ["edge-resnet"]
CMD ["doctor"]
