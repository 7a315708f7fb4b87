#!/usr/bin/env bash
# One host's part of a run on a TPU VM. launch/tpu_vm.sh copies this checkout to every host and
# calls this script there:
#
#   launch/tpu_worker.sh setup SERVER:/SHARE   mounts the storage all hosts share, installs
#   launch/tpu_worker.sh start ARGUMENTS...    starts paretohqd_jax.main, which outlives the session
#   launch/tpu_worker.sh status                fresh, idle, running, lost or its exit status
#   launch/tpu_worker.sh stop                  SIGTERM: the run saves and ends with status 143
#   launch/tpu_worker.sh logs                  follows the output
set -euo pipefail

usage="usage: launch/tpu_worker.sh setup SERVER:/SHARE | start ARGUMENTS... | status | stop | logs"
action=${1:?$usage}
shift
cd "$(dirname "$0")/.."
shared=/mnt/shared
state=.run # of this host: ready, storage, lock (held while running), pid, status, log
mkdir -p "$state"

mount_storage() {
  local storage
  storage=$(<"$state/storage")
  mountpoint --quiet "$shared" || sudo mount -t nfs "$storage" "$shared"
}

setup() {
  rm -f "$state/ready"
  printf '%s' "${1:?$usage}" >"$state/storage"
  sudo apt-get install --yes --quiet nfs-common
  sudo mkdir -p "$shared"
  mount_storage
  sudo install -d -m 1777 "$shared/paretohqd"
  python3 -m pip install --user --quiet uv # for a newer Python than that of the image
  "$HOME/.local/bin/uv" venv --quiet --clear --python 3.12 .venv
  "$HOME/.local/bin/uv" pip install --quiet --python .venv/bin/python --editable . 'jax[tpu]'
  touch "$state/ready"
}

is_running() { ! flock --nonblock "$state/lock" true; }

start() {
  exec 9>"$state/lock"
  if ! flock --nonblock 9; then
    echo "error: a run is going on; stop it first" >&2
    exit 1
  fi
  mount_storage 9>&-
  rm -f "$state/status" "$state/pid"
  setsid "$BASH" launch/tpu_worker.sh supervise "$@" </dev/null >>"$state/log" 2>&1 &
}

# Inherits the lock and leaves the exit status. The signal that ends a host reaches this shell too.
supervise() {
  trap : TERM
  local status=0
  (
    echo "$BASHPID" >"$state/pid"
    exec .venv/bin/python -m paretohqd_jax.main "$@" 9>&-
  ) || status=$?
  echo "$status" >"$state/status"
}

# Starts with a mark, since ssh may print other things.
status() {
  printf 'paretohqd: '
  if [[ ! -e $state/ready ]]; then
    echo fresh
  elif is_running; then
    echo running
  elif [[ -e $state/status ]]; then
    cat "$state/status"
  elif [[ -e $state/pid ]]; then
    echo lost # the host was restarted
  else
    echo idle
  fi
}

stop() {
  if is_running; then
    kill -TERM "$(<"$state/pid")"
  fi
}

case $action in
  setup | start | supervise | status | stop) "$action" "$@" ;;
  logs) exec tail -n 100 -F "$state/log" ;;
  *)
    echo "error: unknown action '$action'; $usage" >&2
    exit 2
    ;;
esac
