// A convolution of images, second step of the ladder: an implicit matrix product with tiles.
//
//     y[image, i, j, f] = sum over r, s, c of
//         x[image, i stride + r - padding, j stride + s - padding, c] weight[f, r, s, c]
//
// x [images, h, w, channels], weight [filters, kernel, kernel, channels], y [images, oh, ow,
// filters]; pixels outside the image are 0.
//
// Number the taps and channels in the order in which the weights lie: position = (r kernel + s)
// channels + c. Then y is a product of two matrices, [pixels, positions] and [filters, positions]
// transposed. The second is the weight as it is. The first is never written down ("im2col" would
// need kernel^2 times the memory of x): whoever needs one of its elements works out which pixel and
// channel it is. So this is gemm_tiled.wgsl with another way to fetch: 16 x 16 threads own 16
// pixels x 16 filters and walk the positions by 16.
//
// Threads fetch along positions, because that is how both x and weight lie in memory. A row of the
// tiles has 17 numbers, not 16: 16 threads that read one position of 16 filters would meet in one
// bank of the memory otherwise.
//
// What is still wasted: two divisions for each fetched value to find its tap, and two reads for
// each multiply-add. The engine's kernels find a tap once for four channels and keep up to 64
// elements a thread in registers (convolution/conv2d_gpu.wgsl, convolution/conv2d_software.wgsl).
{% include "grid.wgsl" %}
{{ input(0, "x") }}
{{ input(1, "weight") }}
{{ output(2, "y") }}
{{ params("pixels: u32, h: u32, w: u32, channels: u32, oh: u32, ow: u32, filters: u32, kernel: u32, stride: u32, padding: u32") }}

var<workgroup> sources: array<f32, {{ 16 * 17 }}>;
var<workgroup> weights: array<f32, {{ 16 * 17 }}>;

// The element of the matrix [pixels, positions] that was never written down.
fn source(pixel: u32, position: u32) -> f32 {
    let c = position % p.channels;
    let tap = position / p.channels;
    // Below 0 a u32 wraps around and is large, so one comparison tests both edges.
    let row = pixel / p.ow % p.oh * p.stride + tap / p.kernel - p.padding;
    let column = pixel % p.ow * p.stride + tap % p.kernel - p.padding;
    if (row >= p.h || column >= p.w) {
        return 0.0;
    }
    let image = pixel / p.ow / p.oh;
    return load_x(((image * p.h + row) * p.w + column) * p.channels + c);
}

@compute @workgroup_size(16, 16)
fn conv2d(@builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) nwg: vec3u, @builtin(local_invocation_id) at: vec3u) {
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
    let tiles = (p.filters + 15u) / 16u;
    let first_pixel = group / tiles * 16u;
    let first_filter = group % tiles * 16u;
    let positions = p.kernel * p.kernel * p.channels;
    let mine = at.y * 17u + at.x;
    var sum = 0.0;
    for (var first = 0u; first < positions; first += 16u) {
        let position = first + at.x;
        var value = 0.0;
        if (first_pixel + at.y < p.pixels && position < positions) {
            value = source(first_pixel + at.y, position);
        }
        var weight = 0.0;
        if (first_filter + at.y < p.filters && position < positions) {
            weight = load_weight((first_filter + at.y) * positions + position);
        }
        sources[mine] = value;
        weights[mine] = weight;
        workgroupBarrier();
        for (var k = 0u; k < 16u; k += 1u) {
            sum += sources[at.y * 17u + k] * weights[at.x * 17u + k];
        }
        workgroupBarrier();
    }
    let pixel = first_pixel + at.y;
    let filter_ = first_filter + at.x;
    if (pixel < p.pixels && filter_ < p.filters) {
        store_y(pixel * p.filters + filter_, sum);
    }
}
