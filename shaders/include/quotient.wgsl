// a / b for small a: integer division costs ten times as much on a processor. The half keeps the quotient off whole numbers, so it is
// exact while a is below four millions.
fn quotient(a: u32, b: u32) -> u32 {
    return u32((f32(a) + 0.5) / f32(b));
}
