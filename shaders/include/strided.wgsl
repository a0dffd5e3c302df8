// Where element i of a row-major tensor lies in another one: the sum of its coordinates times that one's strides.
// Up to six axes, outermost first, of sizes p.s0..p.s5 and strides p.t0..p.t5 (unused ones have size 1); arithmetic wraps, so a
// stride may be negative. With BOUNDED, `inside` says whether each coordinate lies in p.l0.. and the p.e0.. elements after it.
// A size of 1 skips its division: the condition is uniform, and divisions cost more than the copy itself on software drivers.
struct Place {
    offset: u32,
    inside: bool,
}

fn place(i: u32) -> Place {
    var rest = i;
    var at = Place(0u, true);
    {% for k in [5, 4, 3, 2, 1, 0] %}
    {
        var c = rest;
        {% if k > 0 %}
        if (p.s{{ k }} == 1u) {
            c = 0u;
        } else {
            rest = c / p.s{{ k }};
            c -= rest * p.s{{ k }};
        }
        {% endif %}
        at.offset += c * p.t{{ k }};
        {% if BOUNDED %}
        at.inside = at.inside && (c - p.l{{ k }} < p.e{{ k }});
        {% endif %}
    }
    {% endfor %}
    return at;
}
