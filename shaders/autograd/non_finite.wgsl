// counts[lane] = how many of x[lane], x[lane + 64], ... are NaN or infinite (all exponent bits set).
{{ input(0, "x") }}
{{ output(1, "counts", type="i32") }}
{{ params("n: u32") }}

@compute @workgroup_size(64)
fn count(@builtin(local_invocation_index) lane: u32) {
    var bad = 0;
    for (var i = lane; i < p.n; i += 64u) {
        if ((bitcast<u32>(load_x(i)) & 0x7f800000u) == 0x7f800000u) {
            bad += 1;
        }
    }
    store_counts(lane, bad);
}
