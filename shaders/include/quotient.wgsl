// a / b where that is below four millions: integer division costs ten times as much on a processor. The float quotient is off by one at most.
fn quotient(a: u32, b: u32) -> u32 {
    let q = u32(f32(a) / f32(b));
    let rest = i32(a - q * b);
    return select(select(q, q + 1u, rest >= i32(b)), q - 1u, rest < 0);
}
