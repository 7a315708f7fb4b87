#!/usr/bin/env bash
# A run on one TPU slice of a GKE cluster, as a JobSet.
#
#   launch/gke/submit.sh [--dry-run] ARGUMENTS...
#
# ARGUMENTS are those of `python -m paretohqd_jax.main`, with a run directory below /mnt/shared.
#
# Environment: NAME; IMAGE, with paretohqd_jax and jax[tpu] installed; ACCELERATOR and TOPOLOGY of
# the node pool; HOSTS and CHIPS_PER_HOST of the slice; CLAIM, a ReadWriteMany volume claim;
# MAX_RESTARTS (3) after failures other than preemption. --dry-run prints the manifest.
set -euo pipefail

dry_run=false
if [[ ${1-} == --dry-run ]]; then
  dry_run=true
  shift
fi
: "${NAME:?is not set; the name of the job}"
: "${IMAGE:?is not set; a container image with paretohqd_jax and jax[tpu]}"
: "${ACCELERATOR:?is not set; such as tpu-v5p-slice}"
: "${TOPOLOGY:?is not set; such as 2x2x1}"
: "${HOSTS:?is not set; the number of hosts of the slice}"
: "${CHIPS_PER_HOST:?is not set; the number of chips of each host}"
: "${CLAIM:?is not set; the name of a ReadWriteMany volume claim}"
: "${1:?no arguments; such as --config=configs/quickstart.py --workdir=/mnt/shared/runs/quickstart}"
# shellcheck source=launch/common.sh
source "$(dirname "$0")/../common.sh"
: "${MAX_RESTARTS:=3}"
need_name NAME
need_counts HOSTS CHIPS_PER_HOST
need_numbers MAX_RESTARTS
export NAME IMAGE ACCELERATOR TOPOLOGY CLAIM HOSTS CHIPS_PER_HOST MAX_RESTARTS

# Fills in jobset.yaml. JSON is YAML, and needs no care with quotes; Kubernetes reads $(NAME) in
# arguments as a variable, and $$ as one dollar.
manifest() {
  python3 - "$(dirname "$0")/jobset.yaml" "$@" <<'END'
import json, os, string, sys

texts = ("NAME", "IMAGE", "ACCELERATOR", "TOPOLOGY", "CLAIM")
arguments = [argument.replace("$", "$$") for argument in sys.argv[2:]]
values = {name: json.dumps(os.environ[name], ensure_ascii=False) for name in texts}
with open(sys.argv[1], encoding="utf-8") as file:
    manifest = string.Template(file.read()).substitute(
        os.environ | values, ARGUMENTS=json.dumps(arguments, ensure_ascii=False)
    )
sys.stdout.buffer.write(manifest.encode())
END
}

if $dry_run; then
  echo "# kubectl apply -f - with:"
  manifest "$@"
else
  manifest "$@" | kubectl apply -f -
fi
