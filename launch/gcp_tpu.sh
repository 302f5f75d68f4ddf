#!/usr/bin/env bash
# Train on Cloud TPU: slices as queued resources, one training process a host, restarted after preemption.
#
#   launch/gcp_tpu.sh COMMAND [options] [-- further arguments]
#
#   create   ask for the slices and wait until they are there    run      start training on every host, detached
#   setup    install this tree on every host                     stop     end training (it saves a checkpoint first)
#   status   what exists, what it costs, what runs               watch    create, setup, run; again after preemption
#   logs     the end of a host's log                             ssh      a shell on a host, or a command after --
#   delete   give the slices back: stops the bill                list     every queued resource in the zone
#
# Options, with the environment variables that set their defaults:
#   --name=NAME          TPU_NAME       of the queued resource and its nodes (c2s)
#   --project=ID         GCP_PROJECT    (gcloud's own setting)
#   --zone=ZONE          GCP_ZONE       (gcloud's own setting)
#   --type=TYPE          TPU_TYPE       v4-128, v5e-256, v5p-128, v6e-256, ...
#   --version=NAME       TPU_VERSION    runtime version (chosen by type)
#   --num-slices=N       TPU_SLICES     slices of that type, joined by the data centre's network (1)
#   --spot, --reserved   TPU_CAPACITY   "spot": cheaper, may be taken away; "reserved": your reservation (on demand)
#   --valid-until=TIME   TPU_VALID_UNTIL  give up the request if it is not filled within, e.g. 6h (6h)
#   --network=, --subnetwork=, --service-account=   TPU_NETWORK, TPU_SUBNETWORK, TPU_SERVICE_ACCOUNT
#   --data=gs://...      setup: copy this folder to data/<its name> on every host; may be repeated
#   --extras=NAMES       setup: extras of the package ("tpu")
#   --config=FILE        run, watch: the run's configuration
#   --workdir=gs://...   run, watch: the run's folder, in a bucket that is mounted on every host, or a shared folder
#   --slice=N, --worker=N|all, --lines=N, --follow    logs, ssh: which host (0, 0), how much
#   --poll=SECONDS       between looks at what is awaited (30)
#   --max-restarts=N     watch: crashes of the program in a row before giving up (3); preemptions do not count
#   --max-failures=N     watch: looks in a row at which a host is silent, or cannot be set up or started (20)
#   --keep               watch: leave the slices when the run has ended or failed (otherwise they are deleted)
#   --yes                do not ask        --dry-run    print what would be done, do nothing, ask nothing
#
# What follows -- goes to c2s_jax.train as it is: launch/gcp_tpu.sh run --config=configs/27b.py --workdir=gs://b/run \
#     -- --config.steps=1000 '--config.notes=("two words",)'
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
# shellcheck source=launch/on_host.sh
source "$here/on_host.sh"
# shellcheck source=launch/tpu_types.sh
source "$here/tpu_types.sh"
# shellcheck source=launch/watch.sh
source "$here/watch.sh"

name=${TPU_NAME:-c2s} project=${GCP_PROJECT:-} zone=${GCP_ZONE:-} type=${TPU_TYPE:-} version=${TPU_VERSION:-}
slices=${TPU_SLICES:-1} capacity=${TPU_CAPACITY:-} valid_until=${TPU_VALID_UNTIL:-6h}
network=${TPU_NETWORK:-} subnetwork=${TPU_SUBNETWORK:-} service_account=${TPU_SERVICE_ACCOUNT:-}
config='' workdir='' extras=tpu data=() slice=0 worker=0 lines=100 follow='' poll=30 max_restarts=3 max_failures=20
keep='' yes='' dry_run='' rest=() created=''

say() { printf '%s\n' "$*" >&2; }
report() { [[ -n $dry_run ]] || say "$@"; } # of what was done
die() {
    say "FATAL $*"
    exit 1
}

usage() { sed -n '2,/^set -euo/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

parse() {
    while [[ $# -gt 0 ]]; do
        case $1 in
            --name=* | --project=* | --zone=* | --type=* | --version=* | --network=* | --subnetwork=* | --config=* | \
                --workdir=* | --extras=* | --slice=* | --worker=* | --lines=* | --poll=*)
                local option=${1%%=*}
                printf -v "${option#--}" %s "${1#*=}"
                ;;
            --num-slices=*) slices=${1#*=} ;;
            --valid-until=*) valid_until=${1#*=} ;;
            --service-account=*) service_account=${1#*=} ;;
            --max-restarts=*) max_restarts=${1#*=} ;;
            --max-failures=*) max_failures=${1#*=} ;;
            --data=*) data+=("${1#*=}") ;;
            --spot) capacity=spot ;;
            --reserved) capacity=reserved ;;
            --follow) follow=yes ;;
            --keep) keep=yes ;;
            --yes) yes=yes ;;
            --dry-run) dry_run=yes ;;
            --)
                shift
                rest=("$@")
                break
                ;;
            *) die "unknown option '$1' (write --option=value; see launch/gcp_tpu.sh --help)" ;;
        esac
        shift
    done
    [[ $slices =~ ^[1-9][0-9]*$ ]] || die "--num-slices=$slices is not a number of slices"
    [[ $poll =~ ^[0-9]+(\.[0-9]+)?$ ]] || die "--poll=$poll is not a number of seconds"
    [[ $max_restarts =~ ^[0-9]+$ ]] || die "--max-restarts=$max_restarts is not a number"
    [[ $max_failures =~ ^[0-9]+$ ]] || die "--max-failures=$max_failures is not a number"
    case $capacity in '' | spot | reserved) ;; *) die "TPU_CAPACITY=$capacity: write spot, reserved or nothing" ;; esac
}

