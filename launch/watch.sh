# shellcheck shell=bash
# The command watch: slices and a run that are looked after until the run has ended. Sourced by gcp_tpu.sh, whose options
# and commands it uses.
# shellcheck disable=SC2034,SC2154

watch() {
    check_run
    say "watch '$name': $slices x $type${capacity:+, $capacity}: $(cost)"
    say "a preempted or missing slice is created again, without asking; $(if [[ -n $keep ]]; then
        echo 'at the end it is KEPT and goes on costing'
    else echo 'at the end it is deleted'; fi)"
    confirm "Go on?"
    yes=yes
    if [[ -n $dry_run ]]; then
        create && setup && run
        say "would look every $poll s; after preemption: delete, create, setup, run"
        return
    fi
    local todo=() failures=0 crashes=0 began=$SECONDS
    while true; do
        case $(state) in
            NONE) renew ;;
            SUSPENDED | SUSPENDING | FAILED)
                say "'$name' was preempted"
                renew
                ;;
            ACTIVE)
                if taken_away; then
                    say "a node of '$name' was preempted"
                    renew
                elif [[ ${#todo[@]} -gt 0 ]]; then
                    start "${todo[@]}"
                else
                    look
                fi
                ;;
        esac
        sleep "$poll"
    done
}

renew() { # slices and run anew; the run goes on from its newest checkpoint
    if [[ $(state) != NONE ]]; then remove; fi
    create
    failures=0 crashes=0
    start setup stop run
}

start() { # start COMMAND...: on every host; if one fails, all of them again at the next look
    set +e # a failure ends the inner shell, and not the watch
    (
        set -e
        for step in "$@"; do "$step"; done
    )
    local status=$?
    set -e
    if [[ $status -eq 0 ]]; then
        todo=() began=$SECONDS
    else
        todo=("$@")
        failed "the run could not be started on every host"
    fi
}

look() { # at what every host says, and do what follows from it
    local answers worst
    answers=$(reports)
    worst=$(grep -v -e '^running$' -e '^exit 0$' -e '^none$' -e '^silent$' <<<"$answers" | head -n 1 || true)
    if [[ $worst == 'exit 75' ]]; then
        say "the program was asked to end, and saved; starting it again"
        start stop run
    elif [[ -n $worst ]]; then
        crashes=$((crashes + 1))
        say "the program ended on a host ($worst); crash $crashes in a row"
        if [[ $crashes -gt $max_restarts ]]; then finish "gave up after $max_restarts restarts" 1; fi
        start stop run
    elif grep -q -e '^silent$' -e '^$' <<<"$answers"; then
        failed "a host does not answer"
    elif ! grep -qv '^exit 0$' <<<"$answers"; then
        finish "the run has ended" 0
    elif ! grep -qv '^none$' <<<"$answers"; then
        start setup stop run
    else
        failures=0
        if [[ $((SECONDS - began)) -gt 3600 ]]; then crashes=0; fi
    fi
}

failed() { # what a later look may find mended
    failures=$((failures + 1))
    say "$1; failure $failures in a row"
    if [[ $failures -gt $max_failures ]]; then finish "gave up after $failures failures" 1; fi
}

finish() {
    say "$1"
    if [[ $2 -ne 0 ]]; then logs || true; fi
    if [[ -z $keep ]]; then remove; else say "kept: delete it with launch/gcp_tpu.sh delete --name=$name"; fi
    exit "$2"
}
