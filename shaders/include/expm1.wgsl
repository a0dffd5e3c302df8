// e^x - 1: near 0, where the difference would cancel, its series.
fn expm1(x: f32) -> f32 {
    let tail = 1.0 + x / 5.0 * (1.0 + x / 6.0 * (1.0 + x / 7.0 * (1.0 + x / 8.0)));
    let near = x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * tail)));
    return select(exp(x) - 1.0, near, abs(x) < 0.5);
}
