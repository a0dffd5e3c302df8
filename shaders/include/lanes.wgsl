{# Joins the values that the lanes of a workgroup left in the workgroup array `parts`, in parts[0] of lane 0, always in the same order:
   by a tree, or one after another where lanes are few. `lanes` is a power of two; `op` is "sum" or a function
   of two values. #}
{% macro join_lanes(parts, lanes, op="sum") %}
{% if lanes <= 16 %}
    workgroupBarrier();
    if (lane == 0u) {
        for (var i = 1u; i < {{ lanes }}u; i += 1u) {
            {{ parts }}[0] = {{ parts ~ "[0] + " ~ parts ~ "[i]" if op == "sum" else op ~ "(" ~ parts ~ "[0], " ~ parts ~ "[i])" }};
        }
    }
{% else %}
{% for half in [128, 64, 32, 16, 8, 4, 2, 1] if half < lanes %}
    workgroupBarrier();
    if (lane < {{ half }}u) {
        {{ parts }}[lane] = {{ parts ~ "[lane] + " ~ parts ~ "[lane + " ~ half ~ "u]" if op == "sum" else op ~ "(" ~ parts ~ "[lane], " ~ parts ~ "[lane + " ~ half ~ "u])" }};
    }
{% endfor %}
{% endif %}
{% endmacro %}
