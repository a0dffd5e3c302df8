{# The sum of `pattern` with # replaced by first .. first + count, added in pairs, in pairs of pairs and so on: as many operations as one by
   one, but rounding errors grow with the logarithm of `count`. Imported, not included. #}
{% macro pairwise(pattern, count, first=0) %}
{%- if count == 1 -%}
{{ pattern | replace("#", first) }}
{%- else -%}
({{ pairwise(pattern, count // 2, first) }} + {{ pairwise(pattern, count - count // 2, first + count // 2) }})
{%- endif -%}
{% endmacro %}
