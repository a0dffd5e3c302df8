// A convolution of images, first step of the ladder: a thread an element of the result.
//
//     y[image, i, j, f] = sum over r, s, c of
//         x[image, i stride + r - padding, j stride + s - padding, c] weight[f, r, s, c]
//
// x [images, h, w, channels], weight [filters, kernel, kernel, channels], y [images, oh, ow,
// filters]; pixels outside the image are 0.
//
// Seven loops in one: four are the thread's number, three are walked. Two reads for each
// multiply-add, as in gemm_naive.wgsl, and worse: threads of neighbouring filters read weights that
// lie kernel^2 channels apart. Every source value is read by all filters and by up to kernel^2
// neighbouring pixels. conv2d_tiled.wgsl shares it.
{% include "grid.wgsl" %}
{{ input(0, "x") }}
{{ input(1, "weight") }}
{{ output(2, "y") }}
{{ params("elements: u32, h: u32, w: u32, channels: u32, oh: u32, ow: u32, filters: u32, kernel: u32, stride: u32, padding: u32") }}

@compute @workgroup_size(64)
fn conv2d(@builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) nwg: vec3u, @builtin(local_invocation_index) lane: u32) {
    let element = group_index(wid, nwg) * 64u + lane;
    if (element >= p.elements) {
        return;
    }
    let f = element % p.filters;
    let j = element / p.filters % p.ow;
    let i = element / p.filters / p.ow % p.oh;
    let image = element / p.filters / p.ow / p.oh;
    var sum = 0.0;
    for (var r = 0u; r < p.kernel; r += 1u) {
        // Below 0 a u32 wraps around and is large, so one comparison tests both edges.
        let row = i * p.stride + r - p.padding;
        for (var s = 0u; s < p.kernel; s += 1u) {
            let column = j * p.stride + s - p.padding;
            if (row < p.h && column < p.w) {
                let pixel = ((image * p.h + row) * p.w + column) * p.channels;
                let tap = ((f * p.kernel + r) * p.kernel + s) * p.channels;
                for (var c = 0u; c < p.channels; c += 1u) {
                    sum += load_x(pixel + c) * load_weight(tap + c);
                }
            }
        }
    }
    store_y(element, sum);
}
