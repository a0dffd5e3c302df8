// Scalar functions that drivers compute too coarsely, or not at all.
fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(-x));
}

// tanh by exp of a negative number, which cannot overflow; a short series near 0, where the difference would cancel.
fn hyperbolic_tangent(x: f32) -> f32 {
    let t = abs(x);
    let e = exp(-2.0 * t);
    let x2 = x * x;
    let far = (1.0 - e) / (1.0 + e);
    let near = t * (1.0 + x2 * (-1.0 / 3.0 + x2 * (2.0 / 15.0 - x2 * (17.0 / 315.0))));
    return sign(x) * select(far, near, t < 0.15);
}

// log(1 + e^z) for z <= 0: log(1 + u) = log(1 + u) * u / ((1 + u) - 1) corrects the rounding of 1 + u (Kahan).
fn log1p_exp(z: f32) -> f32 {
    let u = exp(z);
    let w = 1.0 + u;
    return select(log(w) * (u / (w - 1.0)), u, w == 1.0);
}

// The distribution function of the normal distribution. erf by Abramowitz and Stegun 7.1.26 has an absolute error of 1.5e-7.
fn normal_cdf(x: f32) -> f32 {
    let z = abs(x) * 0.7071067812;
    let t = 1.0 / (1.0 + 0.3275911 * z);
    let tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) * exp(-z * z);
    return select(0.5 * tail, 1.0 - 0.5 * tail, x >= 0.0);
}

fn gelu_inner(x: f32) -> f32 {
    return hyperbolic_tangent(0.7978845608 * (x + 0.044715 * x * x * x));
}

fn gelu_tanh_derivative(x: f32) -> f32 {
    let t = gelu_inner(x);
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * 0.7978845608 * (1.0 + 0.134145 * x * x);
}

// sin and cos with their argument first brought into -pi..pi: some drivers lose all accuracy outside.
fn reduced(x: f32) -> f32 {
    let turns = round(x * 0.15915494309);
    return fma(turns, 1.7484556e-7, fma(turns, -6.2831855, x));
}

fn sine(x: f32) -> f32 {
    return sin(reduced(x));
}

fn cosine(x: f32) -> f32 {
    return cos(reduced(x));
}
