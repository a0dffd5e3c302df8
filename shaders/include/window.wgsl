// Sliding windows over images [N, H, W, C], for kernels whose parameters have c (channels, or vec4s of them).
struct Pixel {
    image: u32,
    row: u32,
    column: u32,
    channel: u32,
}

// The coordinates of element i of [N, height, width, p.c].
fn pixel(i: u32, height: u32, width: u32) -> Pixel {
    let a = i / p.c;
    let b = a / width;
    let image = b / height;
    return Pixel(image, b - image * height, a - b * width, i - a * p.c);
}

// The elements first..last of an axis of `size` that window `o` covers, without the padding.
fn inside(o: u32, stride: u32, padding: u32, kernel: u32, size: u32) -> vec2<u32> {
    let start = o * stride;
    return vec2<u32>(max(start, padding) - padding, min(start + kernel, size + padding) - padding);
}

// The taps first..last of window `o`, `dilation` elements apart, that meet elements of an axis of `size`.
fn taps_inside(o: u32, stride: u32, padding: u32, kernel: u32, dilation: u32, size: u32) -> vec2<u32> {
    let start = o * stride;
    let before = max(padding, start) - start;
    let behind = max(size + padding, start) - start;
    return vec2<u32>((before + dilation - 1u) / dilation, min((behind + dilation - 1u) / dilation, kernel));
}

// The windows first..last, of `count`, that cover element i; of dilated windows `kernel` is the span, and some pass over it.
fn containing(i: u32, stride: u32, padding: u32, kernel: u32, count: u32) -> vec2<u32> {
    let at = i + padding;
    var first = 0u;
    if (at >= kernel) {
        first = (at - kernel) / stride + 1u;
    }
    return vec2<u32>(first, min(at / stride + 1u, count));
}
