// average = m * average + (1 - m) * source over a slab [4 * n4] in place, m = scalars[4]. A thread owns one vec4. Where both are equal (what is
// frozen) nothing moves, not by a last bit either.
{% include "grid.wgsl" %}
{{ inout(0, "average", type="f32", width=4) }}
{{ input(1, "source", type="f32", width=4) }}
{{ input(2, "scalars", type="f32") }}
{{ params("n4: u32") }}

@compute @workgroup_size(64)
fn ema_update(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i < p.n4) {
        let m = load_scalars(4u);
        let a = load4_average(i);
        let s = load4_source(i);
        store4_average(i, select(m * a + (1.0 - m) * s, a, a == s));
    }
}
