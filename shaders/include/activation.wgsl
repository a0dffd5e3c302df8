// Scalar functions that drivers compute too coarsely, or not at all. Of exp Vulkan promises 3 + 2 |x| units in the last place: less than 2e-5
// of anything that f32 holds, a fifth of what operators allow.
{% include "logarithm.wgsl" %}
{% include "trigonometry.wgsl" %}
{% from "nan.wgsl" import nan_kept %}
{{ nan_kept("f32") }}
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
    return select(logarithm(w) * (u / (w - 1.0)), u, w == 1.0);
}

// The distribution function of the normal distribution: half of erfc(z) = t P(t) exp(-z^2), t = 1 / (1 + 0.3 z), where P was fitted to a relative
// error of 3e-8, so that gelu keeps its digits in its tail.
fn normal_cdf(x: f32) -> f32 {
    let z = abs(x) * 0.7071067812;
    let t = 1.0 / (1.0 + 0.3 * z);
    let high = 0.210020856 + t * (-0.0828588087 + t * (0.530206164 + t * (-0.496548669 + t * (0.477735438 - t * 0.127866617))));
    let tail = t * (0.169197783 + t * (0.170546134 + t * (0.149567744 + t * high))) * exp(-z * z);
    return select(0.5 * tail, 1.0 - 0.5 * tail, x >= 0.0);
}

fn gelu_inner(x: f32) -> f32 {
    return hyperbolic_tangent(0.7978845608 * (x + 0.044715 * x * x * x));
}

fn gelu_tanh_derivative(x: f32) -> f32 {
    let t = gelu_inner(x);
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * 0.7978845608 * (1.0 + 0.134145 * x * x);
}

{% include "expm1.wgsl" %}
