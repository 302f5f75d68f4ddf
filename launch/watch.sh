# shellcheck shell=bash
# The command watch: slices and a run that are looked after until the run has ended. Sourced by gcp_tpu.sh, whose options
# and commands it uses.
# shellcheck disable=SC2034,SC2154

watch() {
    [[ -n $config && -n $workdir ]] || die "watch needs --config and --workdir, to start the run again"
    check_type
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
    local crashes=0 began=$SECONDS answers worst
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
                    continue
                fi
                answers=$(reports) || answers=''
                worst=$(grep -v -e '^running$' -e '^exit 0$' -e '^none$' <<<"$answers" | head -n 1 || true)
                if [[ -z $answers ]]; then
                    say "no host answers; looking again"
                elif [[ $worst == 'exit 75' ]]; then
                    say "the program was asked to end, and saved; starting it again"
                    stop && run
                elif [[ -n $worst ]]; then
                    if [[ $((SECONDS - began)) -gt 3600 ]]; then crashes=0; fi
                    crashes=$((crashes + 1))
                    say "the program ended on a host ($worst); crash $crashes in a row"
                    if [[ $crashes -gt $max_restarts ]]; then finish "gave up after $max_restarts restarts" 1; fi
                    stop || true
                    run
                    began=$SECONDS
                elif ! grep -qv '^exit 0$' <<<"$answers"; then
                    finish "the run has ended" 0
                elif ! grep -qv '^none$' <<<"$answers"; then
                    setup && run
                    began=$SECONDS
                fi
                ;;
        esac
        sleep "$poll"
    done
}

renew() { # slices and run anew; the run goes on from its newest checkpoint
    if [[ $(state) != NONE ]]; then remove; fi
    create
    setup
    run
    crashes=0 began=$SECONDS
}

finish() {
    say "$1"
    if [[ $2 -ne 0 ]]; then logs || true; fi
    if [[ -z $keep ]]; then remove; else say "kept: delete it with launch/gcp_tpu.sh delete --name=$name"; fi
    exit "$2"
}
