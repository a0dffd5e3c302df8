{# The sum of `pattern` with # replaced by first .. first + count, added in pairs, in pairs of pairs and so on: as many operations as one by
   one, but rounding errors grow with the logarithm of `count`. Or joined by `op`, a function of two values. Imported, not included. #}
{% macro pairwise(pattern, count, first=0, op="+") %}
{%- if count == 1 -%}
{{ pattern | replace("#", first) }}
{%- else -%}
{{ op if op != "+" }}({{ pairwise(pattern, count // 2, first, op) }}{{ " + " if op == "+" else ", " }}{{ pairwise(pattern, count - count // 2, first + count // 2, op) }})
{%- endif -%}
{% endmacro %}
