# shellcheck shell=bash
# What the scripts beside it share: reading the board's files, and how a step is shown and taken. Sourced, not run.
#
# ROOT: the folder that stands for / where files are read and written; empty on a board.

ROOT=${ROOT:-}
DRY_RUN=0

# fail MESSAGE [HINT] [EXIT CODE]: two lines on stderr, as the program itself says them.
fail() {
    printf 'error: %s\n' "$1" >&2
    if [[ -n ${2:-} ]]; then printf 'hint: %s\n' "$2" >&2; fi
    exit "${3:-1}"
}

# step COMMAND...: shown so that it can be pasted; taken unless this is a dry run.
step() {
    printf '+'
    printf ' %q' "$@"
    printf '\n'
    ((DRY_RUN)) || "$@"
}

root_step() {
    if ((EUID == 0)); then step "$@"; else step sudo "$@"; fi
}

# tell FORMAT VALUE...: what was done, so a dry run does not say it.
tell() {
    # shellcheck disable=SC2059 # the format is the caller's
    ((DRY_RUN)) || printf "$@"
}

# L4T's version, for example 36.4.3; nothing where this is no Jetson.
l4t_version() {
    local release="$ROOT/etc/nv_tegra_release" status="$ROOT/var/lib/dpkg/status" found=""
    if [[ -r $release ]]; then
        found=$(sed -n 's/.*R\([0-9][0-9]*\) (release), REVISION: \([0-9.]*\).*/\1.\2/p' "$release" | head -n 1)
    fi
    # The release file is missing on some images; the package database is not.
    if [[ -z $found && -r $status ]]; then
        found=$(awk '/^Package: /{core = $2 == "nvidia-l4t-core"} core && /^Version: /{print $2; exit}' "$status")
        found=${found%%[!0-9.]*}
    fi
    printf '%s' "$found"
}

# JetPack's number of an L4T version (NVIDIA's release archive); edge_resnet/device/machine.py has the same table.
jetpack_of() {
    case $1 in
        35.1 | 35.1.*) echo 5.0.2 ;; 35.2 | 35.2.*) echo 5.1 ;; 35.3 | 35.3.*) echo 5.1.1 ;;
        35.4 | 35.4.*) echo 5.1.2 ;; 35.5 | 35.5.*) echo 5.1.3 ;; 35.6.0 | 35.6.0.*) echo 5.1.4 ;;
        36.3 | 36.3.*) echo 6.0 ;; 36.4.0 | 36.4.0.*) echo 6.1 ;; 36.4.3 | 36.4.3.*) echo 6.2 ;;
        36.4.4 | 36.4.4.* | 36.4.7 | 36.4.7.*) echo 6.2.1 ;;
        36.5.0 | 36.5.0.*) echo 6.2.2 ;; 36.5.2 | 36.5.2.*) echo 6.2.3 ;;
        38.2 | 38.2.*) echo 7.0 ;; 38.4 | 38.4.*) echo 7.1 ;;
        39.2.0 | 39.2.0.*) echo 7.2 ;; 39.2.1 | 39.2.1.*) echo 7.2.1 ;; 39.2.2 | 39.2.2.*) echo 7.2.2 ;;
        32.* | 32) echo 4 ;; 34.* | 34 | 35.* | 35) echo 5 ;; 36.* | 36) echo 6 ;; 38.* | 38 | 39.* | 39) echo 7 ;;
        *) echo "of unknown number" ;;
    esac
}

# Ends the script where this is no Jetson, or one with JetPack 4 or 5.
require_jetpack() {
    local l4t
    l4t=$(l4t_version)
    if [[ -z $l4t ]]; then
        fail "this is not a Jetson: no L4T release is named in $ROOT/etc/nv_tegra_release" \
            "edge-resnet doctor says what other machines lack"
    fi
    if ((${l4t%%.*} < 36)); then
        fail "JetPack $(jetpack_of "$l4t") (L4T $l4t) is too old: JetPack 6.0 or newer is needed" \
            "flash JetPack 6.2 or newer on an Orin board; Nano, TX2 and Xavier boards cannot be upgraded that far"
    fi
}

# "ID NAME" of every power mode; comment lines of the file show the same form, so only column 0 counts.
power_modes() {
    sed -n 's/^< *POWER_MODEL  *ID=0*\([0-9][0-9]*\)  *NAME=\([^ >]*\).*/\1 \2/p' "$ROOT/etc/nvpmodel.conf" 2>/dev/null || true
}

mode_name() {
    local name
    name=$(power_modes | awk -v id="$1" '$1 == id {print $2; exit}')
    printf '%s' "${name:-$1}"
}

# The fastest mode: MAXN has no power budget, and MAXN_SUPER higher clocks; else the most watts. Its number differs: 0 on most
# boards, 2 on Orin Nano with JetPack 6.2.
highest_mode() {
    power_modes | awk '
        {watts = match($2, /[0-9]+W/) ? substr($2, RSTART, RLENGTH - 1) : 0}
        {speed = 2 * watts + ($2 ~ /^MAXN/ ? 1e6 : 0) + ($2 ~ /SUPER/)}
        NR == 1 || speed > most {most = speed; mode = $1}
        END {print mode + 0}'
}

# The number that nvpmodel left in its status file; nothing where it never ran.
stored_mode() {
    sed -n 's/.*pmode:0*\([0-9][0-9]*\).*/\1/p' "$ROOT/var/lib/nvpmodel/status" 2>/dev/null | head -n 1 || true
}
