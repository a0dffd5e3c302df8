// C = alpha A B (+ bias) for software drivers, where a storage access costs as much as fifty multiply-adds: no workgroup memory, no
// barriers, a register tile of R rows a lane. Bindings, strides and tiles: include/gemm.wgsl.
//
// With subgroups (SG lanes of a fixed number): a workgroup is one subgroup and owns R rows x 4 SG columns; a lane owns 4 adjacent columns, so
// one vec4 access of B brings 4 SG columns of one k. One vec4 access of A brings SG / 2 rows x 8 k (A = "k": lane -> row l / 2, half l & 1) or
// 4 SG rows of one k (A = "x"); subgroupShuffle spreads its values. Without (SG = 0): an invocation owns R rows x 4 Q columns by itself.
// Wide subgroups bring more rows by an access than a low tile has; the rest is not used.
// All products of one accumulator in a step of k follow each other, so it is loaded and stored once a step; they are added to each other first,
// in pairs, which costs nothing there and leaves an eighth of the roundings to the long sum. An operand read along x steps over
// a row of memory each k, farther than a prefetcher follows: its cache lines are touched one step ahead, up to SG of them by one access.
// What is left of K after steps of STEP, and all of it where A cannot be read by vec4, goes one k at a time.
// Rows and columns beyond the edge repeat the last one and are not stored.
// Design and measurements: this project's prototypes on llvmpipe (docs/kernels.md).
{% set L = SG if SG else 1 %}
{% set STEP = 8 if SG else 4 %}
{% set Q = 1 if SG else 4 %}
{% set per_load = SG // 2 if SG else 1 %}
{% include "gemm.wgsl" %}
{% from "pairwise.wgsl" import pairwise %}

@compute @workgroup_size({{ SG if SG else 8 }})
fn gemm(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
{% if SG %}
    @builtin(subgroup_invocation_id) lane: u32) {
    let index = group_index(wid, nwg);
{% else %}
    @builtin(local_invocation_index) local: u32) {
    let index = group_index(wid, nwg) * 8u + local;
    let lane = 0u;
{% endif %}
    if (index >= p.tiles) {
        return;
    }
    let t = locate(index);
    let row = t.row * {{ R }}u;
    let column = t.column * {{ 4 * Q * L }}u + lane * 4u;

    // Where the columns of B start, in vec4s where they are read so; parameters are read once, outside the loops.
{% for q in range(Q) %}
    {% if B == "x" %}
    let b{{ q }} = (t.b + min(column + {{ 4 * q }}u, p.n - 4u)) / 4u;
    {% else %}
        {% for j in range(4) %}
    let b{{ q }}_{{ j }} = t.b + min(column + {{ 4 * q + j }}u, p.n - 1u) * p.b_x;
        {% endfor %}
    {% endif %}
{% endfor %}
{% for r in range(R) %}
    {% for q in range(Q) %}
    var sum{{ r }}_{{ q }} = vec4<f32>();
    {% endfor %}
{% endfor %}
    let b_k = p.b_k{{ " / 4u" if B == "x" else "" }};
    var k = t.first_k;
{% if A != "s" %}
    // Where the rows of A start that this lane reads, in vec4s.
    {% if A == "k" %}
        {% set loads = (R + per_load - 1) // per_load %}
        {% for i in range(loads) %}
            {% if SG %}
    let a_row{{ i }} = (t.a + min(row + {{ i * per_load }}u + lane / 2u, p.m - 1u) * p.a_x) / 4u + (lane & 1u);
            {% else %}
    let a_row{{ i }} = (t.a + min(row + {{ i }}u, p.m - 1u) * p.a_x) / 4u;
            {% endif %}
        {% endfor %}
    {% else %}
    let a_k = p.a_k / 4u;
        {% set loads = (R + 4 * L - 1) // (4 * L) %}
        {% for i in range(loads) %}
    let a_row{{ i }} = (t.a + min(row + {{ 4 * L * i }}u + lane * 4u, p.m - 4u)) / 4u;
        {% endfor %}
    {% endif %}
    {% if SG %}
    var touched = 0.0;
        {% set lines_a = (R // 2 + SG - 1) // SG %}
        {% if B == "x" %}
            {% for i in range(2) %}
    let line_b{{ i }} = min(t.column * {{ 4 * L }}u + (lane + {{ i * SG }}u) / 8u * 16u, p.n - 1u);
            {% endfor %}
        {% endif %}
        {% if A == "x" %}
            {% for i in range(lines_a) %}
    let line_a{{ i }} = min(row + (lane + {{ i * SG }}u) / 8u * 16u, p.m - 1u);
            {% endfor %}
        {% endif %}
    {% endif %}
    let whole = t.first_k + (t.end_k - t.first_k) / {{ STEP }}u * {{ STEP }}u;
    for (; k < whole; k += {{ STEP }}u) {
    {% if SG %}
        // The lines of the next step: lane -> (k, line of 16 floats).
        {% if B == "x" %}
            {% for i in range(2) %}
        touched += load_b(t.b + min(k + 8u + (lane + {{ i * SG }}u) % 8u, p.k - 1u) * p.b_k + line_b{{ i }});
            {% endfor %}
        {% endif %}
        {% if A == "x" %}
            {% for i in range(lines_a) %}
        touched += load_a(t.a + min(k + 8u + (lane + {{ i * SG }}u) % 8u, p.k - 1u) * p.a_k + line_a{{ i }});
            {% endfor %}
        {% endif %}
    {% endif %}
    {% if A == "k" %}
        {% for i in range(loads) %}
        let a{{ i }} = load4_a(a_row{{ i }} + k / 4u);
        {% endfor %}
    {% endif %}
    {% if B == "k" %}
        {% for q in range(Q) %}
            {% for j in range(4) %}
                {% for h in range(STEP // 4) %}
        let b{{ q }}_{{ j }}_{{ h }} = load4_b((b{{ q }}_{{ j }} + k) / 4u + {{ h }}u);
                {% endfor %}
            {% endfor %}
        {% endfor %}
    {% endif %}
    {% for kk in range(STEP) %}
        {% if A == "x" %}
            {% for i in range(loads) %}
        let a{{ i }}_{{ kk }} = load4_a(a_row{{ i }} + k * a_k + {{ kk }}u * a_k);
            {% endfor %}
        {% endif %}
        {% for q in range(Q) %}
            {% if B == "k" %}
        let y{{ q }}_{{ kk }} = vec4<f32>({% for j in range(4) %}b{{ q }}_{{ j }}_{{ kk // 4 }}[{{ kk % 4 }}], {% endfor %});
            {% elif B == "x" %}
        let y{{ q }}_{{ kk }} = load4_b(b{{ q }} + k * b_k + {{ kk }}u * b_k);
            {% else %}
        let k{{ q }}_{{ kk }} = (k + {{ kk }}u) * b_k;
        let y{{ q }}_{{ kk }} = vec4<f32>({% for j in range(4) %}load_b(b{{ q }}_{{ j }} + k{{ q }}_{{ kk }}), {% endfor %});
            {% endif %}
        {% endfor %}
    {% endfor %}
    {% for r in range(R) %}
        {% for kk in range(STEP) %}
            {% if A == "k" and SG %}
        let x{{ r }}_{{ kk }} = subgroupShuffle(a{{ r // per_load }}[{{ kk % 4 }}], {{ r % per_load * 2 + kk // 4 }}u);
            {% elif A == "k" %}
        let x{{ r }}_{{ kk }} = a{{ r }}[{{ kk }}];
            {% elif SG %}
        let x{{ r }}_{{ kk }} = subgroupShuffle(a{{ r // (4 * L) }}_{{ kk }}[{{ r % 4 }}], {{ r % (4 * L) // 4 }}u);
            {% else %}
        let x{{ r }}_{{ kk }} = a{{ r // 4 }}_{{ kk }}[{{ r % 4 }}];
            {% endif %}
        {% endfor %}
        {% for q in range(Q) %}
        sum{{ r }}_{{ q }} += {{ pairwise("x" ~ r ~ "_# * y" ~ q ~ "_#", STEP) }};
        {% endfor %}
    {% endfor %}
    }
{% endif %}
{% if A == "s" %}
    // 32 k at a time, that no sum runs over many.
    for (; k < t.end_k;) {
    let end = min(k + 32u, t.end_k);
    {% for r in range(R) %}
        {% for q in range(Q) %}
    var part{{ r }}_{{ q }} = vec4<f32>();
        {% endfor %}
    {% endfor %}
{% else %}
    let end = t.end_k;
{% endif %}
    for (; k < end; k++) {
{% for i in range((R + L - 1) // L) %}
        let a{{ i }} = load_a(t.a + min(row + {{ i * L }}u + lane, p.m - 1u) * p.a_x + k * p.a_k);
{% endfor %}
{% for q in range(Q) %}
    {% if B == "x" %}
        let y{{ q }} = load4_b(b{{ q }} + k * b_k);
    {% else %}
        let y{{ q }} = vec4<f32>({% for j in range(4) %}load_b(b{{ q }}_{{ j }} + k * b_k), {% endfor %});
    {% endif %}
{% endfor %}
{% for r in range(R) %}
    {% if SG %}
        let x{{ r }} = subgroupShuffle(a{{ r // L }}, {{ r % L }}u);
    {% else %}
        let x{{ r }} = a{{ r }};
    {% endif %}
    {% for q in range(Q) %}
        {{ "part" if A == "s" else "sum" }}{{ r }}_{{ q }} += x{{ r }} * y{{ q }};
    {% endfor %}
{% endfor %}
    }
{% if A == "s" %}
    {% for r in range(R) %}
        {% for q in range(Q) %}
    sum{{ r }}_{{ q }} += part{{ r }}_{{ q }};
        {% endfor %}
    {% endfor %}
    }
{% endif %}
{% if A != "s" and SG %}
    // nothing is NaN, never equal: what has been touched counts as used. Here, because shuffles need all lanes.
    if (touched == p.nothing) {
        return;
    }
{% endif %}
{% for r in range(R) %}
    {% for q in range(Q) %}
    put(t.c, row + {{ r }}u, column + {{ 4 * q }}u, sum{{ r }}_{{ q }});
    {% endfor %}
{% endfor %}
}
