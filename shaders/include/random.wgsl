// Counter-based random numbers: Threefry-2x32 with 20 rounds.
//
// Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). The same function as
// src/tensor/random.rs, bit for bit; that file says how keys (seed, purpose) and counters are chosen.
// Only add, xor and shift: exact on every adapter. Unrolled, because a loop costs more than its rounds here.

// 64 random bits for a key and a counter.
fn threefry2x32(key: vec2<u32>, counter: vec2<u32>) -> vec2<u32> {
    let parity = 0x1BD11BDAu ^ key.x ^ key.y;
    var x0 = counter.x + key.x;
    var x1 = counter.y + key.y;
    // Rounds 1 to 4.
    x0 += x1; x1 = ((x1 << 13u) | (x1 >> 19u)) ^ x0;
    x0 += x1; x1 = ((x1 << 15u) | (x1 >> 17u)) ^ x0;
    x0 += x1; x1 = ((x1 << 26u) | (x1 >> 6u)) ^ x0;
    x0 += x1; x1 = ((x1 << 6u) | (x1 >> 26u)) ^ x0;
    x0 += key.y; x1 += parity + 1u;
    // Rounds 5 to 8.
    x0 += x1; x1 = ((x1 << 17u) | (x1 >> 15u)) ^ x0;
    x0 += x1; x1 = ((x1 << 29u) | (x1 >> 3u)) ^ x0;
    x0 += x1; x1 = ((x1 << 16u) | (x1 >> 16u)) ^ x0;
    x0 += x1; x1 = ((x1 << 24u) | (x1 >> 8u)) ^ x0;
    x0 += parity; x1 += key.x + 2u;
    // Rounds 9 to 12.
    x0 += x1; x1 = ((x1 << 13u) | (x1 >> 19u)) ^ x0;
    x0 += x1; x1 = ((x1 << 15u) | (x1 >> 17u)) ^ x0;
    x0 += x1; x1 = ((x1 << 26u) | (x1 >> 6u)) ^ x0;
    x0 += x1; x1 = ((x1 << 6u) | (x1 >> 26u)) ^ x0;
    x0 += key.x; x1 += key.y + 3u;
    // Rounds 13 to 16.
    x0 += x1; x1 = ((x1 << 17u) | (x1 >> 15u)) ^ x0;
    x0 += x1; x1 = ((x1 << 29u) | (x1 >> 3u)) ^ x0;
    x0 += x1; x1 = ((x1 << 16u) | (x1 >> 16u)) ^ x0;
    x0 += x1; x1 = ((x1 << 24u) | (x1 >> 8u)) ^ x0;
    x0 += key.y; x1 += parity + 4u;
    // Rounds 17 to 20.
    x0 += x1; x1 = ((x1 << 13u) | (x1 >> 19u)) ^ x0;
    x0 += x1; x1 = ((x1 << 15u) | (x1 >> 17u)) ^ x0;
    x0 += x1; x1 = ((x1 << 26u) | (x1 >> 6u)) ^ x0;
    x0 += x1; x1 = ((x1 << 6u) | (x1 >> 26u)) ^ x0;
    x0 += parity; x1 += key.x + 5u;
    return vec2<u32>(x0, x1);
}

// A float in [0, 1): a multiple of 2^-24 from the top 24 bits, and exact.
fn uniform_from_bits(bits: u32) -> f32 {
    return f32(bits >> 8u) * 5.9604644775390625e-8;
}
