#!/usr/bin/env bash
# Asks tools that know more of Vulkan and WGSL than a driver tells: Khronos's validation layer,
# Mesa's newest software driver with subgroups of other widths, Dawn's compiler. Each stage is a
# command, which scripts/test.sh runs:
#
#     scripts/validate.sh setup vulkan|dawn   fetches tools into the user's cache, if they can be had
#     scripts/validate.sh races               no invocations race for workgroup memory
#     scripts/validate.sh trainings           three trainings keep Vulkan's rules, dispatches wait
#     scripts/validate.sh subgroups           operators are right with subgroups of 4 and 16 lanes
#     scripts/validate.sh matrix              products of cooperative matrices are right
#     scripts/validate.sh dawn                a browser's compiler takes every text
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/wgrad
target=${CARGO_TARGET_DIR:-target}
mesa=$cache/mesa/all
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

libraries=$mesa/usr/lib/x86_64-linux-gnu
loader=("$libraries/ld-linux-x86-64.so.2" --library-path "$libraries")

# with_mesa COMMAND...: runs a command that finds the software driver of Mesa's folder.
with_mesa() {
    VK_DRIVER_FILES=$mesa/usr/share/vulkan/icd.d/lvp_icd.json VK_LAYER_PATH=$mesa/usr/share/vulkan/explicit_layer.d \
        VK_LOADER_LAYERS_DISABLE='~implicit~' WGRAD_TUNING=off "$@"
}

# on_mesa COMMAND...: runs the program on it, with the C library and loader of that folder.
on_mesa() {
    with_mesa "${loader[@]}" "$target/debug/wgrad" "$@"
}

# validated SETTINGS COMMAND...: the same under the validation layer; fails, with its first messages,
# where it has any. Not counted are what it turns on, and the layout that naga gives arrays in
# workgroup memory, where SPIR-V wants none (10684).
validated() {
    local setting log=$work/log
    rm -f "$log"
    (
        export VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation
        for setting in LOG_FILENAME="$log" DEBUG_ACTION=VK_DBG_LAYER_ACTION_LOG_MSG REPORT_FLAGS=error,warn,perf,info \
            MESSAGE_ID_FILTER=VUID-StandaloneSpirv-None-10684,WARNING-Setting-Limit-Adjusted $1; do
            export "VK_KHRONOS_VALIDATION_$setting"
        done
        on_mesa "${@:2}" 2>"$work/errors"
    ) || {
        tail -n 20 "$work/errors"
        return 1
    }
    grep -q CURRENT-VALIDATION-ENABLED "$log" || { echo "the validation layer was not loaded" && return 1; }
    if grep '^Validation' "$log" | grep -vq CURRENT-VALIDATION-ENABLED; then
        grep -v CURRENT-VALIDATION-ENABLED "$log" | grep -A 12 '^Validation' | head -n 60
        return 1
    fi
}

off="VALIDATE_CORE=false STATELESS_PARAM=false OBJECT_LIFETIME=false THREAD_SAFETY=false VALIDATE_SYNC=false"
races="$off GPUAV_ENABLE=true GPUAV_SHARED_MEMORY_DATA_RACE=true GPUAV_DESCRIPTOR_CHECKS=false GPUAV_BUFFERS_VALIDATION=false
    GPUAV_POST_PROCESS_DESCRIPTOR_INDEXING=false"
sync="VALIDATE_SYNC=true SYNCVAL_FULL_VALIDATION=true SYNCVAL_SHADER_ACCESSES_HEURISTIC=true"

case "$*" in
"setup vulkan")
    if [ ! -e "$mesa/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json" ]; then cargo run -q -- inspect --setup all; fi
    cargo build -q
    on_mesa info
    ;;
"setup dawn")
    node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'
    if [ ! -e "$cache/dawn/node_modules/webgpu" ]; then
        npm install --prefix "$cache/dawn" --no-audit --no-fund --ignore-scripts webgpu@0.6.2
    fi
    ;;
races)
    # A kernel without its barrier shows that the layer sees what it is asked for.
    cat >"$work/reversed.wgsl" <<'WGSL'
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
var<workgroup> parts: array<f32, 64>;
@compute @workgroup_size(64) fn reversed(@builtin(local_invocation_index) lane: u32) {
    parts[lane] = f32(lane);
    y[lane] = parts[63u - lane];
}
WGSL
    planted() { validated "$races" bench "$work/reversed.wgsl" --bind 'y=f32[64]:zero' --grid 1 --seconds 0.01 --hot; }
    if planted >"$work/planted" || ! grep -q SharedMemoryDataRace "$work/planted"; then
        cat "$work/planted"
        echo "a planted race was not found"
        exit 1
    fi
    # What takes the time is the driver's compiler, on what the layer adds: so narrow vectors, no
    # optimisation, no f16 storage, and operators in parallel: one for each way of working together.
    export GALLIVM_PERF=nopt LP_NATIVE_VECTOR_WIDTH=128 WGRAD_LIMITS=webgpu WGRAD_SCHEDULE=gpu
    echo matmul conv2d depthwise_conv2d scaled_dot softmax batch_norm group_norm nt_xent dino_loss masked_nt_xent \
        cross_entropy mse_loss sum topk index_select clip_each |
        tr ' ' '\n' | xargs -n 1 -P "$(nproc)" scripts/validate.sh races-of
    ;;
"races-of "*)
    validated "$races" doctor --only "$2"
    ;;
trainings)
    train() {
        validated "$sync" train "$1" --out "$work/$1" --set per_class=16 --set batch=16 --set epochs=1 "${@:2}" >"$work/train" ||
            { cat "$work/train" && return 1; }
    }
    train supervised
    train simclr
    train distillation --set teachers="$work/supervised"
    ;;
subgroups)
    # An operator of each family whose kernels for software drivers use them; those for GPUs use
    # none. Mesa runs 16 lanes at most, whatever it says.
    doctor() {
        local operator
        for operator in matmul conv2d nt_xent batch_norm; do
            LP_NATIVE_VECTOR_WIDTH=$((32 * $1)) WGRAD_SCHEDULE=software on_mesa doctor --only $operator || return 1
        done
    }
    doctor 4 >"$work/four" &
    four=$! wrong=
    doctor 16 || wrong=yes
    wait $four || wrong=yes
    cat "$work/four"
    [ -z "$wrong" ]
    ;;
matrix)
    on_mesa info | grep '^matrices .* f16' || { echo "this Mesa has no cooperative matrices" && exit 1; }
    test_on_mesa() { CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="${loader[*]}" with_mesa cargo test "$@"; }
    test_on_mesa --lib linear::matrix
    test_on_mesa --test operators -- matrix::
    WGRAD_ONLY=conv2d,conv_transpose2d,matmul,linear,scaled_dot test_on_mesa --test operators -- half_ulps
    test_on_mesa --test engine precision
    ;;
dawn)
    cargo test -q --test shaders browser_texts -- --ignored
    node scripts/dawn.mjs "$cache/dawn/node_modules/webgpu" "$target/tmp/browser_texts"
    ;;
*)
    sed -n '2,11s/^# \{0,1\}//p' scripts/validate.sh >&2
    exit 2
    ;;
esac