# ------------------------------------------------------------------------------------------------------------ gcloud

nodes() {
    if [[ $slices -eq 1 ]]; then echo "$name"; else seq -f "$name-%.0f" 0 $((slices - 1)); fi
}

cost() {
    echo "$(chips) chips: $(chips) chip-hours for every hour that they exist, busy or idle"
}

place=()
where() { # flags that every call of gcloud gets
    place=()
    if [[ -n $project ]]; then place+=("--project=$project"); fi
    if [[ -n $zone ]]; then place+=("--zone=$zone"); fi
}

act() { # a call that changes something
    if [[ -n $dry_run ]]; then
        { printf 'would run:' && printf ' %q' gcloud "$@" "${place[@]}" && echo; } >&2
    else
        gcloud "$@" "${place[@]}"
    fi
}

state() { # of the queued resource; NONE where there is none, UNKNOWN where it cannot be told
    local answer
    if answer=$(gcloud compute tpus queued-resources describe "$name" "${place[@]}" '--format=value(state.state)' 2>&1); then
        echo "${answer##*$'\n'}"
    elif [[ ${answer,,} == *not*found* ]]; then
        echo NONE
    else
        say "$answer"
        echo UNKNOWN
    fi
}

taken_away() { # whether a node of an active request was preempted; the request itself may notice minutes later
    local node found
    for node in $(nodes); do
        found=$(gcloud compute tpus tpu-vm describe "$node" "${place[@]}" '--format=value(state)' 2>/dev/null) || continue
        case $found in PREEMPTED | TERMINATED | STOPPED | STOPPING | DELETING) return 0 ;; esac
    done
    return 1
}

on_hosts() { # on_hosts WORKER SCRIPT [NODE...]: a script on hosts of these nodes (all), on all nodes at once
    local which=$1 script=$2 node pid pids=() all=() failed=0
    shift 2
    if [[ $# -eq 0 ]]; then
        mapfile -t all < <(nodes)
        set -- "${all[@]}"
    fi
    for node in "$@"; do
        act compute tpus tpu-vm ssh "$node" "--worker=$which" --quiet "--command=$script" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
    return $failed
}

confirm() {
    if [[ -n $yes || -n $dry_run ]]; then return; fi
    local answer=
    printf '%s [y/N] ' "$1" >&2
    read -r answer || true
    [[ $answer == [yY] || $answer == [yY]es ]] || die "not confirmed; nothing was done (--yes answers for you)"
}

# ---------------------------------------------------------------------------------------------------------- commands

create() {
    check_type
    local accelerator=${type/#v5e-/v5litepod-} found flags=()
    say "create '$name': $slices x $type${capacity:+, $capacity}${zone:+, in $zone}: $(cost)"
    if [[ -z $dry_run ]]; then
        found=$(state)
        case $found in
            NONE) ;;
            UNKNOWN) die "cannot tell whether '$name' exists already; nothing was created" ;;
            *) die "'$name' exists already, in state $found: delete it first, or give another --name" ;;
        esac
    fi
    confirm "Create it?"
    if [[ $slices -eq 1 ]]; then flags=("--node-id=$name"); else
        flags=("--node-count=$slices" "--node-prefix=$name")
    fi
    if [[ -n $capacity ]]; then flags+=("--$capacity"); fi
    if [[ -n $network ]]; then flags+=("--network=$network"); fi
    if [[ -n $subnetwork ]]; then flags+=("--subnetwork=$subnetwork"); fi
    if [[ -n $service_account ]]; then flags+=("--service-account=$service_account"); fi
    created=asked
    act compute tpus queued-resources create "$name" "--accelerator-type=$accelerator" \
        "--runtime-version=$(runtime_version)" "--valid-until-duration=$valid_until" "${flags[@]}" ||
        die "the request was refused"
    await_active
    created=''
    report "'$name' is active and is being paid for until 'launch/gcp_tpu.sh delete --name=$name'"
}

await_active() {
    if [[ -n $dry_run ]]; then
        say "would wait until '$name' is ACTIVE, and delete it if that fails or is interrupted"
        return
    fi
    local found before=''
    while true; do
        found=$(state)
        case $found in
            ACTIVE) return ;;
            FAILED | SUSPENDED | SUSPENDING | DELETING | NONE) die "'$name' ended in state $found" ;;
        esac
        if [[ $found != "$before" ]]; then say "'$name': $found (nothing is paid while it waits)"; fi
        before=$found
        sleep "$poll"
    done
}

