// loss of a row = -sum_c softmax((teacher - center) / teacher_temperature)_c log softmax(student / student_temperature)_c (Caron et al. 2021)
//               = lse(s) - sum_c softmax(t)_c s_c,   s = student / student_temperature, t = (teacher - center) / teacher_temperature.
//
// forward: student and teacher [n, d], center [d] to stats [n] of (lse(s), lse(t), 1, loss of the row). A workgroup owns a row: each lane
// keeps running maxima and sums of a strided part (online softmax, Milakov and Gimelshein 2018), the first adds them in order.
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
    let stats = load4_stats(i / p.d);
    let s = exp(load_student(i) * p.student_scale - stats.x);
    let t = exp((load_teacher(i) - load_center(i % p.d)) * p.teacher_scale - stats.y);
    store_dx(i, load_loss_gradient(0u) * p.scale * (s - t));
}
{% else %}
{{ output(3, "stats", type="f32", width=4) }}
{{ params("d: u32, student_scale: f32, teacher_scale: f32") }}

// Of each lane: (max of s, sum of exp(s - max), 0, 0) and (max of t, sum of exp(t - max), sum of s exp(t - max), 0).
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
        let s = load_student(row * p.d + c) * p.student_scale;
        let t = (load_teacher(row * p.d + c) - load_center(c)) * p.teacher_scale;
        let ms = max(own_s.x, s);
        own_s = vec4<f32>(ms, own_s.y * exp(own_s.x - ms) + exp(s - ms), 0.0, 0.0);
        let mt = max(own_t.x, t);
        let e = exp(t - mt);
        let shrink = exp(own_t.x - mt);
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
            all_s = vec4<f32>(ms, all_s.y * exp(all_s.x - ms) + s.y * exp(s.x - ms), 0.0, 0.0);
            let mt = max(all_t.x, t.x);
            all_t = vec4<f32>(mt, all_t.yz * exp(all_t.x - mt) + t.yz * exp(t.x - mt), 0.0);
        }
        let lse = all_s.x + log(all_s.y);
        store4_stats(row, vec4<f32>(lse, all_t.x + log(all_t.y), 1.0, lse - all_t.z / all_t.y));
    }
}
{% endif %}
