#!/bin/sh
# Submits a job to a running cluster, from the project's folder:
#   configs/cluster/ray_job.sh jobs/pretrain.py --config configs/demo.yaml run.output_dir=/shared/runs
# RAY_ADDRESS is the head's job API, this machine's own by default. The token is that of
# ~/.ray/auth_token or RAY_AUTH_TOKEN; it is not among the arguments, which others can see.
set -eu
export RAY_AUTH_MODE=token
exec ray job submit --address "${RAY_ADDRESS:-http://127.0.0.1:8265}" --working-dir . -- \
    python "$@" cluster.mode=address cluster.address=auto
