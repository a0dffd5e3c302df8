// y[i] = the i-th of up to 8 parameters: numbers that kernels find in memory, and that may differ from run to run of a captured program.
{{ output(0, "y", type="f32") }}
{{ params("n: u32, a: f32, b: f32, c: f32, d: f32, e: f32, f: f32, g: f32, h: f32") }}

@compute @workgroup_size(8)
fn numbers(@builtin(local_invocation_index) lane: u32) {
    // An array that is indexed by the lane would lie in memory; eight stores are eight branches.
    var value = p.a;
{% for name in ["b", "c", "d", "e", "f", "g", "h"] %}
    value = select(value, p.{{ name }}, lane == {{ loop.index }}u);
{% endfor %}
    if (lane < p.n) {
        store_y(lane, value);
    }
}
