# edge-resnet on a Jetson Orin with JetPack 6.1 to 6.2.x (L4T R36.4 and R36.5, CUDA 12.6, TensorRT 10.3).
#
# Build on the board, in the root of the checkout (BuildKit is needed: Docker 23 or newer has it):
#   docker build -f deploy/docker/jetpack6.Dockerfile -t edge-resnet:jetpack6 .
# Compile the engine for this board once. It is written into the artifact, so the mount is writable and the user is you:
#   docker run --rm --runtime nvidia --user "$(id -u):$(getent group video | cut -d: -f3)" \
#       -v "$PWD/artifacts:/artifacts" edge-resnet:jetpack6 compile /artifacts/NAME
# Run with a read-only artifact:
#   docker run --runtime nvidia --device /dev/video0 -v /etc/nv_tegra_release:/etc/nv_tegra_release:ro \
#       -v "$PWD/artifacts:/artifacts:ro" edge-resnet:jetpack6 run /artifacts/NAME --camera 0 --jsonl -
#
# TensorRT loads only under --runtime nvidia, which mounts libnvdla_compiler.so from the board; it is absent during the build.
# JetPack 7 has no such library: this image does not run there.
#
# The CUDA compiler is only in the build stage: the driver compiles the kernels that resize frames from the PTX of the package.
#
# The bases are pinned by exact tag. Their digests are not written here, since no image has been pulled and checked yet:
# `docker buildx imagetools inspect BASE` prints the digest to put behind the tag, as BASE@sha256:…
#
# Built: not yet on any machine.

FROM nvcr.io/nvidia/l4t-tensorrt:r10.3.0-devel AS build
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
# The extras "tensorrt" and "camera" are not installed: both packages come from the system, whose OpenCV is built for numpy 1.
# PyCUDA has no wheel: it is compiled here. The other packages are those of constraints.txt, without the ones that need numpy 2.
ENV PATH=/usr/local/cuda/bin:$PATH
RUN /usr/bin/python3 -m venv --system-site-packages /opt/venv \
    && grep -Ev '^(numpy|ml-dtypes|opencv)' constraints.txt > /tmp/constraints.txt \
    && /opt/venv/bin/pip install --no-cache-dir --constraint /tmp/constraints.txt \
        '.[compile]' 'pycuda==2026.1' 'numpy<2' 'ml-dtypes<0.6'

FROM nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime
LABEL org.opencontainers.image.title="edge-resnet (JetPack 6)" \
      org.opencontainers.image.description="Classifies camera frames with a ResNet on TensorRT" \
      org.opencontainers.image.licenses="Apache-2.0"
# The OpenCV of Ubuntu has GStreamer, unlike that of pip.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-opencv \
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
