// loss of a row = -sum_c softmax((teacher - center) / teacher_temperature)_c log softmax(student / student_temperature)_c (Caron et al. 2021)
//               = log sum_c exp((s_c - m) / student_temperature) + (m - sum_c softmax(t / teacher_temperature)_c s_c) / student_temperature,
// s = student with the maximum m, t = teacher - center. Temperatures are small, so maxima are taken off before the division: a quotient
// rounded first would be wrong by 1e-6 in the exponent.
//
// forward: student and teacher [n, d], center [d] to stats [n][2] of (max s, 1 / its sum, max t, 1 / its sum) and (loss of the row, 0, 0, 0).
// A workgroup owns a row: each lane keeps running maxima and sums of a strided part (online softmax, Milakov and Gimelshein 2018), the
// first adds them in order.
// backward: ds = loss_gradient[0] * scale * (softmax(s) - softmax(t)), scale = 1 / (n student_temperature). A thread owns an element.
{% include "grid.wgsl" %}
{{ input(0, "student") }}
{{ input(1, "teacher", type=TEACHER) }}
{{ input(2, "center", type="f32") }}
{% if BACKWARD %}
{{ input(3, "stats", type="f32", width=4) }}
{{ input(4, "loss_gradient", type="f32") }}
{{ output(5, "dx") }}
{{ params("d: u32, size: u32, student_scale: f32, teacher_scale: f32, scale: f32") }}

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.size) {
        return;
    }
    let stats = load4_stats(i / p.d * 2u);
    let s = exp((load_student(i) - stats.x) * p.student_scale) * stats.y;
    let t = exp(((load_teacher(i) - load_center(i % p.d)) - stats.z) * p.teacher_scale) * stats.w;
    store_dx(i, load_loss_gradient(0u) * p.scale * (s - t));
}
{% else %}
{{ output(3, "stats", type="f32", width=4) }}
{{ params("d: u32, student_scale: f32, teacher_scale: f32") }}

// Of each lane: (max of s, its sum, 0, 0) and (max of t, its sum, sum of s by the same terms, 0).
var<workgroup> students: array<vec4<f32>, {{ LANES }}>;
var<workgroup> teachers: array<vec4<f32>, {{ LANES }}>;

@compute @workgroup_size({{ LANES }})
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group_index(wid, nwg);
    if (row >= p.groups) {
        return;
    }
    var own_s = vec4<f32>(-3.0e38, 0.0, 0.0, 0.0);
    var own_t = own_s;
    for (var c = lane; c < p.d; c += {{ LANES }}u) {
        let s = load_student(row * p.d + c);
        let t = load_teacher(row * p.d + c) - load_center(c);
        let ms = max(own_s.x, s);
        own_s = vec4<f32>(ms, own_s.y * exp((own_s.x - ms) * p.student_scale) + exp((s - ms) * p.student_scale), 0.0, 0.0);
        let mt = max(own_t.x, t);
        let e = exp((t - mt) * p.teacher_scale);
        let shrink = exp((own_t.x - mt) * p.teacher_scale);
        own_t = vec4<f32>(mt, own_t.y * shrink + e, own_t.z * shrink + e * s, 0.0);
    }
    students[lane] = own_s;
    teachers[lane] = own_t;
    workgroupBarrier();
    if (lane == 0u) {
        var all_s = students[0];
        var all_t = teachers[0];
        for (var i = 1u; i < {{ LANES }}u; i += 1u) {
            let s = students[i];
            let t = teachers[i];
            let ms = max(all_s.x, s.x);
            let sum = all_s.y * exp((all_s.x - ms) * p.student_scale) + s.y * exp((s.x - ms) * p.student_scale);
            all_s = vec4<f32>(ms, sum, 0.0, 0.0);
            let mt = max(all_t.x, t.x);
            all_t = vec4<f32>(mt, all_t.yz * exp((all_t.x - mt) * p.teacher_scale) + t.yz * exp((t.x - mt) * p.teacher_scale), 0.0);
        }
        store4_stats(2u * row, vec4<f32>(all_s.x, 1.0 / all_s.y, all_t.x, 1.0 / all_t.y));
        let loss = log(all_s.y) + (all_s.x - all_t.z / all_t.y) * p.student_scale;
        store4_stats(2u * row + 1u, vec4<f32>(loss, 0.0, 0.0, 0.0));
    }
}
{% endif %}
