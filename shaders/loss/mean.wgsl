// loss = sum of terms[0..n] / w, and inverse = 1 / w. w is the sum of terms[n..2n] where p.weighted is 1, else p.divisor.
// Nothing to average, w = 0: both are 0. One workgroup, a tree in workgroup memory: the order of additions never changes.
{{ input(0, "terms", type="f32") }}
{{ output(1, "loss", type="f32") }}
{{ output(2, "inverse", type="f32") }}
{{ params("n: u32, weighted: u32, divisor: f32") }}
var<workgroup> shared_sums: array<vec2<f32>, 256>;

@compute @workgroup_size(256)
fn mean(@builtin(local_invocation_index) lane: u32) {
    var sums = vec2<f32>(0.0);
    for (var i = lane; i < p.n; i += 256u) {
        sums.x += load_terms(i);
        if (p.weighted == 1u) {
            sums.y += load_terms(p.n + i);
        }
    }
    shared_sums[lane] = sums;
    workgroupBarrier();
{% for half in [128, 64, 32, 16, 8, 4, 2, 1] %}
    if (lane < {{ half }}u) {
        shared_sums[lane] += shared_sums[lane + {{ half }}u];
    }
    workgroupBarrier();
{% endfor %}
    if (lane == 0u) {
        let w = select(p.divisor, shared_sums[0].y, p.weighted == 1u);
        store_loss(0u, select(0.0, shared_sums[0].x / w, w > 0.0));
        store_inverse(0u, select(0.0, 1.0 / w, w > 0.0));
    }
}