remove() { # delete, and see that it is gone
    act compute tpus queued-resources delete "$name" --force --quiet || true
    if [[ -n $dry_run ]]; then return; fi
    local found
    for _ in {1..20}; do
        found=$(state)
        if [[ $found == NONE ]]; then
            say "'$name' is deleted; it costs nothing any more"
            return
        fi
        sleep "$poll"
    done
    die "'$name' is still there, in state $found, and MAY STILL BE PAID FOR: delete it in the console"
}

give_up_creation() { # at any exit between the request and its being active
    local status=$?
    trap - EXIT
    if [[ -n $created && -z $dry_run && $(state) != NONE ]]; then
        created=''
        say "creation failed or was interrupted: deleting '$name'"
        remove
    fi
    exit $status
}

delete() {
    say "delete '$name', with its nodes and what lies on their disks"
    confirm "Delete it?"
    remove
}

tree_files() { # of this tree, each ended by a zero byte: what git does not ignore, or, outside of git, what is no run's
    if [[ $(git rev-parse --show-toplevel 2>/dev/null) == "$root" ]]; then
        git ls-files -z --cached --others --exclude-standard |
            while IFS= read -r -d '' file; do if [[ -e $file ]]; then printf '%s\0' "$file"; fi; done
    else
        find . \( -name '.*' ! -name . -o -name __pycache__ -o -name runs -o -name venv -o -name '*.egg-info' \) -prune \
            -o -type f -print0
    fi
}

setup() {
    local archive script node folder
    archive=$(mktemp -d)
    (
        cd "$root"
        tree_files | tar --null --files-from=- -czf "$archive/c2s_tree.tar.gz"
    )
    for node in $(nodes); do
        act compute tpus tpu-vm scp "$archive/c2s_tree.tar.gz" "$node:" --worker=all --quiet
    done
    rm -r "$archive"
    script=$(host_setup "$extras")
    for folder in "${data[@]}"; do script+=$'\n'$(host_copy "$folder"); done
    on_hosts all "$script" || die "setup failed on a host; its output stands above"
    report "every host of '$name' is set up"
}

check_run() {
    [[ -n $config ]] || die "--config is not given"
    [[ -n $workdir ]] || die "--workdir is not given"
    if [[ $workdir != gs://* && $workdir != /* ]]; then
        die "--workdir=$workdir is a folder of one host; give one that all reach, e.g. gs://bucket/run"
    fi
    check_type
}

run() {
    check_run
    local flags bucket script='set -eu' folder=$workdir
    flags=$("$here/xla_flags.sh" "$(generation)" "$slices")
    if [[ $workdir == gs://* ]]; then
        folder=${workdir#gs://} bucket=${folder%%/*} folder=../buckets/$folder
        script+=$'\n'$(host_mount "$bucket")
    fi
    script+=$'\n'$(host_run "$flags" "--config=$config" "--workdir=$folder" "${rest[@]}")
    on_hosts all "$script" ||
        die "the run was not started everywhere; 'status' tells where it was, 'stop' ends it"
    report "started on every host of '$name'; follow it with: launch/gcp_tpu.sh logs --name=$name --follow"
}

stop() { on_hosts all "$(host_stop)"; }

logs() { on_hosts "$worker" "$(host_logs "$lines" "$follow")" "$(nodes | sed -n "$((slice + 1))p")"; }

shell() {
    local node
    node=$(nodes | sed -n "$((slice + 1))p")
    if [[ ${#rest[@]} -gt 0 ]]; then
        on_hosts "$worker" "$(printf '%q ' "${rest[@]}")" "$node"
    else
        act compute tpus tpu-vm ssh "$node" "--worker=$worker"
    fi
}

list() { act compute tpus queued-resources list; }

reports() { # one line a host: running, none, or "exit N"; and "silent" where one does not answer
    on_hosts all "$(host_status)" 2>/dev/null | sed -n 's/^c2s-run: [^ ]*: //p' || echo silent
}

status() {
    if [[ -n $dry_run ]]; then
        act compute tpus queued-resources describe "$name"
        on_hosts all "$(host_status)"
        return
    fi
    local found
    found=$(state)
    say "'$name': $found"
    if [[ $found != ACTIVE ]]; then return; fi
    if [[ -n $type ]]; then say "paid for: $(cost)"; fi
    on_hosts all "$(host_status)" || say "some hosts did not answer"
}

command=${1:---help}
[[ $# -eq 0 ]] || shift
case $command in
    create | setup | run | stop | logs | status | delete | list | watch) ;;
    ssh) command=shell ;;
    -h | --help | help)
        usage
        exit
        ;;
    *) die "unknown command '$command' (see launch/gcp_tpu.sh --help)" ;;
esac
parse "$@"
where
[[ -n $dry_run ]] || command -v gcloud >/dev/null || die "gcloud is not on PATH: https://cloud.google.com/sdk/docs/install"
trap give_up_creation EXIT
trap 'exit 130' INT TERM
"$command"
