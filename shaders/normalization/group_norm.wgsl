// Group normalisation (Wu and He 2018): the channels of an image in groups, each group over all pixels brought to mean 0 and variance 1,
//     y = (x - m) r w[c] + b[c],   m, v = mean and variance of the group,   r = 1 / sqrt(v + eps).
// Layer normalisation (Ba et al. 2016) is the same with one group of one pixel.
//
// x, y, dy, dx: [N, pixels, C] of type T; weight, bias: [C] and mean, inverse (m, r): [N, split], f32. split: groups an image; cg: channels a
// group; VEC = 4 counts channels in vec4s, where a group has a multiple of 4.
//
// forward, backward: LANES = 1 gives a thread a group (no barriers, for software drivers), LANES = 64 or 256 a workgroup, whose lanes lie `across`
// neighbouring channels of one pixel and LANES / across pixels; sums go through a tree in workgroup memory. The variance takes a second pass
// over x, which is then in a cache; that pass also sums what the rounding of the first left of the mean. No sum runs over more than 16 pixels
// before it is added to others. With u = dy w and z = (x - m) r
//     dx = r (u - mean(u) - z mean(u z)),   dweight = sum of dy z,   dbias = sum of dy.
// weights: those sums, a thread a channel of a slab of `chunk` pixels, into partial [slabs, 2, C]; finish: sums the slabs.
{% include "grid.wgsl" %}
{% from "nan.wgsl" import nan_kept %}
{{ nan_kept("f32") }}
{% set wide = "4" if VEC == 4 else "" %}
{% set float = "vec4<f32>" if VEC == 4 else "f32" %}
{% if PASS == "forward" %}
{{ input(0, "x", width=VEC) }}
{{ input(1, "weight", type="f32", width=VEC) }}
{{ input(2, "bias", type="f32", width=VEC) }}
{{ output(3, "y", width=VEC) }}
{{ output(4, "mean", type="f32") }}
{{ output(5, "inverse", type="f32") }}
{% elif PASS == "backward" %}
{{ input(0, "x", width=VEC) }}
{{ input(1, "dy", width=VEC) }}
{{ input(2, "weight", type="f32", width=VEC) }}
{{ input(3, "mean", type="f32") }}
{{ input(4, "inverse", type="f32") }}
{{ output(5, "dx", width=VEC) }}
{% elif PASS == "weights" %}
{{ input(0, "x", width=VEC) }}
{{ input(1, "dy", width=VEC) }}
{{ input(2, "mean", type="f32") }}
{{ input(3, "inverse", type="f32") }}
{{ output(4, "partial_", type="f32", width=VEC) }}
{% else %}
{{ input(0, "partial_", type="f32", width=VEC) }}
{{ output(1, "dweight", type="f32", width=VEC) }}
{{ output(2, "dbias", type="f32", width=VEC) }}
{% endif %}

{% if PASS == "forward" or PASS == "backward" %}
{{ params("n: u32, pixels: u32, c: u32, cg: u32, split: u32, across: u32, scale: f32, eps: f32") }}

fn fold(v: {{ float }}) -> f32 {
    {% if VEC == 4 %}
    return (v.x + v.y) + (v.z + v.w);
    {% else %}
    return v;
    {% endif %}
}

