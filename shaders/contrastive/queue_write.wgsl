// write: rows [b, d] into queue [m, d] from row `start` on, wrapping around at m; b <= m. With CURSOR the start is cursor[0]. A thread owns an
// element of rows; size counts them.
// advance: cursor[0] = (cursor[0] + b) mod m, after write.
{% if ENTRY == "write" %}
{% include "grid.wgsl" %}
{{ inout(0, "queue") }}
{{ input(1, "rows") }}
{% if CURSOR %}
{{ input(2, "cursor", type="i32") }}
{% endif %}
{{ params("m: u32, d: u32, size: u32, start: u32") }}

@compute @workgroup_size(64)
fn write(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.size) {
        return;
    }
    let row = ({{ "u32(load_cursor(0u))" if CURSOR else "p.start" }} + i / p.d) % p.m;
    store_queue(row * p.d + i % p.d, load_rows(i));
}
{% else %}
{{ inout(0, "cursor", type="i32") }}
{{ params("m: u32, b: u32") }}

@compute @workgroup_size(1)
fn advance() {
    store_cursor(0u, i32((u32(load_cursor(0u)) + p.b) % p.m));
}
{% endif %}
