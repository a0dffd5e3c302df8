// A dense convolution as a gather: target pixel (y, x) sums, over taps (r, s) and channels, the source pixel
//     (y * step + start + r * dilation) / up
// times a weight, where that is whole and inside. Forward: step = stride, start = -padding, up = 1.
// Gradient to the input: step = 1, start = padding, dilation negative, up = stride.
//
// With up > 1 the target is walked phase by phase (y mod up, x mod up): inside a phase the taps that meet whole source pixels
// are the same for all pixels (every tap_step-th), so none is tried in vain (strided dgrad in CUTLASS).
// A phase is a grid of sub_height x sub_width pixels an image; `pixels` counts those of all images.
//
// Weights are packed (pack.wgsl): [group][tap * rows + row, and last the bias][columns / 4] vec4s; conv2d_software.wgsl reads most where they
// are.
{% include "quotient.wgsl" %}
{{ params("pixels: u32, sub_height: u32, sub_width: u32, target_height: u32, target_width: u32, target_channels: u32,
    source_height: u32, source_width: u32, source_channels: u32, rows: u32, columns: u32, kernel_height: u32, kernel_width: u32,
    step_y: u32, step_x: u32, up_y: u32, up_x: u32, start_y: i32, start_x: i32, dilation_y: i32, dilation_x: i32,
    tap_step_y: u32, tap_step_x: u32, pixel_tiles: u32, column_tiles: u32, channel_groups: u32, tiles: u32,
    has_bias: u32") }}

const NONE = 0xffffffffu;
// Far enough outside that no tap comes back.
const OUTSIDE = -0x40000000;

struct Tile { phase_y: u32, phase_x: u32, pixel: u32, column4: u32, channel_group: u32 }

// Column tiles change fastest, then groups: neighbours share their source pixels.
fn tile(index: u32, pixels: u32, columns4: u32) -> Tile {
    let a = index / p.column_tiles;
    let b = a / p.channel_groups;
    let phase = b / p.pixel_tiles;
    // Phases beyond the target's width have no pixels, and no tiles.
    let across = min(p.up_x, p.target_width);
    return Tile(
        phase / across,
        phase % across,
        (b - phase * p.pixel_tiles) * pixels,
        (index - a * p.column_tiles) * columns4,
        a - b * p.channel_groups,
    );
}

// A target pixel: the source row and column (and pixel number) that offset 0 meets, and its own number.
struct Corner { y: i32, x: i32, source: i32, number: u32 }

// The first pixel of a tile: image, row and column within its phase.
struct Origin { pixel: u32, image: u32, y: u32, x: u32 }

fn origin(t: Tile) -> Origin {
    let row = t.pixel / p.sub_width;
    let image = row / p.sub_height;
    return Origin(t.pixel, image, row - image * p.sub_height, t.pixel - row * p.sub_width);
}

// The pixel `offset` behind a tile's first.
fn corner(o: Origin, offset: u32, t: Tile) -> Corner {
    let rows = quotient(o.x + offset, p.sub_width);
    let images = quotient(o.y + rows, p.sub_height);
    let image = o.image + images;
    let sub_y = o.y + rows - images * p.sub_height;
    let sub_x = o.x + offset - rows * p.sub_width;
    let y = sub_y * p.up_y + t.phase_y;
    let x = sub_x * p.up_x + t.phase_x;
    let inside = (o.pixel + offset < p.pixels) & (y < p.target_height) & (x < p.target_width);
    return Corner(
        select(OUTSIDE, i32(sub_y * p.step_y), inside),
        i32(sub_x * p.step_x),
        i32((image * p.source_height + sub_y * p.step_y) * p.source_width + sub_x * p.step_x),
        select(NONE, (image * p.target_height + y) * p.target_width + x, inside),
    );
}

fn inside_source(y: i32, x: i32) -> bool {
    return (u32(y) < p.source_height) & (u32(x) < p.source_width);
}

// Along one axis: the first tap that meets whole source pixels of a phase, `last` where none before it does, and how many do.
fn first_tap(phase: u32, start: i32, dilation: i32, up: u32, last: u32) -> u32 {
    var r = 0u;
    while (r < last && (i32(phase) + start + i32(r) * dilation) % i32(up) != 0) {
        r += 1u;
    }
    return r;
}

fn tap_count(first: u32, step: u32, size: u32) -> u32 {
    return select((size - first + step - 1u) / step, 0u, first >= min(step, size));
}

// A phase's own taps: the first, how many there are, and where the offset of the first and of each further one leads.
struct Taps { first_y: u32, first_x: u32, count_y: u32, count_x: u32, offset_y: i32, offset_x: i32, every_y: i32, every_x: i32 }

fn taps(t: Tile) -> Taps {
    let y = first_tap(t.phase_y, p.start_y, p.dilation_y, p.up_y, min(p.tap_step_y, p.kernel_height));
    let x = first_tap(t.phase_x, p.start_x, p.dilation_x, p.up_x, min(p.tap_step_x, p.kernel_width));
    return Taps(
        y,
        x,
        tap_count(y, p.tap_step_y, p.kernel_height),
        tap_count(x, p.tap_step_x, p.kernel_width),
        (i32(t.phase_y) + p.start_y + i32(y) * p.dilation_y) / i32(p.up_y),
        (i32(t.phase_x) + p.start_x + i32(x) * p.dilation_x) / i32(p.up_x),
        i32(p.tap_step_y) * p.dilation_y / i32(p.up_y),
        i32(p.tap_step_x) * p.dilation_x / i32(p.up_x),
    );
}

// The tap (y-th, x-th of a phase's own): its number in the kernel and its offset from the corner.
struct Tap { number: u32, y: i32, x: i32 }

fn tap_at(k: Taps, y: u32, x: u32) -> Tap {
    return Tap(
        (k.first_y + y * p.tap_step_y) * p.kernel_width + k.first_x + x * p.tap_step_x,
        k.offset_y + i32(y) * k.every_y,
        k.offset_x + i32(x) * k.every_x,
    );
}

// The first packed vec4 of a group's weights, and of its bias.
fn weight_block(t: Tile, columns4: u32) -> u32 {
    return t.channel_group * (p.kernel_height * p.kernel_width * p.rows + 1u) * columns4;
}

fn bias_row(columns4: u32) -> u32 {
    return p.kernel_height * p.kernel_width * p.rows * columns4;
}
