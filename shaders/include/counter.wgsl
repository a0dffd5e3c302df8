// A number of three digits: n = (high * middle base + middle) * low base + low. What walks such a number by a constant step divides once,
// and then adds digit by digit.
struct Counter { low: u32, middle: u32, high: u32 }

fn counter(n: u32, low_base: u32, middle_base: u32) -> Counter {
    let rest = quotient(n, low_base);
    let high = quotient(rest, middle_base);
    return Counter(n - rest * low_base, rest - high * middle_base, high);
}

fn advance(at: Counter, by: Counter, low_base: u32, middle_base: u32) -> Counter {
    let low = at.low + by.low;
    let low_over = low >= low_base;
    let middle = at.middle + by.middle + u32(low_over);
    let middle_over = middle >= middle_base;
    return Counter(
        low - select(0u, low_base, low_over),
        middle - select(0u, middle_base, middle_over),
        at.high + by.high + u32(middle_over),
    );
}
