#!/usr/bin/env bash
# A TPU VM (one slice, any number of hosts) from request to result.
#
#   launch/tpu_vm.sh [--dry-run] ACTION
#
#   create             requests the TPU (queued resource)
#   setup              copies the last commit of this checkout to every host and installs it
#   run ARGUMENTS...   starts `python -m paretohqd_jax.main ARGUMENTS` on every host
#   status             the state of the request, and of the run on each host
#   logs [HOST]        follows the output of a host (0)
#   stop               ends the run: it saves, and `run` with the same arguments resumes it
#   delete             gives the TPU back
#   babysit ARGUMENTS... does all of this until the run is done: creates the TPU, sets it up and
#                      runs; starts again when the run was preempted (exit status 143) or lost a
#                      host (75, 134), at most 3 times in a row when a process was killed (137);
#                      creates the TPU anew when it was taken away
#
# Environment: NAME, PROJECT, ZONE; ACCELERATOR_TYPE and RUNTIME_VERSION to create, SPOT=true for a
# spot TPU; STORAGE=SERVER:/SHARE to set up, an NFS share mounted at /mnt/shared on every host;
# POLL_SECONDS (60) of babysit. --dry-run prints the commands instead of running them.
set -euo pipefail

usage="usage: launch/tpu_vm.sh [--dry-run] create|setup|run|status|logs|stop|delete|babysit; see its head"
dry_run=false
if [[ ${1-} == --dry-run ]]; then
  dry_run=true
  shift
fi
action=${1:?$usage}
shift
: "${NAME:?is not set; give the TPU a name}"
: "${PROJECT:?is not set; it is the Google Cloud project}"
: "${ZONE:?is not set; such as us-east5-a}"
: "${POLL_SECONDS:=60}" "${SPOT:=false}"
place=("--project=$PROJECT" "--zone=$ZONE" --quiet)
checkout=$(cd "$(dirname "$0")/.." && pwd)
example=/mnt/shared/paretohqd/quickstart
worker=paretohqd_jax/launch/tpu_worker.sh # in the home directory of each host

# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"
need_name NAME
need SPOT 'true|false' 'true or false'
need POLL_SECONDS '[0-9]+([.][0-9]+)?' 'a number'

needs_for_create() {
  : "${ACCELERATOR_TYPE:?is not set; such as v5p-8}"
  : "${RUNTIME_VERSION:?is not set; such as v2-alpha-tpuv5}"
}

needs_for_setup() {
  : "${STORAGE:?is not set; SERVER:/SHARE of an NFS share, which all hosts mount}"
  need STORAGE '[^:/]+:/.+' 'SERVER:/SHARE'
}

needs_for_run() {
  : "${1:?no arguments; such as --config=configs/quickstart.py --workdir=$example}"
}

create() {
  needs_for_create
  local spot=()
  [[ $SPOT == false ]] || spot=(--spot)
  execute gcloud compute tpus queued-resources create "$NAME" "--node-id=$NAME" \
    "--accelerator-type=$ACCELERATOR_TYPE" "--runtime-version=$RUNTIME_VERSION" \
    "${spot[@]}" "${place[@]}"
}

delete() {
  execute gcloud compute tpus queued-resources delete "$NAME" --force "${place[@]}"
}

request_state() {
  execute gcloud compute tpus queued-resources describe "$NAME" '--format=value(state.state)' \
    "${place[@]}"
}

# on HOSTS LINE: runs a line of shell on these hosts.
on() {
  execute gcloud compute tpus tpu-vm ssh "$NAME" "--worker=$1" "--command=$2" "${place[@]}"
}

# The words as a line of shell that means exactly them.
quoted() {
  local line
  printf -v line '%q ' "$@"
  echo "${line% }"
}

setup() {
  needs_for_setup
  local archive running="[ -x $worker ] && $worker status | grep -q running"
  local refuse="echo 'error: a run is going on; stop it first' >&2; exit 1"
  archive=$(git -C "$checkout" rev-parse --absolute-git-dir)/paretohqd_jax.tar.gz
  execute git -C "$checkout" archive --prefix=paretohqd_jax/ "--output=$archive" HEAD &&
    execute gcloud compute tpus tpu-vm scp "$archive" "$NAME:paretohqd_jax.tar.gz" --worker=all \
      "${place[@]}" &&
    on all "if $running; then $refuse; fi; tar -xzf paretohqd_jax.tar.gz && $(quoted "$worker" setup "$STORAGE")"
}

run() {
  needs_for_run "$@"
  on all "$(quoted "$worker" start "$@")"
}

hosts_status() {
  on all "if [ -x $worker ]; then $worker status; else echo 'paretohqd: fresh'; fi"
}

# What to do next, given what hosts_status printed: wait, setup, run, killed, done, or the exit
# status of a failure.
next_step() {
  local status statuses next=run
  statuses=$(sed -n 's/^.*paretohqd: //p' <<<"$1" | sort -u | tr '\n' ' ')
  case " $statuses" in
    " ") echo wait ;; # no host answered
    *" running "*) echo wait ;;
    *" fresh "*) echo setup ;;
    " 0 ") echo "done" ;;
    *" lost "*) echo run ;; # a host was restarted, whatever became of the others
    *)
      for status in $statuses; do
        case $status in
          0 | 75 | 134 | 143 | idle) ;;
          137) next=killed ;;
          *)
            echo "$status"
            return
            ;;
        esac
      done
      echo "$next"
      ;;
  esac
}

# Whatever fails here, such as a request for want of TPUs, is tried again.
babysit() {
  local state answer next kills=0
  while true; do
    state=$(request_state) || state=MISSING
    echo "$(date +%T) $NAME: $state" >&2
    case $state in
      MISSING) create || true ;;
      SUSPENDED | FAILED) delete || true ;; # taken away; then it is MISSING
      ACTIVE)
        answer=$(hosts_status) || answer="" # a host does not answer, or not yet
        next=$(next_step "$answer")
        echo "$(date +%T) $NAME: next: $next" >&2
        case $next in
          wait) ;;
          setup) setup || true ;;
          run)
            kills=0
            run "$@" || true
            ;;
          killed)
            if ((++kills > 3)); then
              echo "error: a process was killed again and again; see launch/tpu_vm.sh logs" >&2
              return 137
            fi
            run "$@" || true
            ;;
          done) return 0 ;;
          *)
            echo "error: the run ended with status $next; see launch/tpu_vm.sh logs" >&2
            return "$next"
            ;;
        esac
        ;;
    esac
    sleep "$POLL_SECONDS"
  done
}

show_babysit() {
  echo "# every $POLL_SECONDS s:"
  request_state
  hosts_status
  echo "# when there is no such request:"
  create
  echo "# when it is SUSPENDED or FAILED:"
  delete
  echo "# when the hosts are fresh:"
  setup
  echo "# when the hosts are idle, one was restarted, or the run ended with status 143, 75, 134 or 137:"
  run "$@"
}

case $action in
  create | setup | delete | run) "$action" "$@" ;;
  status)
    request_state
    hosts_status
    ;;
  logs) on "${1:-0}" "$worker logs" ;;
  stop) on all "$worker stop" ;;
  babysit)
    needs_for_create
    needs_for_setup
    needs_for_run "$@"
    if $dry_run; then show_babysit "$@"; else babysit "$@"; fi
    ;;
  *)
    echo "error: unknown action '$action'; $usage" >&2
    exit 2
    ;;
esac
