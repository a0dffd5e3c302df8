// Softmax of rows, second step of the ladder: a workgroup a row, two walks.
//
//     y[i] = exp((x[i] - m) rate) / l,   m = max of x,   l = sum of exp((x - m) rate)
//
// x, y [rows, n]; rate is 1 / temperature. Lane t of 64 owns items t, t + 64, ..: the lanes read
// neighbours, a line of memory for all of them.
//
// The first walk finds maximum and sum together: whenever a lane meets a larger value, its sum so
// far is multiplied by exp((old - new) rate) (Milakov and Gimelshein 2018, "Online normalizer
// calculation for softmax"). Then a tree in workgroup memory joins the lanes' pairs, 64 to 32 to 16
// and so on, always in the same order, so the bits repeat.
//
// What is still wasted: x is read twice, one number at a time. The engine's kernels read four, and
// keep a row of up to 1,024 values in registers between the walks (softmax/softmax_gpu.wgsl); on a
// driver that runs on a processor a thread a row is faster after all, because joining lanes costs
// more than it saves (softmax/softmax_software.wgsl).
{% include "grid.wgsl" %}
{{ input(0, "x") }}
{{ output(1, "y") }}
{{ params("n: u32, rate: f32") }}

const NONE: f32 = -3.4028234e38;

// A part of a row: its largest value, and the sum of exp((x - largest) rate).
struct Part { largest: f32, sum: f32 }

var<workgroup> parts: array<Part, 64>;

fn join(a: Part, b: Part) -> Part {
    let m = max(a.largest, b.largest);
    return Part(m, a.sum * exp((a.largest - m) * p.rate) + b.sum * exp((b.largest - m) * p.rate));
}

@compute @workgroup_size(64)
fn softmax(@builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) nwg: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = group_index(wid, nwg);
    if (row >= p.groups) {
        return;
    }
    let first = row * p.n;
    var part = Part(NONE, 0.0);
    for (var i = lane; i < p.n; i += 64u) {
        part = join(part, Part(load_x(first + i), 1.0));
    }
    parts[lane] = part;
    for (var half = 32u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            parts[lane] = join(parts[lane], parts[lane + half]);
        }
    }
    workgroupBarrier();
    let whole = parts[0];
    for (var i = lane; i < p.n; i += 64u) {
        store_y(first + i, exp((load_x(first + i) - whole.largest) * p.rate) / whole.sum);
    }
}
