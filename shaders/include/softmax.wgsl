// The sum of y (dy - center) over a row, where center is the dy of a y above a half, once there is one (it is the new `top`), else 0; total is
// the sum of y. The center moves what has been summed by total * (old - new); the y before it are small, so that is as exact as the sum.
// V: the type of y.
struct Sum { top: V, center: V, total: V, dot: V }

fn nothing() -> Sum {
    return Sum(V(0.5), V(0.0), V(0.0), V(0.0));
}

// With the center at the dy of a larger y. An infinite center would make all others NaN.
fn moved(a: Sum, y: V, dy: V) -> Sum {
    let center = select(a.center, dy, (y > a.top) & (abs(dy) <= V(3.4e38)));
    return Sum(max(a.top, y), center, a.total, a.dot + a.total * (a.center - center));
}

fn add_one(sum: Sum, y: V, dy: V) -> Sum {
    let a = moved(sum, y, dy);
    return Sum(a.top, a.center, a.total + y, a.dot + y * (dy - a.center));
}

fn add_four(sum: Sum, {% for k in range(4) %}y{{ k }}: V, dy{{ k }}: V, {% endfor %}) -> Sum {
    let first = select(y0, y1, y1 > y0);
    let second = select(y2, y3, y3 > y2);
    let d_first = select(dy0, dy1, y1 > y0);
    let d_second = select(dy2, dy3, y3 > y2);
    let a = moved(sum, select(first, second, second > first), select(d_first, d_second, second > first));
    let total = (y0 + y1) + (y2 + y3);
    let dot = (y0 * (dy0 - a.center) + y1 * (dy1 - a.center)) + (y2 * (dy2 - a.center) + y3 * (dy3 - a.center));
    return Sum(a.top, a.center, a.total + total, a.dot + dot);
}
