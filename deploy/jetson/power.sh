#!/usr/bin/env bash
# Sets the highest power mode and locks the clocks for a measurement, and puts back what was there before.
set -euo pipefail
# shellcheck source=board.sh
source "$(dirname "${BASH_SOURCE[0]}")/board.sh"

SAVED=$ROOT/var/lib/edge-resnet/power

usage() {
    cat <<'END'
usage: deploy/jetson/power.sh [--help] [--dry-run] max|restore|show

max      save the power mode and the clocks, set the fastest mode (MAXN), lock the clocks at their highest
restore  put back the mode and the clocks that max found
show     the mode, the clocks, and whether something is saved

A power mode outlasts a reboot, locked clocks do not. Some modes can only be set with a reboot: nothing is rebooted here, the
script says so and ends with 1. What max found first stays saved until restore, however often max is run.
--dry-run shows every command and runs none that changes anything.
END
}

# nvpmodel prints the mode's name, then its number alone on a line.
current_mode() {
    local mode
    mode=$(nvpmodel -q 2>/dev/null | sed -n 's/^ *\([0-9][0-9]*\) *$/\1/p' | tail -n 1 || true)
    printf '%s' "${mode:-$(stored_mode)}"
}

save() {
    local mode=$1
    # Both are there, or nothing was changed yet. jetson_clocks asks before it writes over a file: it never has to.
    if [[ -e $SAVED/mode && -e $SAVED/clocks ]]; then return; fi
    root_step rm -rf "$SAVED"
    root_step install -d -m 755 "$SAVED"
    root_step jetson_clocks --store "$SAVED/clocks"
    # shellcheck disable=SC2016 # the inner shell fills them in: the redirection must be root's
    root_step sh -c 'echo "$1" >"$2"' sh "$mode" "$SAVED/mode"
}

# set_mode ID WORD: WORD is what to run again after a reboot.
set_mode() {
    if [[ $(current_mode) == "$1" ]]; then return; fi
    # It may ask whether to reboot now, and then changes nothing unless it may; its exit code does not tell.
    root_step nvpmodel -m "$1" <<<no || true
    if ((!DRY_RUN)) && [[ $(current_mode) != "$1" ]]; then
        fail "power mode $(mode_name "$1") can only be set with a reboot, and nothing was rebooted" \
            "sudo nvpmodel -m $1, answer yes, and after the reboot: $0 $2"
    fi
}

max() {
    local before
    before=$(current_mode)
    if [[ -z $before ]]; then fail "nvpmodel does not say which power mode is set" "sudo nvpmodel -q"; fi
    save "$before"
    set_mode "$(highest_mode)" max
    root_step jetson_clocks
    tell '%s with locked clocks; back with: %s restore\n' "$(mode_name "$(highest_mode)")" "$0"
}

restore() {
    if [[ ! -e $SAVED/mode || ! -e $SAVED/clocks ]]; then
        printf 'nothing is saved: nothing to put back\n'
        return
    fi
    local mode
    mode=$(<"$SAVED/mode")
    # The mode first: it moves the limits that the saved clocks were read under.
    set_mode "$mode" restore
    root_step jetson_clocks --restore "$SAVED/clocks"
    root_step rm -rf "$SAVED"
    tell 'is %s again\n' "$(mode_name "$mode")"
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
if [[ -z $ACTION ]]; then fail "say what to do: max, restore or show" "$0 --help" 2; fi
for tool in nvpmodel jetson_clocks; do
    command -v "$tool" >/dev/null || fail "$tool is not here" "power modes are a Jetson's: run this on the board"
done
"$ACTION"
