#!/usr/bin/env bash
# Sets the fastest power mode and locks the clocks for a measurement, and restores the previous state.
set -euo pipefail
# shellcheck source=board.sh
source "$(dirname "${BASH_SOURCE[0]}")/board.sh"

SAVED=$ROOT/var/lib/edge-resnet/power

usage() {
    cat <<'END'
usage: deploy/jetson/power.sh [--help] [--dry-run] max|restore|show

max      save the power mode and the clocks, set the fastest mode (MAXN), lock the clocks at their maximum
restore  restore the mode and the clocks that max saved
show     show the mode, the clocks, and whether a state is saved

A power mode survives a reboot, locked clocks do not. Some modes can only be set with a reboot: the script never reboots, but
reports this and exits with 1. The state that the first max saved is kept until restore, however often max is run.
--dry-run shows all commands, but runs none that changes anything.
END
}

# nvpmodel prints the name of the mode, then its number on a line of its own.
current_mode() {
    local mode
    mode=$(nvpmodel -q 2>/dev/null | sed -n 's/^ *\([0-9][0-9]*\) *$/\1/p' | tail -n 1 || true)
    printf '%s' "${mode:-$(stored_mode)}"
}

save() {
    local mode=$1
    # If both files exist, the state is saved; otherwise nothing was changed yet. jetson_clocks asks before overwriting a file,
    # so none is left.
    if [[ -e $SAVED/mode && -e $SAVED/clocks ]]; then return; fi
    root_step rm -rf "$SAVED"
    root_step install -d -m 755 "$SAVED"
    root_step jetson_clocks --store "$SAVED/clocks"
    # shellcheck disable=SC2016 # the inner shell expands them, since root must open the file
    root_step sh -c 'echo "$1" >"$2"' sh "$mode" "$SAVED/mode"
}

# set_mode ID ACTION: ACTION is what to run again after a reboot.
set_mode() {
    if [[ $(current_mode) == "$1" ]]; then return; fi
    # It may ask whether to reboot, and without that changes nothing; the exit code is the same.
    root_step nvpmodel -m "$1" <<<no || true
    if ((!DRY_RUN)) && [[ $(current_mode) != "$1" ]]; then
        fail "power mode $(mode_name "$1") can only be set with a reboot, which this script does not do" \
            "run sudo nvpmodel -m $1, answer yes, and after the reboot: $0 $2"
    fi
}

max() {
    local before
    before=$(current_mode)
    if [[ -z $before ]]; then fail "nvpmodel does not report the power mode" "check sudo nvpmodel -q"; fi
    save "$before"
    set_mode "$(highest_mode)" max
    root_step jetson_clocks
    report '%s with locked clocks; to restore: %s restore\n' "$(mode_name "$(highest_mode)")" "$0"
}

restore() {
    if [[ ! -e $SAVED/mode || ! -e $SAVED/clocks ]]; then
        printf 'no saved state: nothing to restore\n'
        return
    fi
    local mode
    mode=$(<"$SAVED/mode")
    # The mode first: the saved clocks were read under its limits.
    set_mode "$mode" restore
    root_step jetson_clocks --restore "$SAVED/clocks"
    root_step rm -rf "$SAVED"
    report 'restored %s\n' "$(mode_name "$mode")"
}

show() {
    printf 'power mode: %s\n' "$(mode_name "$(current_mode)")"
    if [[ -e $SAVED/mode ]]; then printf 'saved: %s\n' "$(mode_name "$(<"$SAVED/mode")")"; else printf 'saved: nothing\n'; fi
    root_step jetson_clocks --show
}

ACTION=
for argument in "$@"; do
    case $argument in
        --help | -h) usage && exit 0 ;;
        --dry-run) DRY_RUN=1 ;;
        max | restore | show) ACTION=$argument ;;
        *) fail "$argument is neither an option nor an action" "$0 --help" 2 ;;
    esac
done
if [[ -z $ACTION ]]; then fail "no action: choose max, restore or show" "$0 --help" 2; fi
for tool in nvpmodel jetson_clocks; do
    command -v "$tool" >/dev/null || fail "$tool is not installed" "run this on a Jetson"
done
"$ACTION"
