#!/usr/bin/env bash
#SBATCH --job-name=c2s
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# Train on GPUs under SLURM, one process a GPU; submit from the repository's root:
#
#   sbatch --nodes=4 launch/slurm.sh --config=configs/9b.py --workdir=/shared/runs/9b [--config.x=y ...]
#
# Options of sbatch stand before the script, arguments of c2s_jax.train after it; the workdir has to be on a file system that
# all nodes share. Five minutes before the time limit training is asked to stop, saves a checkpoint, and the job is queued
# again; so it is when a node fails. A run that has ended, or failed by itself, is not.
#
# C2S_CHIP   whose compiler flags to use (h100; a100, h200, b200)
# C2S_VENV   the virtual environment (.venv)
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:?submit this with sbatch}" # SLURM runs a copy of the script from elsewhere
[[ $# -gt 0 ]] || {
    echo "FATAL no arguments for c2s_jax.train, e.g. --config=configs/9b.py --workdir=/shared/runs/9b" >&2
    exit 2
}
eval "$(launch/xla_flags.sh "${C2S_CHIP:-h100}")"

out_of_time=
# shellcheck disable=SC2329 # called by the trap
on_signal() {
    out_of_time=yes
    echo "c2s: nearly out of time; asking training to save and stop"
    kill -TERM "$step" # srun passes it on to every process
}
trap on_signal USR1

srun --kill-on-bad-exit=1 "${C2S_VENV:-.venv}/bin/python" -m c2s_jax.train "$@" &
step=$!
status=0
wait "$step" || status=$?
if [[ -n $out_of_time ]]; then
    wait "$step" || status=$? # the first wait ended with the signal
    echo "c2s: queueing job $SLURM_JOB_ID again"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$status"
