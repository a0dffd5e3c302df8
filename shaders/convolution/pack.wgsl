// Weights in the order in which convolution kernels read them: [group][tap * rows + row][column / 4] vec4s, and after a group's
// last row its bias (0 without one). Columns beyond the last are 0. `row` is summed over (input channels forward, filters in the
// gradient to the input), `column` is what a thread owns.
//
// weight  [K, kh, kw, C / groups], read at group * group_stride + tap * tap_stride + row * row_stride + column * column_stride
// bias    [groups * columns]; any buffer where has_bias is 0
// packed  as above; a thread writes one vec4
{% include "grid.wgsl" %}
{{ input(0, "weight", type="f32") }}
{{ input(1, "bias", type="f32") }}
{{ output(2, "packed", type="f32", width=4) }}
{{ params("n4: u32, taps: u32, rows: u32, columns: u32, group_stride: u32, tap_stride: u32, row_stride: u32, column_stride: u32, has_bias: u32") }}

fn value(group: u32, line: u32, column: u32) -> f32 {
    let tap = line / p.rows;
    let is_bias = tap == p.taps;
    let inside = column < p.columns;
    let at = group * p.group_stride + tap * p.tap_stride + (line - tap * p.rows) * p.row_stride + column * p.column_stride;
    let w = load_weight(select(0u, at, inside && !is_bias));
    let b = load_bias(select(0u, group * p.columns + column, inside && is_bias && p.has_bias != 0u));
    return select(0.0, select(w, select(0.0, b, p.has_bias != 0u), is_bias), inside);
}

@compute @workgroup_size(64)
fn pack(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n4) {
        return;
    }
    let columns4 = (p.columns + 3u) / 4u;
    let lines = p.taps * p.rows + 1u;
    let row = i / columns4;
    let group = row / lines;
    let line = row - group * lines;
    let column = (i - row * columns4) * 4u;
    store4_packed(i, vec4<f32>(value(group, line, column), value(group, line, column + 1u), value(group, line, column + 2u), value(group, line, column + 3u)));
}
