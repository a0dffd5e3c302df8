// Bias gradients: sums of the columns of a matrix over slabs of its rows; reduce.wgsl adds the slabs.
//
// x        [pixels, columns]
// partial  [slabs][columns / 4] vec4s; a thread owns one
{% include "grid.wgsl" %}
{{ input(0, "x", width=4 if VECTOR else 1) }}
{{ output(1, "partial", type="f32", width=4) }}
{{ params("pixels: u32, columns: u32, slabs: u32, slab_pixels: u32") }}

@compute @workgroup_size(64)
fn column_sum(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let columns4 = (p.columns + 3u) / 4u;
    let i = group_index(wid, nwg) * 64u + lane;
    let slab = i / columns4;
    if (slab >= p.slabs) {
        return;
    }
    let column4 = i - slab * columns4;
    let end = min((slab + 1u) * p.slab_pixels, p.pixels);
    var sum = vec4<f32>();
    for (var pixel = slab * p.slab_pixels; pixel < end; pixel++) {
        {% if VECTOR %}
        sum += load4_x(pixel * columns4 + column4);
        {% else %}
        {% for m in range(4) %}
        if (column4 * 4u + {{ m }}u < p.columns) {
            sum[{{ m }}] += load_x(pixel * p.columns + column4 * 4u + {{ m }}u);
        }
        {% endfor %}
        {% endif %}
    }
    store4_partial(i, sum);
}
