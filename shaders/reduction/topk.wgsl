// The k largest values along an axis of x [outer, length, inner], in falling order, and their positions; of equal values the first comes first.
// values, indices [outer, k, inner]. Without VALUES only positions are written (argmax: k is 1).
//
// Each pick takes the largest pair (key, position) below the one before it, so nothing has to be marked as taken. Keys are the bits of a float
// turned into an integer of the same order; a NaN counts as the largest value and the zeros as equal, as in PyTorch, and a position is
// always found.
// TREE: a workgroup of 128 lanes owns a row; otherwise a thread does.
{% include "grid.wgsl" %}
{{ input(0, "x") }}
{{ output(1, "indices", type="i32") }}
{% if VALUES %}
{{ output(2, "values") }}
{% endif %}
{{ params("rows: u32, length: u32, inner: u32, k: u32") }}

const NONE: u32 = 0xffffffffu;

fn key_of(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return NONE;
    }
    if ((bits & 0x7fffffffu) == 0u) {
        return 0x80000000u;
    }
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

// The best of the elements first, first + step, .. that come after the pair (bound, after): (key, position), position NONE where there is none.
fn best_of(base: u32, first: u32, step: u32, bound: u32, after: u32) -> vec2<u32> {
    var best = vec2<u32>(0u, NONE);
    for (var i = first; i < p.length; i += step) {
        let key = key_of(load_x(base + i * p.inner));
        let open = after == NONE || key < bound || (key == bound && i > after);
        if (open && (best.y == NONE || key > best.x)) {
            best = vec2<u32>(key, i);
        }
    }
    return best;
}

fn write(row: u32, base: u32, pick: u32, position: u32) {
    let to = ((row / p.inner) * p.k + pick) * p.inner + row % p.inner;
    store_indices(to, i32(position));
    {% if VALUES %}
    store_values(to, load_x(base + position * p.inner));
    {% endif %}
}
{% if TREE %}

var<workgroup> scratch: array<vec2<u32>, 128>;

@compute @workgroup_size(128)
fn topk(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group_index(wid, nwg);
    if (row >= p.groups) {
        return;
    }
    let base = (row / p.inner) * p.length * p.inner + row % p.inner;
    var last = vec2<u32>(0u, NONE);
    for (var pick = 0u; pick < p.k; pick += 1u) {
        scratch[lane] = best_of(base, lane, 128u, last.x, last.y);
        {% for half in [64, 32, 16, 8, 4, 2, 1] %}
        workgroupBarrier();
        if (lane < {{ half }}u) {
            let a = scratch[lane];
            let b = scratch[lane + {{ half }}u];
            // NONE is the largest position and has the smallest key, so it never wins.
            if (b.x > a.x || (b.x == a.x && b.y < a.y)) {
                scratch[lane] = b;
            }
        }
        {% endfor %}
        workgroupBarrier();
        last = scratch[0];
        workgroupBarrier();
        if (lane == 0u) {
            write(row, base, pick, last.y);
        }
    }
}
{% else %}

@compute @workgroup_size(64)
fn topk(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group_index(wid, nwg) * 64u + lane;
    if (row >= p.rows) {
        return;
    }
    let base = (row / p.inner) * p.length * p.inner + row % p.inner;
    var last = vec2<u32>(0u, NONE);
    for (var pick = 0u; pick < p.k; pick += 1u) {
        last = best_of(base, 0u, 1u, last.x, last.y);
        write(row, base, pick, last.y);
    }
}
{% endif %}
