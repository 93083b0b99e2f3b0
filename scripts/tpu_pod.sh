#!/usr/bin/env bash
# Runs one mu command on every worker of a Cloud TPU VM slice:
#
#   RUNS=/mnt/shared/runs scripts/tpu_pod.sh NAME ZONE -- run configs/gemma3_270m_sports.py
#   DRY_RUN=1 scripts/tpu_pod.sh NAME ZONE -- ...      prints the commands and runs none
#
# The last commit is copied to ~/mu_jax of each worker and set up there (scripts/setup.sh
# with jax[tpu]; quick when it is up to date). Then each worker runs `mu ... --distributed`,
# which finds the others by itself.
#
# RUNS has to be a folder that all workers share, such as a Filestore instance mounted at
# the same place on each, or a bucket with a hierarchical namespace through gcsfuse (a flat
# one cannot rename a folder at once, and a snapshot has to appear whole). Where it is not
# shared, mu says so. CONFIG, and the files that it names, have to be in the repository or
# on that disk.
#
# A slice comes from a queued resource, spot ones at a third of the price:
#
#   gcloud compute tpus queued-resources create NAME --node-id NAME --zone ZONE \
#     --accelerator-type v5litepod-16 --runtime-version v2-alpha-tpuv5-lite --spot
#
# A spot slice is taken away with a SIGTERM, at which mu saves and exits with status 143
# (killed outright it loses at most --save-every steps). The same command goes on, also on
# a slice of another size. So: until this script succeeds, delete the queued resource,
# create it again, wait until `queued-resources describe NAME` says ACTIVE, call it again.
#
# For GKE see scripts/gke_jobset.yaml.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -lt 4 ] || [ "$3" != -- ]; then
  echo "usage: [RUNS=SHARED_FOLDER] [DRY_RUN=1] $0 NAME ZONE -- STAGE CONFIG|RUN [mu's options]" >&2
  exit 2
fi
name=$1 zone=$2
shift 3

run() {
  if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

tpu=(gcloud compute tpus tpu-vm)
where=(--zone "$zone" --worker=all)
archive=$(mktemp --suffix .tar.gz)
trap 'rm -f "$archive"' EXIT
git archive --format tar.gz --output "$archive" HEAD

options=(--distributed)
if [ -n "${RUNS:-}" ]; then
  options+=(--runs "$RUNS")
fi
command="cd mu_jax && exec .venv/bin/mu$(printf ' %q' "$@" "${options[@]}")"
setup="rm -rf mu_jax.new && mkdir -p mu_jax mu_jax.new"
setup+=" && tar -xzf mu_jax.tar.gz -C mu_jax.new && cp -R mu_jax.new/. mu_jax"
setup+=" && bash mu_jax/scripts/setup.sh plan"

run "${tpu[@]}" scp "$archive" "$name:mu_jax.tar.gz" "${where[@]}"
run "${tpu[@]}" ssh "$name" "${where[@]}" --command "$setup"
run "${tpu[@]}" ssh "$name" "${where[@]}" --command "$command"
