#!/usr/bin/env bash
# Checks what edge-resnet needs on a Jetson before it is installed, and prints the one command that fixes each problem.
set -euo pipefail
# shellcheck source=board.sh
source "$(dirname "${BASH_SOURCE[0]}")/board.sh"

# The same limits as in edge-resnet doctor.
MIN_FREE_MIB=2048
MIN_DISK_MIB=2048
WITHOUT_SWAP_MIB=8192

usage() {
    cat <<'END'
usage: deploy/jetson/check.sh [--help] [--dry-run]

Checks this Jetson and changes nothing (--dry-run makes no difference). Each line is ok, note (works, but could be
better) or problem; a note or a problem is followed by the one command that fixes it.
Exit code: 0 no problem, 1 a problem or not a supported Jetson, 2 wrong usage.
ROOT=FOLDER reads FOLDER instead of /.
END
}

problems=0

line() { printf '%-8s %-10s %s\n' "$1" "$2" "$3"; }
fix() { printf '%-8s %-10s   %s\n' "" "" "$1"; }
ok() { line ok "$1" "$2"; }
note() {
    line note "$1" "$2"
    fix "$3"
}
problem() {
    line problem "$1" "$2"
    fix "$3"
    problems=$((problems + 1))
}

meminfo_mib() {
    awk -v key="$1:" '$1 == key {print int($2 / 1024); exit}' "$ROOT/proc/meminfo" 2>/dev/null || true
}

check_jetpack() {
    local l4t board=""
    require_jetpack
    l4t=$(l4t_version)
    if [[ -r $ROOT/proc/device-tree/model ]]; then board=", $(tr -d '\0' <"$ROOT/proc/device-tree/model")"; fi
    ok jetpack "$(jetpack_of "$l4t") (L4T $l4t)$board"
}

check_python() {
    local version
    if ! version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); then
        problem python "$PYTHON does not run" "sudo apt-get install -y python3 python3-venv"
    elif (($(cut -d. -f2 <<<"$version") < 10)); then
        problem python "$version is older than 3.10" "sudo apt-get install --reinstall -y python3-minimal"
    else
        ok python "$version"
    fi
    if "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        ok venv "works"
    else
        problem venv "virtual environments cannot be created" "sudo apt-get install -y python3-venv"
    fi
}

# Only an import is a proof: a module whose libraries are missing is found, but does not load.
check_tensorrt() {
    local output
    if output=$("$PYTHON" -c 'import tensorrt; print(tensorrt.__version__)' 2>&1); then
        ok tensorrt "$output"
    elif [[ $output == *"No module named 'tensorrt'"* || ! -x $PYTHON ]]; then
        problem tensorrt "not visible to $PYTHON" "sudo apt-get install -y nvidia-jetpack"
    else
        problem tensorrt "cannot be imported: $(tail -n 1 <<<"$output")" "sudo apt-get install --reinstall -y python3-libnvinfer"
    fi
}

# pip compiles PyCUDA during its installation.
check_nvcc() {
    if [[ -x $ROOT/usr/local/cuda/bin/nvcc ]]; then
        ok nvcc "/usr/local/cuda/bin/nvcc"
    else
        problem nvcc "no /usr/local/cuda/bin/nvcc, which compiles PyCUDA" "sudo apt-get install -y nvidia-jetpack"
    fi
}

# hasBackend, because the registry lists GStreamer even if it is not built in.
OPENCV_PROBE='
import cv2
has = cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)
print(cv2.__version__, "with" if has else "without", "GStreamer,", cv2.__file__)
'

check_opencv() {
    local output
    if output=$("$PYTHON" -c "$OPENCV_PROBE" 2>&1); then
        if [[ $output == *" with GStreamer"* ]]; then
            ok opencv "${output%%, *}"
        elif [[ $output == */dist-packages/* && $output != */local/* ]]; then
            problem opencv "${output%%, *}: no CSI cameras" "sudo apt-get install --reinstall -y python3-opencv"
        else
            problem opencv "pip's ${output%%, *} hides the one of JetPack: no CSI cameras" \
                "$PYTHON -m pip uninstall -y opencv-python opencv-python-headless"
        fi
    elif [[ $output == *"No module named 'cv2'"* || ! -x $PYTHON ]]; then
        problem opencv "not installed" "sudo apt-get install -y python3-opencv"
    elif [[ ${output,,} == *numpy* ]]; then
        problem opencv "cannot be imported: it is built for numpy 1" "$PYTHON -m pip install 'numpy<2'"
    else
        problem opencv "cannot be imported: $(tail -n 1 <<<"$output")" "sudo apt-get install --reinstall -y python3-opencv"
    fi
}

check_power() {
    local mode highest
    mode=$(stored_mode)
    highest=$(highest_mode)
    if [[ -z $mode ]]; then
        note power "mode unknown" "sudo nvpmodel -q"
    elif [[ $mode == "$highest" ]]; then
        ok power "$(mode_name "$mode")"
    else
        note power "$(mode_name "$mode"), not $(mode_name "$highest"): slower" "$(dirname "$0")/power.sh max"
    fi
}

check_memory() {
    local total free swap
    total=$(meminfo_mib MemTotal) free=$(meminfo_mib MemAvailable) swap=$(meminfo_mib SwapTotal)
    if [[ -z $free ]]; then
        note memory "cannot be read" "cat /proc/meminfo"
        return
    elif ((free < MIN_FREE_MIB)); then
        problem memory "$free of $total MiB available, $MIN_FREE_MIB needed to build engines for the GPU" \
            "sudo systemctl isolate multi-user.target"
    else
        ok memory "$free of $total MiB available"
    fi
    if ((${swap:-0} > 0 || total >= WITHOUT_SWAP_MIB)); then
        ok swap "${swap:-0} MiB"
    elif [[ -e $ROOT/etc/systemd/nvzramconfig.sh ]]; then
        problem swap "none: engine builds may run out of memory and be killed" "sudo systemctl enable --now nvzramconfig"
    else
        problem swap "none: engine builds may run out of memory and be killed" \
            "sudo fallocate -l 8G /swap && sudo chmod 600 /swap && sudo mkswap /swap && sudo swapon /swap"
    fi
}

check_disk() {
    local free
    free=$(df -Pk "$ROOT/" | awk 'NR == 2 {print int($4 / 1024)}')
    if ((free < MIN_DISK_MIB)); then
        problem disk "$free MiB free, $MIN_DISK_MIB needed" "sudo apt-get clean"
    else
        ok disk "$free MiB free"
    fi
}

check_group() {
    local user
    user=$(id -un)
    if [[ $user == root || " $(id -nG) " == *" video "* ]]; then
        ok group "$user may open cameras and the GPU"
    else
        problem group "$user is not in the group video" "sudo usermod -aG video $user"
    fi
}

for argument in "$@"; do
    case $argument in
        --help | -h) usage && exit 0 ;;
        --dry-run) ;;
        *) fail "$argument is not an option" "$0 --help" 2 ;;
    esac
done

PYTHON=$ROOT/usr/bin/python3
check_jetpack
check_python
check_tensorrt
check_nvcc
check_opencv
check_power
check_memory
check_disk
check_group
if ((problems)); then
    printf '\nnot ready: %d problem(s)\n' "$problems"
    exit 1
fi
printf '\nready: %s/install.sh\n' "$(dirname "$0")"
