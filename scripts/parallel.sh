#!/usr/bin/env bash
# Runs that several processes share over MPI: the same files whatever their number, and an end with
# a reason where one of them is lost. Each stage is a command, which scripts/test.sh runs:
#
#     scripts/parallel.sh setup     installs Open MPI and libclang (Debian, Ubuntu), where they lack
#     scripts/parallel.sh bits      1, 2 and 4 processes, and 2 that go on with what 4 began
#     scripts/parallel.sh faults    a process that hangs, fails, is killed, or has another recipe
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
target=${CARGO_TARGET_DIR:-target}
wgrad=$target/debug/wgrad

# Open MPI wants to be told that root may, and that more processes than cores are meant.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 WGRAD_TUNING=off
# Processes that wait leave their core to the others.
export OMPI_MCA_mpi_yield_when_idle=1

settings=(--set shards=4 --set batch=16 --set per_class=20 --set model=cnn_16_32_64 --set checkpoint_every=4)

has_mpi() {
    command -v mpirun >/dev/null 2>&1 && command -v mpicc >/dev/null 2>&1 && ldconfig -p 2>/dev/null | grep libclang >/dev/null
}

setup() {
    has_mpi && return
    command -v apt-get >/dev/null 2>&1 || return 1
    source scripts/ensure_vulkan.sh
    as_root apt-get update &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends libopenmpi-dev openmpi-bin libclang-dev
}

build() {
    cargo build --features mpi
}

# same WHAT RUN OTHER: both have written the same.
same() {
    local file
    for file in weights.safetensors checkpoints/last.safetensors; do
        cmp "$work/$2/$file" "$work/$3/$file" || { echo "$1: $file differs" && return 1; }
    done
    # Without the time that it took.
    diff <(sed 's/"images_per_second":[^,]*,//' "$work/$2/metrics.jsonl") <(sed 's/"images_per_second":[^,]*,//' "$work/$3/metrics.jsonl") ||
        { echo "$1: the metrics differ" && return 1; }
    echo "$1: the same weights, checkpoint and metrics"
}

bits() {
    local method
    for method in supervised simclr; do
        for processes in 1 2 4; do
            mpirun -np $processes "$wgrad" train $method "${settings[@]}" --set epochs=3 --out "$work/$method-$processes"
        done
        same "$method, 2 processes and 1" $method-2 $method-1
        same "$method, 4 processes and 1" $method-4 $method-1
        # A run that four share is interrupted, and two go on with it.
        mpirun -np 4 "$wgrad" train $method "${settings[@]}" --set epochs=3 --out "$work/$method-stopped" >"$work/log" 2>&1 &
        until grep -q step "$work/$method-stopped/metrics.jsonl" 2>/dev/null || ! kill -0 $! 2>/dev/null; do sleep 0.1; done
        pkill -INT -f -- "--out $work/$method-stopped" || true
        wait $! || true
        mpirun -np 2 "$wgrad" train $method --resume --out "$work/$method-stopped"
        same "$method, 4 processes and then 2" $method-stopped $method-1
    done
}

# ends NAME SECONDS WORDS...: the background job ends by itself, not well, and its log has the words.
ends() {
    local name=$1 within=$2 begun=$SECONDS
    shift 2
    while kill -0 "$job" 2>/dev/null; do
        [ $((SECONDS - begun)) -le "$within" ] || { echo "$name: it goes on after $within s" && cat "$work/log" && return 1; }
        sleep 0.2
    done
    if wait "$job"; then echo "$name: it ended well" && return 1; fi
    grep -q "$*" "$work/log" || { echo "$name: the log lacks \"$*\"" && cat "$work/log" && return 1; }
    echo "$name: ended after $((SECONDS - begun)) s: $(grep -m 1 "$*" "$work/log")"
}

# begin OUT: a long run of four processes, once it has written a checkpoint.
begin() {
    mpirun -np 4 "$wgrad" train simclr "${settings[@]}" --set epochs=2000 --out "$work/$1" >"$work/log" 2>&1 &
    job=$!
    until [ -e "$work/$1/checkpoints/last.safetensors" ]; do
        kill -0 "$job" 2>/dev/null || { cat "$work/log" && return 1; }
        sleep 0.2
    done
}

# member RANK OUT: the process of that rank.
member() {
    local process
    for process in $(pgrep -f -- "$wgrad train .*--out $work/$2"); do
        if tr '\0' '\n' <"/proc/$process/environ" | grep -q "^OMPI_COMM_WORLD_RANK=$1$"; then echo "$process"; fi
    done
}

faults() {
    begin hangs
    local stopped
    stopped=$(member 2 hangs)
    kill -STOP "$stopped"
    ends "a process that hangs" 30 "process 2 of this run: nothing was heard of it"
    kill -KILL "$stopped" 2>/dev/null || true

    begin killed
    kill -KILL "$(member 1 killed)"
    ends "a process that is killed" 30 "rank 1"
    # mpirun does not wait until the system has taken down all threads of those that it has killed;
    # the run's directory is theirs until then.
    flock --wait 30 "$work/killed" true
    timeout -s INT 20 "$wgrad" train simclr --resume --out "$work/killed" >"$work/log" 2>&1 || true
    grep -q "resuming after step" "$work/log" && grep -q "stopped after step" "$work/log" || { cat "$work/log" && return 1; }
    echo "what was killed goes on from its last checkpoint"

    mpirun -np 1 "$wgrad" train simclr "${settings[@]}" --out "$work/differs" : \
        -np 1 "$wgrad" train simclr "${settings[@]}" --set temperature=0.3 --out "$work/differs" >"$work/log" 2>&1 &
    job=$!
    ends "a process with another recipe" 60 "process 1 of this run: its recipe's method.temperature is 0.3"

    mpirun -np 1 "$wgrad" train simclr "${settings[@]}" --out "$work/fails" : \
        -np 1 -x WGRAD_MEMORY_MIB=1 "$wgrad" train simclr "${settings[@]}" --out "$work/fails" >"$work/log" 2>&1 &
    job=$!
    ends "a process without memory" 60 "process 1 of this run: it failed: out of device memory"
}

case "${1:-}" in
setup) setup ;;
bits | faults)
    build
    "$1"
    ;;
*)
    sed -n '2,8p' "$0" >&2
    exit 2
    ;;
esac
