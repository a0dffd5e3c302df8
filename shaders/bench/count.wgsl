// A probe: y[0] += 1. Next to no work, so its time is what a dispatch costs; dispatches depend on one another, as those of a training step do.
{{ inout(0, "y") }}
{{ params("") }}

@compute @workgroup_size(1)
fn count(@builtin(workgroup_id) wid: vec3<u32>) {
    if (wid.x < p.groups) {
        store_y(0u, load_y(0u) + 1.0);
    }
}
