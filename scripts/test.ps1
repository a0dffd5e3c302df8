# Runs everything that is tested on Windows, as scripts/test.sh does elsewhere: scripts\test.ps1 [-Lint]
# DX12 is part of the system, so there is no driver to install.
param([switch]$Lint)
Set-Location (Join-Path $PSScriptRoot "..")

$results = @()
function Invoke-Stage([string]$Title, [string[]]$Arguments) {
    Write-Host "`n==== $Title ====`ncargo $Arguments`n"
    & cargo @Arguments
    $state = if ($LASTEXITCODE -eq 0) { "passed" } else { "FAILED" }
    $script:results += "{0,-6}  {1}" -f $state, $Title
}

if ($Lint -or $env:CI) {
    Invoke-Stage "formatting" @("fmt", "--check")
    Invoke-Stage "clippy" @("clippy", "--all-targets", "--", "-D", "warnings")
}
Invoke-Stage "the engine alone compiles" @("check", "--no-default-features", "--lib", "--examples")
Invoke-Stage "tests" @("test", "--no-fail-fast", "--", "--show-output")
$limits = $env:WGRAD_LIMITS
$env:WGRAD_LIMITS = "webgpu"
Invoke-Stage "reference operators under WebGPU's limits" @("test", "--no-fail-fast", "--test", "operators", "reference_ops", "--", "--show-output")
$env:WGRAD_LIMITS = $limits
Invoke-Stage "every benchmark runs once" @("test", "--benches")
$flags = $env:RUSTDOCFLAGS
$env:RUSTDOCFLAGS = "-D warnings"
Invoke-Stage "documentation without warnings" @("doc", "--no-deps")
$env:RUSTDOCFLAGS = $flags

Write-Host "`n==== summary ===="
$results | ForEach-Object { Write-Host $_ }
if ($results -match "^FAILED") { exit 1 }
