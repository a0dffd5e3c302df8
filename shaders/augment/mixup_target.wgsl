// Labels of mixed images as probabilities: y [N, classes] = lam t(label) + (1 - lam) t(other), where t is `off` everywhere and more by `on`
// at the label: 1 - smoothing, and smoothing / classes (Szegedy et al. 2016). A label outside 0..classes makes its row NaN.
{% include "grid.wgsl" %}
{{ input(0, "labels", type="i32") }}
{{ input(1, "others", type="i32") }}
{{ output(2, "y", type="f32") }}
{{ params("n: u32, classes: u32, lam: f32, on: f32, off: f32") }}

fn target_of(label: i32, class_: u32) -> f32 {
    // A constant NaN would be a shader error.
    var nan = 0x7fc00000u;
    let value = select(p.off, p.off + p.on, bitcast<u32>(label) == class_);
    return select(bitcast<f32>(nan), value, bitcast<u32>(label) < p.classes);
}

@compute @workgroup_size(64)
fn mixup_target(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let row = i / p.classes;
    let class_ = i - row * p.classes;
    store_y(i, p.lam * target_of(load_labels(row), class_) + (1.0 - p.lam) * target_of(load_others(row), class_));
}
