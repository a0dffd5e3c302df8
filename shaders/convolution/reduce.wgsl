// The sum over slabs of partial sums, always in the same order, and their way into the layout of the weights:
//     result[group * columns * rows + row * row_stride + column * column_stride] = sum over slabs of partial[slab][group][row][column]
// Dense weights [K, kh, kw, C] have row_stride 1; depthwise weights column_stride 1.
//
// partial  [slabs][groups * rows][columns / 4] vec4s
// result   a thread adds one vec4 and writes its up to 4 columns
{% include "grid.wgsl" %}
{{ input(0, "partial", type="f32", width=4) }}
{{ output(1, "result", type="f32") }}
{{ params("n4: u32, slabs: u32, rows: u32, columns: u32, row_stride: u32, column_stride: u32") }}

@compute @workgroup_size(64)
fn reduce(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n4) {
        return;
    }
    var sum = vec4<f32>();
    for (var slab = 0u; slab < p.slabs; slab++) {
        sum += load4_partial(slab * p.n4 + i);
    }
    let columns4 = (p.columns + 3u) / 4u;
    let line = i / columns4;
    let column = (i - line * columns4) * 4u;
    let group = line / p.rows;
    let row = line - group * p.rows;
    let at = group * p.columns * p.rows + row * p.row_stride + column * p.column_stride;
    {% for m in range(4) %}
    if (column + {{ m }}u < p.columns) {
        store_result(at + {{ m }}u * p.column_stride, sum[{{ m }}]);
    }
    {% endfor %}
}
