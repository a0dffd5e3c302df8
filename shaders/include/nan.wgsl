{# max, min and clamp that keep NaN as PyTorch's do: WGSL's may drop it, and its comparisons may be compiled as if there were none, so NaN is
   told by its bits. `type` is f32 or a vector of it; `suffix` tells the functions of two types apart. #}
{% macro nan_kept(type, suffix="") %}
{% set whole = type | replace("f32", "i32") %}
fn is_nan{{ suffix }}(x: {{ type }}) -> {{ type | replace("f32", "bool") }} {
    return (bitcast<{{ whole }}>(x) & {{ whole }}(0x7fffffff)) > {{ whole }}(0x7f800000);
}

fn maximum{{ suffix }}(a: {{ type }}, b: {{ type }}) -> {{ type }} {
    return select(select(max(a, b), b, is_nan{{ suffix }}(b)), a, is_nan{{ suffix }}(a));
}

fn minimum{{ suffix }}(a: {{ type }}, b: {{ type }}) -> {{ type }} {
    return select(select(min(a, b), b, is_nan{{ suffix }}(b)), a, is_nan{{ suffix }}(a));
}

// x in low..=high, which are no NaN.
fn limited{{ suffix }}(x: {{ type }}, low: {{ type }}, high: {{ type }}) -> {{ type }} {
    return select(clamp(x, low, high), x, is_nan{{ suffix }}(x));
}
{% endmacro %}
