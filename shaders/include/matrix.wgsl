{# What the products of cooperative matrices share (linear/gemm_matrix.wgsl,
   convolution/conv2d_matrix.wgsl, convolution/conv2d_weight_matrix.wgsl). Imported, not included.

   A workgroup owns SIDE x SIDE elements of a result and goes along k by STEP. Its subgroups are
   DOWN x ACROSS workers, each with (SIDE / DOWN) x (SIDE / ACROSS) of the elements, in accumulators
   of M x N f32 that have names: a driver that keeps an array of them in memory would spill. There
   are as many workers as there are subgroups of the adapter's widest. Narrower ones are more, and
   those beyond the workers repeat the last one's work and store nothing.

   The tiles of A and B are f16 in workgroup memory, whatever they are in storage, and two of each:
   one is filled while the other is read, so a step has one barrier. Both lie as [line][k], lines
   being rows of A or columns of B, STRIDE = STEP + 8 halves apart: eight lines of 8 halves then lie
   in different banks. An invocation brings a block of four lines by four k, as four vec4s along k
   (layout "k") or along lines ("x"), which it turns by naming registers; eight neighbours bring one
   line's k. So A is always loaded by rows and B by columns, and no matrix is gathered half by half.
   Elements are scalars, since Metal's simdgroup_load takes no pointer to a vec4; places are written
   as products of 4 and 8, and `filled`, the tile in use, counts by eight halves, so that compilers
   see that four and eight may be moved at once. What a coopStore is given is bound by `let` before:
   naga 30 loses what is computed among its arguments.

   Design: the warp tiles of CUTLASS (Kerr et al. 2017); ggml's Vulkan mul_mm with
   VK_KHR_cooperative_matrix. #}

{# Workgroup memory of the two pairs of tiles, and a matrix for each worker's results. #}
{% macro memory(shape) %}
var<workgroup> a_tile: array<f16, {{ 2 * shape.side * shape.stride }}>;
var<workgroup> b_tile: array<f16, {{ 2 * shape.side * shape.stride }}>;
var<workgroup> results: array<f32, {{ shape.down * shape.across * shape.m * shape.n }}>;
{% endmacro %}

{# The head of a kernel, which has the number of its workgroup as `index`: group_index, written out,
   for naga takes what a function returns for different in each invocation. #}
{% macro entry(shape, name) %}
@compute @workgroup_size({{ shape.invocations }})
fn {{ name }}(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) nwg: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let index = wid.x + wid.y * nwg.x;
    if (index >= p.groups) {
        return;
    }
{% endmacro %}

{# What an invocation brings: its first line and first k of a step, and their place in a tile, by
   four halves. #}
{% macro loader(shape) %}
    let tile_line = local / {{ shape.step // 4 }}u * 4u;
    let tile_k = local % {{ shape.step // 4 }}u * 4u;
    let tile_place = tile_line * {{ shape.stride // 4 }}u + tile_k / 4u;
{% endmacro %}

{# Four vec4s {next}0 to {next}3 go into a tile. `inside` says of each whether it is, along k
   (layout "k") or with `each` by its elements; the others become zero. #}
{% macro stage(shape, tile, layout, next, inside, each=false) %}
        let {{ tile }}_place = (filled * 2u + tile_place) * 4u;
    {% for i in range(4) %}
        {% if layout == "k" %}
        let {{ next }}_{{ i }} = select(vec4<f16>(), vec4<f16>({{ next }}{{ i }}), {{ inside[i] }});
        {% else %}
        let {{ next }}_{{ i }} = vec4<f16>(
        {%- for e in range(4) %}select(f16(), f16({{ next }}{{ e }}[{{ i }}]), {{ inside[e] }}{{ "[" ~ i ~ "]" if each }}){{ ", " if e < 3 }}{% endfor -%}
        );
        {% endif %}
        {% for e in range(4) %}
        {{ tile }}[{{ tile }}_place + {{ i * shape.stride + e }}u] = {{ next }}_{{ i }}[{{ e }}];
        {% endfor %}
    {% endfor %}
{% endmacro %}

{# A worker's place, its sums, and the tile that is filled next. #}
{% macro begin(shape) %}
    var filled = 0u;
    let worker = min(subgroup, {{ shape.down * shape.across - 1 }}u);
    let worker_row = worker / {{ shape.across }}u * {{ shape.side // shape.down }}u;
    let worker_column = worker % {{ shape.across }}u * {{ shape.side // shape.across }}u;
    {% for i in range(shape.side // shape.down // shape.m) %}
    {% for j in range(shape.side // shape.across // shape.n) %}
    var sum{{ i }}_{{ j }} = coop_mat{{ shape.n }}x{{ shape.m }}<f32, C>();
    {% endfor %}
    {% endfor %}
{% endmacro %}

{# Adds one step's products, and turns to the other tile. #}
{% macro multiply(shape) %}
        let a_at = (filled + worker_row * {{ shape.stride // 8 }}u) * 8u;
        let b_at = (filled + worker_column * {{ shape.stride // 8 }}u) * 8u;
    {% for q in range(shape.step // shape.k) %}
        {
        {% for i in range(shape.side // shape.down // shape.m) %}
            let a{{ i }} = coopLoadT<coop_mat{{ shape.k }}x{{ shape.m }}<f16, A>>(&a_tile[a_at + {{ i * shape.m * shape.stride + q * shape.k }}u], {{ shape.stride }}u);
        {% endfor %}
        {% for j in range(shape.side // shape.across // shape.n) %}
            let b{{ j }} = coopLoad<coop_mat{{ shape.n }}x{{ shape.k }}<f16, B>>(&b_tile[b_at + {{ j * shape.n * shape.stride + q * shape.k }}u], {{ shape.stride }}u);
            {% for i in range(shape.side // shape.down // shape.m) %}
            sum{{ i }}_{{ j }} = coopMultiplyAdd(a{{ i }}, b{{ j }}, sum{{ i }}_{{ j }});
            {% endfor %}
        {% endfor %}
        }
    {% endfor %}
        filled = {{ shape.side * shape.stride // 8 }}u - filled;
{% endmacro %}

{# Hands four columns of a row to `put_four({place}, row, column, sum)`, which knows where they
   belong and which are inside. #}
{% macro finish(shape, place="t") %}
    let mine = worker * {{ shape.m * shape.n }}u;
    let is_mine = subgroup < {{ shape.down * shape.across }}u;
    {% for i in range(shape.side // shape.down // shape.m) %}
    {% for j in range(shape.side // shape.across // shape.n) %}
    if (is_mine) {
        coopStoreT(sum{{ i }}_{{ j }}, &results[mine], {{ shape.n }}u);
    }
    workgroupBarrier();
    if (is_mine) {
        for (var q = lane; q < {{ shape.m * shape.n // 4 }}u; q += lanes) {
            let at = mine + q * 4u;
            let row = worker_row + {{ i * shape.m }}u + q / {{ shape.n // 4 }}u;
            let column = worker_column + {{ j * shape.n }}u + q % {{ shape.n // 4 }}u * 4u;
            put_four({{ place }}, row, column, vec4<f32>(results[at], results[at + 1u], results[at + 2u], results[at + 3u]));
        }
    }
    workgroupBarrier();
    {% endfor %}
    {% endfor %}
{% endmacro %}
