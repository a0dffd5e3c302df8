#!/usr/bin/env bash
# Builds wgrad and runs its demo on the bundled images: an encoder learns without labels, a teacher from a few, a small network from the teacher.
#
#     scripts/demo.sh [OPTIONS]      options go to `wgrad demo`; --help lists them
#
# Needs Rust, and a Vulkan driver on Linux (installed on Debian and Ubuntu).
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v cargo >/dev/null 2>&1; then
    echo "cargo was not found; install Rust, or add its bin folder to PATH" >&2
    exit 1
fi
source scripts/ensure_vulkan.sh
ensure_vulkan

cargo build --release
exec "${CARGO_TARGET_DIR:-target}/release/wgrad" demo "$@"
