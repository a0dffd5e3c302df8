// u = x / max(|x|, 1e-12) for each row, and its gradient; PyTorch's F.normalize.
//
// forward: x [n, d] to rows offset.. of u [.., padded], padded >= d and zero beyond d; inverse[row] = 1 / max(|x|, 1e-12). Rows n..total
// of the launch are padding: zero. backward: du and u [.., padded] to dx [n, d]: dx = scale * inverse * (du - u <u, du>), and with SCALED
// also times loss_gradient[0] * weight[0]. Below the threshold the norm is constant, so the projection falls away.
//
// A workgroup owns a row: each lane sums a strided part, then all parts are added in the same order.
{% include "grid.wgsl" %}
{% from "lanes.wgsl" import join_lanes %}
{% from "nan.wgsl" import nan_kept %}
{{ nan_kept("f32") }}
{% if BACKWARD %}
{{ input(0, "du", type="f32") }}
{{ input(1, "u", type="f32") }}
{{ input(2, "inverse", type="f32") }}
{% if SCALED %}
{{ input(3, "loss_gradient", type="f32") }}
{{ input(4, "weight", type="f32") }}
{% endif %}
{{ output(5 if SCALED else 3, "dx") }}
{{ params("d: u32, padded: u32, offset: u32, scale: f32") }}
{% else %}
{{ input(0, "x") }}
{{ output(1, "u", type="f32") }}
{{ output(2, "inverse", type="f32") }}
{{ params("d: u32, padded: u32, offset: u32, n: u32") }}
{% endif %}

var<workgroup> parts: array<f32, {{ LANES }}>;

fn all_lanes(part: f32, lane: u32) -> f32 {
    parts[lane] = part;
{{ join_lanes("parts", LANES) }}
    workgroupBarrier();
    return parts[0];
}

@compute @workgroup_size({{ LANES }})
fn normalize(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group_index(wid, nwg);
    if (row >= p.groups) {
        return;
    }
    let base = (p.offset + row) * p.padded;
    var part = 0.0;
{% if BACKWARD %}
    for (var c = lane; c < p.d; c += {{ LANES }}u) {
        part += load_du(base + c) * load_u(base + c);
    }
    let along = all_lanes(part, lane);
    let length = load_inverse(p.offset + row);
    let projection = select(0.0, along, length < 1e12);
    let scale = p.scale * length{% if SCALED %} * load_loss_gradient(0u) * load_weight(0u){% endif %};
    for (var c = lane; c < p.d; c += {{ LANES }}u) {
        store_dx(row * p.d + c, scale * (load_du(base + c) - load_u(base + c) * projection));
    }
{% else %}
    let inside = row < p.n;
    if (inside) {
        for (var c = lane; c < p.d; c += {{ LANES }}u) {
            let x = load_x(row * p.d + c);
            part += x * x;
        }
    }
    let length = 1.0 / maximum(sqrt(all_lanes(part, lane)), 1e-12);
    for (var c = lane; c < p.padded; c += {{ LANES }}u) {
        var value = 0.0;
        if (inside && c < p.d) {
            value = load_x(row * p.d + c) * length;
        }
        store_u(base + c, value);
    }
    if (lane == 0u) {
        store_inverse(p.offset + row, select(0.0, length, inside));
    }
{% endif %}
}
