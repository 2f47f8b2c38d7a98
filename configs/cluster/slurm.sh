#!/bin/bash
# A run on nodes of a SLURM cluster, from the project's folder on storage that all nodes share:
#   sbatch --nodes=2 configs/cluster/slurm.sh jobs/pretrain.py --config configs/tats_vit_b.yaml \
#       data.manifest=/shared/train.parquet run.output_dir=/shared/runs train.workers=8
# Where the time limit ends it, the same command continues from the newest checkpoint.
#SBATCH --job-name=tats-ray
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
# The run goes on where a node other than the first is lost.
#SBATCH --no-kill
# SIGTERM to this script alone, five minutes before the limit: the driver writes a checkpoint.
#SBATCH --signal=B:TERM@300
set -eu

python=${TATS_RAY_PYTHON:-.venv/bin/python}
ray="$(dirname "$python")/ray"
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=$(echo "$nodes" | head -n 1)  # this script runs there
count=$(echo "$nodes" | wc -l)
address=$(hostname -I | cut -d' ' -f1):6379
steps=()
driver=

# Of this job alone. Processes are told where the token is, not what it is.
private=$(umask 077 && mktemp -d "$HOME/.tats-ray-$SLURM_JOB_ID-XXXXXX")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$private/token
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH")

# shellcheck disable=SC2329  # called by the trap
clean_up() {
    trap "" TERM INT
    [ -z "$driver" ] || steps+=("$driver")
    kill -TERM "${steps[@]}" 2> /dev/null || true
    for ((second = 0; second < 30; second++)); do
        kill -0 "${steps[@]}" 2> /dev/null || break  # true while there is one of them
        sleep 1
    done
    kill -KILL "${steps[@]}" 2> /dev/null || true
    rm -rf "$private"
}
trap clean_up EXIT

# shellcheck disable=SC2329  # called by the trap
stop() {
    stopped=yes
    [ -n "$driver" ] || exit 143  # nothing has begun that could be lost
    kill -TERM "$driver" 2> /dev/null || true
}
trap stop TERM INT

on_nodes() {  # NUMBER of nodes, the option that selects them, command...
    number=$1
    shift
    srun --nodes="$number" --ntasks="$number" --cpus-per-task="$SLURM_CPUS_ON_NODE" --overlap \
        --kill-on-bad-exit=0 "$@" &
    steps+=($!)
}

# Seconds that the cluster has to come up.
limit=${TATS_RAY_START_SECONDS:-300}
deadline=$((SECONDS + limit))
alive() {
    "$python" -c '
import sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
print(sum(node["Alive"] for node in ray.nodes()))' "$address" 2> /dev/null || echo 0
}
wait_for() {  # NUMBER of nodes
    while up=$(alive) && [ "$up" -lt "$1" ]; do
        for step in "${steps[@]}"; do
            if ! kill -0 "$step" 2> /dev/null; then
                echo "error: Ray ended on a node before all $count had joined; its lines stand above" >&2
                exit 1
            fi
        done
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo "error: $up of $count nodes have joined Ray within $limit s" >&2
            exit 1
        fi
        sleep 1
    done
}

on_nodes 1 --nodelist="$head" "$ray" start --head --block --node-ip-address="${address%:*}" \
    --port="${address#*:}" --num-cpus="$SLURM_CPUS_ON_NODE" --include-dashboard=false \
    --disable-usage-stats
wait_for 1
if [ "$count" -gt 1 ]; then
    on_nodes $((count - 1)) --exclude="$head" "$ray" start --address="$address" \
        --num-cpus="$SLURM_CPUS_ON_NODE" --block
fi
wait_for "$count"

"$python" "$@" cluster.mode=address cluster.address="$address" &
driver=$!
while true; do
    stopped="" code=0
    wait "$driver" || code=$?
    [ -n "$stopped" ] || break  # a signal ends the wait, and has gone on to the driver
done
driver=""
exit "$code"
