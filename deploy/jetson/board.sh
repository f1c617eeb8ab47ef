# shellcheck shell=bash
# Shared by the scripts in this folder: reads the files of the board, shows and runs steps. To be sourced, not run.
#
# ROOT: the folder that replaces / for files that are read and written; empty on a board.

ROOT=${ROOT:-}
DRY_RUN=0

# fail MESSAGE [HINT] [EXIT CODE]: prints two lines to stderr, in the form of edge-resnet, and exits.
fail() {
    printf 'error: %s\n' "$1" >&2
    if [[ -n ${2:-} ]]; then printf 'hint: %s\n' "$2" >&2; fi
    exit "${3:-1}"
}

# step COMMAND...: prints a command so that it can be pasted, and runs it unless this is a dry run.
step() {
    printf '+'
    printf ' %q' "$@"
    printf '\n'
    ((DRY_RUN)) || "$@"
}

root_step() {
    if ((EUID == 0)); then step "$@"; else step sudo "$@"; fi
}

# report FORMAT VALUE...: prints what was done, so not in a dry run.
report() {
    # shellcheck disable=SC2059 # the caller passes the format
    ((DRY_RUN)) || printf "$@"
}

# Prints the L4T version, for example 36.4.3; nothing if this is not a Jetson.
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

# Prints the JetPack version of an L4T version (NVIDIA's release archive); edge_resnet/device/machine.py has the same table.
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
        *) echo "of unknown version" ;;
    esac
}

# Exits if this is not a Jetson, or one with JetPack 4 or 5.
require_jetpack() {
    local l4t
    l4t=$(l4t_version)
    if [[ -z $l4t ]]; then
        fail "this is not a Jetson: $ROOT/etc/nv_tegra_release names no L4T release" \
            "on other machines use edge-resnet doctor"
    fi
    if ((${l4t%%.*} < 36)); then
        fail "JetPack $(jetpack_of "$l4t") (L4T $l4t) is too old: JetPack 6.0 or newer is needed" \
            "flash JetPack 6.2 or newer on an Orin board; Nano, TX2 and Xavier boards cannot be upgraded that far"
    fi
}

# Prints "ID NAME" for every power mode. Comments of the file contain the same form, so only column 0 counts.
power_modes() {
    sed -n 's/^< *POWER_MODEL  *ID=0*\([0-9][0-9]*\)  *NAME=\([^ >]*\).*/\1 \2/p' "$ROOT/etc/nvpmodel.conf" 2>/dev/null || true
}

mode_name() {
    local name
    name=$(power_modes | awk -v id="$1" '$1 == id {print $2; exit}')
    printf '%s' "${name:-$1}"
}

# Prints the number of the fastest mode: MAXN has no power budget, MAXN_SUPER has higher clocks; otherwise the most watts.
# The number differs: 0 on most boards, 2 on Orin Nano with JetPack 6.2.
highest_mode() {
    power_modes | awk '
        {watts = match($2, /[0-9]+W/) ? substr($2, RSTART, RLENGTH - 1) : 0}
        {speed = 2 * watts + ($2 ~ /^MAXN/ ? 1e6 : 0) + ($2 ~ /SUPER/)}
        NR == 1 || speed > maximum {maximum = speed; mode = $1}
        END {print mode + 0}'
}

# Prints the mode in the status file of nvpmodel; nothing if it never ran.
stored_mode() {
    sed -n 's/.*pmode:0*\([0-9][0-9]*\).*/\1/p' "$ROOT/var/lib/nvpmodel/status" 2>/dev/null | head -n 1 || true
}
