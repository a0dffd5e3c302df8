# Builds wgrad and runs its demo on Windows: scripts\demo.ps1 [OPTIONS], which go to `wgrad demo`.
# DX12 is part of the system, so there is no driver to install.
Set-Location (Join-Path $PSScriptRoot "..")
cargo build --release
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
$target = if ($env:CARGO_TARGET_DIR) { $env:CARGO_TARGET_DIR } else { "target" }
& (Join-Path $target "release/wgrad.exe") demo @args
exit $LASTEXITCODE
