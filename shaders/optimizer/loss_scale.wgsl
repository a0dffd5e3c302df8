// The loss scale of mixed precision (Micikevicius et al. 2018), PyTorch's GradScaler: state is
// (scale, steps taken since it last changed).
//
// unscale: scalars[5], the factor of the gradients, is divided by the scale that is in them.
// update:  control[2] says whether the step was taken. One that was not lowers the scale; after
//          `interval` that were it rises, where that stays finite.
// A single invocation works.
{% include "grid.wgsl" %}
{% if ENTRY == "unscale" %}
{{ inout(0, "scalars", type="f32") }}
{{ input(1, "state", type="f32") }}
{{ params("") }}

@compute @workgroup_size(1)
fn unscale(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    if (group_index(wid, nwg) >= p.groups) {
        return;
    }
    store_scalars(5u, load_scalars(5u) / load_state(0u));
}
{% else %}
{{ inout(0, "state", type="f32") }}
{{ input(1, "control", type="f32") }}
{{ params("growth: f32, backoff: f32, interval: f32") }}

@compute @workgroup_size(1)
fn update(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    if (group_index(wid, nwg) >= p.groups) {
        return;
    }
    let scale = load_state(0u);
    var good = load_state(1u) + 1.0;
    var next = scale;
    if (load_control(2u) == 0.0) {
        next = scale * p.backoff;
        good = 0.0;
    } else if (good >= p.interval) {
        let grown = scale * p.growth;
        next = select(scale, grown, grown <= 3.4028234e38);
        good = 0.0;
    }
    store_state(0u, next);
    store_state(1u, good);
}
{% endif %}
