#!/usr/bin/env bash
# A run on the GPUs of a Slurm cluster, one process per GPU.
#
#   NODES=2 GPUS_PER_NODE=8 TIME=04:00:00 launch/slurm_gpu.sh [--dry-run] ARGUMENTS...
#
# ARGUMENTS are those of `python -m paretohqd_jax.main`; the run directory must be on storage that
# all nodes share. SAVE_SECONDS before the time limit, and when the job is preempted, all processes
# receive SIGTERM, save and end with status 143; the job then goes back into the queue and resumes,
# as it does when a process was lost (75, 134) or killed (137).
#
# Environment: NODES, GPUS_PER_NODE, TIME; CPUS_PER_GPU (8), SAVE_SECONDS (120), MAX_RESTARTS (100),
# PYTHON (.venv/bin/python). Partition, account and the like are sbatch's own variables:
# SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_QOS. --dry-run prints the commands without running them.
set -euo pipefail

dry_run=false
in_job=false
case ${1-} in
  --dry-run)
    dry_run=true
    shift
    ;;
  --in-job) # how this script calls itself through sbatch
    in_job=true
    shift
    ;;
esac
: "${NODES:?is not set; the number of nodes}"
: "${GPUS_PER_NODE:?is not set; the number of GPUs of each node}"
: "${TIME:?is not set; the time limit, such as 04:00:00}"
: "${1:?no arguments; such as --config=configs/quickstart.py --workdir=runs/quickstart}"
: "${CPUS_PER_GPU:=8}" "${SAVE_SECONDS:=120}" "${MAX_RESTARTS:=100}"
tasks=("--nodes=$NODES" "--ntasks-per-node=$GPUS_PER_NODE" "--cpus-per-task=$CPUS_PER_GPU")

if $in_job; then # a copy in a folder of Slurm's
  execute() { "$@"; }
else
  # shellcheck source=launch/common.sh
  source "$(dirname "$0")/common.sh"
  need_counts NODES GPUS_PER_NODE CPUS_PER_GPU
  need_numbers SAVE_SECONDS MAX_RESTARTS
  need TIME '([0-9]+-)?[0-9]+(:[0-9]+){0,2}' 'a time such as 04:00:00 or 1-12:00'
fi

# Slurm opens the log anew after a requeue unless told to append.
submit() {
  execute sbatch --job-name=paretohqd "${tasks[@]}" "--gpus-per-node=$GPUS_PER_NODE" \
    "--time=$TIME" --requeue --open-mode=append "--signal=TERM@$SAVE_SECONDS" \
    "$0" --in-job "$@"
}

# Every process sees all GPUs of its node, of which JAX takes the one of its number: so no
# --gpus-per-task. The others have a minute to save after one has ended.
run() {
  execute srun "${tasks[@]}" --label --kill-on-bad-exit=0 --wait=60 \
    "${PYTHON:-.venv/bin/python}" -m paretohqd_jax.main "$@"
}

if $dry_run; then
  submit "$@"
  echo "# in the job:"
  run "$@"
  echo "# when it ended with status 143, 75, 134 or 137, at most $MAX_RESTARTS times:"
  # shellcheck disable=SC2016 # the job's own variable
  echo 'scontrol requeue "$SLURM_JOB_ID"'
elif $in_job; then
  trap : TERM # meant for the processes; this shell stays to ask for the requeue
  status=0
  run "$@" || status=$?
  # srun's status is the highest of all tasks: that of one that was killed hides the 75 of others.
  if [[ $status =~ ^(143|75|134|137)$ ]] && ((${SLURM_RESTART_COUNT:-0} < MAX_RESTARTS)); then
    scontrol requeue "$SLURM_JOB_ID"
  fi
  exit "$status"
else
  submit "$@"
fi