{# Sums of the names over the segment's values, of 16 pixels of a lane first. #}
{% macro sums(names) %}
{% for name in names %}
    var {{ name }} = {{ float }}(0.0);
{% endfor %}
    for (var block = first_pixel; block < p.pixels; block += 16u * pixel_step) {
        let end_block = min(block + 16u * pixel_step, p.pixels);
{% for name in names %}
        var part_{{ name }} = {{ float }}(0.0);
{% endfor %}
        for (var i = block; i < end_block; i += pixel_step) {
            for (var k = first_channel; k < p.cg; k += channel_step) {
                let at = start + i * p.c + k;
                {{ caller() }}
            }
        }
{% for name in names %}
        {{ name }} += part_{{ name }};
{% endfor %}
    }
{% endmacro %}
{% if LANES == 1 %}
fn total(v: vec2<f32>, lane: u32) -> vec2<f32> {
    return v;
}
{% else %}
var<workgroup> scratch: array<vec2<f32>, {{ LANES }}>;

fn total(v: vec2<f32>, lane: u32) -> vec2<f32> {
    scratch[lane] = v;
    workgroupBarrier();
    {% for half in [128, 64, 32, 16, 8, 4, 2, 1] if half < LANES %}
    if (lane < {{ half }}u) {
        scratch[lane] += scratch[lane + {{ half }}u];
    }
    workgroupBarrier();
    {% endfor %}
    let sum = scratch[0];
    workgroupBarrier();
    return sum;
}
{% endif %}

@compute @workgroup_size({{ [LANES, 64] | max }})
fn {{ PASS }}(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(wid, nwg);
    {% if LANES == 1 %}
    let segment = group * 64u + lane;
    if (segment >= p.n) {
        return;
    }
    let first_pixel = 0u;
    let first_channel = 0u;
    let pixel_step = 1u;
    let channel_step = 1u;
    {% else %}
    if (group >= p.groups) {
        return;
    }
    let segment = group;
    let first_pixel = lane / p.across;
    let first_channel = lane % p.across;
    let pixel_step = {{ LANES }}u / p.across;
    let channel_step = p.across;
    {% endif %}
    let image = segment / p.split;
    let channel = (segment - image * p.split) * p.cg;
    let start = image * p.pixels * p.c + channel;
    {% if PASS == "forward" %}
{% call sums(["sum"]) %}
part_sum += load{{ wide }}_x(at);
{% endcall %}
    let near = total(vec2<f32>(fold(sum), 0.0), lane).x * p.scale;
{% call sums(["rest", "squares"]) %}
let d = load{{ wide }}_x(at) - near;
                part_rest += d;
                part_squares += d * d;
{% endcall %}
    let moments = total(vec2<f32>(fold(rest), fold(squares)), lane) * p.scale;
    let m = near + moments.x;
    let r = 1.0 / sqrt(maximum(moments.y - moments.x * moments.x, 0.0) + p.eps);
    for (var i = first_pixel; i < p.pixels; i += pixel_step) {
        for (var k = first_channel; k < p.cg; k += channel_step) {
            let at = start + i * p.c + k;
            store{{ wide }}_y(at, (load{{ wide }}_x(at) - m) * (r * load{{ wide }}_weight(channel + k)) + load{{ wide }}_bias(channel + k));
        }
    }
    if (first_pixel == 0u && first_channel == 0u) {
        store_mean(segment, m);
        store_inverse(segment, r);
    }
    {% else %}
    let m = load_mean(segment);
    let r = load_inverse(segment);
{% call sums(["sum", "product"]) %}
let u = load{{ wide }}_dy(at) * load{{ wide }}_weight(channel + k);
                part_sum += u;
                part_product += u * ((load{{ wide }}_x(at) - m) * r);
{% endcall %}
    let means = total(vec2<f32>(fold(sum), fold(product)), lane) * p.scale;
    for (var i = first_pixel; i < p.pixels; i += pixel_step) {
        for (var k = first_channel; k < p.cg; k += channel_step) {
            let at = start + i * p.c + k;
            let u = load{{ wide }}_dy(at) * load{{ wide }}_weight(channel + k);
            store{{ wide }}_dx(at, r * (u - means.x - (load{{ wide }}_x(at) - m) * r * means.y));
        }
    }
    {% endif %}
}
{% elif PASS == "weights" %}
{{ params("n: u32, pixels: u32, c: u32, cg: u32, split: u32, rows: u32, chunk: u32") }}

@compute @workgroup_size(64)
fn weights(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let slab = i / p.c;
    let channel = i - slab * p.c;
    let own = channel / p.cg;
    let last = min((slab + 1u) * p.chunk, p.rows);
    var dw = {{ float }}(0.0);
    var db = {{ float }}(0.0);
    for (var row = slab * p.chunk; row < last; row += 1u) {
        var segment = row;
        if (p.pixels != 1u) {
            segment = row / p.pixels;
        }
        segment = segment * p.split + own;
        let at = row * p.c + channel;
        let dy = load{{ wide }}_dy(at);
        dw += dy * ((load{{ wide }}_x(at) - load_mean(segment)) * load_inverse(segment));
        db += dy;
    }
    store{{ wide }}_partial_(2u * slab * p.c + channel, dw);
    store{{ wide }}_partial_((2u * slab + 1u) * p.c + channel, db);
}
{% else %}
{{ params("c: u32, slabs: u32") }}

@compute @workgroup_size(64)
fn finish(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.c) {
        return;
    }
    var dw = {{ float }}(0.0);
    var db = {{ float }}(0.0);
    for (var slab = 0u; slab < p.slabs; slab += 1u) {
        dw += load{{ wide }}_partial_(2u * slab * p.c + i);
        db += load{{ wide }}_partial_((2u * slab + 1u) * p.c + i);
    }
    store{{ wide }}_dweight(i, dw);
    store{{ wide }}_dbias(i, db);
}
{% endif %}
