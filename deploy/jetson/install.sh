#!/usr/bin/env bash
# Installs edge-resnet on a Jetson: system packages, a virtual environment that sees JetPack's TensorRT and OpenCV, PyCUDA,
# camera rules, the group video. A second run adds what is missing and changes nothing else.
set -euo pipefail
# shellcheck source=board.sh
source "$(dirname "${BASH_SOURCE[0]}")/board.sh"

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
RULES=99-edge-resnet-cameras.rules
VENV=${HOME:?}/edge-resnet-venv
PACKAGE=edge-resnet

usage() {
    cat <<'END'
usage: deploy/jetson/install.sh [--help] [--dry-run] [--venv FOLDER] [PACKAGE]

PACKAGE        what pip installs: a wheel or a checkout of edge-resnet (default: edge-resnet)
--venv FOLDER  folder of the virtual environment (default: ~/edge-resnet-venv)
--dry-run      show all commands, but run none that changes anything

Run it as yourself: it uses sudo where necessary. TensorRT and OpenCV are those of JetPack, not of pip: the OpenCV of pip
has no GStreamer and would hide the one of JetPack, which needs numpy below 2. The packages that compile engines on the
board are installed as well; torch is not.
END
}

parse() {
    while (($#)); do
        case $1 in
            --help | -h) usage && exit 0 ;;
            --dry-run) DRY_RUN=1 ;;
            --venv)
                (($# > 1)) || fail "--venv needs a folder" "$0 --help" 2
                VENV=$2
                shift
                ;;
            -*) fail "$1 is not an option" "$0 --help" 2 ;;
            *) PACKAGE=$1 ;;
        esac
        shift
    done
    if [[ $PACKAGE == *.whl && ! -f $PACKAGE ]]; then
        fail "there is no wheel $PACKAGE" "create it in the checkout: pip wheel --no-deps -w dist ." 2
    fi
}

is_installed() {
    [[ $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null || true) == "install ok installed" ]]
}

install_system_packages() {
    local missing=() name
    for name in python3-venv python3-dev python3-opencv build-essential; do
        is_installed "$name" || missing+=("$name")
    done
    # This package contains both; images for small disks leave it out.
    if [[ ! -x $ROOT/usr/local/cuda/bin/nvcc ]] || ! compgen -G "$ROOT/usr/lib/python3*/dist-packages/tensorrt*" >/dev/null; then
        missing+=(nvidia-jetpack)
    fi
    ((${#missing[@]})) || return 0
    root_step apt-get update
    root_step env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

make_environment() {
    if ! grep -qs '^include-system-site-packages = true' "$VENV/pyvenv.cfg"; then
        step "$ROOT/usr/bin/python3" -m venv --system-site-packages "$VENV"
    fi
    step "$VENV/bin/python" -m pip install --no-cache-dir "${PACKAGE}[compile]" 'numpy<2'
    if compgen -G "$VENV/lib/python3*/site-packages/opencv_*" >/dev/null; then
        step "$VENV/bin/python" -m pip uninstall -y opencv-python opencv-python-headless \
            opencv-contrib-python opencv-contrib-python-headless
    fi
    # PyCUDA has no wheel: it is compiled here, with the toolkit that is on PATH.
    step env "PATH=$ROOT/usr/local/cuda/bin:$PATH" "$VENV/bin/python" -m pip install --no-cache-dir 'pycuda>=2024.1' 'numpy<2'
}

install_rules() {
    local target="$ROOT/etc/udev/rules.d/$RULES"
    if cmp -s "$HERE/$RULES" "$target"; then return; fi
    root_step install -D -m 644 "$HERE/$RULES" "$target"
    root_step udevadm control --reload
    root_step udevadm trigger --subsystem-match=video4linux
}

join_group() {
    local user
    user=$(id -un)
    if [[ $user == root || " $(id -nG) " == *" video "* ]]; then return; fi
    root_step usermod -aG video "$user"
    report 'log out and in again for the group video to take effect\n'
}

parse "$@"
require_jetpack
if [[ -n ${SUDO_USER:-} ]]; then
    fail "under sudo the virtual environment would belong to root" "run $0 without sudo: it uses sudo where necessary"
fi
install_system_packages
make_environment
install_rules
join_group
step "$VENV/bin/edge-resnet" doctor
