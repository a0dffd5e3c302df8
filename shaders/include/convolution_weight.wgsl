// The gradient of a dense convolution to its weights: for a row (tap (r, s), channel c) and a filter k
//     sum over output pixels (n, y, x) of  source[n, y * step + start + r * dilation, x * .. + s * .., c] * dy[n, y, x, k]
// a matrix product whose long side is the pixels: they are split into slabs, each slab writes its partial sums
//     partial [slab][group][tap * row_channels + c][columns / 4] vec4s (on software drivers [slab][filter][tap * row_channels + c]),
// and reduce.wgsl adds the slabs.
{% include "quotient.wgsl" %}
{{ params("pixels: u32, height: u32, width: u32, filters: u32, source_height: u32, source_width: u32, source_channels: u32,
    rows: u32, row_channels: u32, columns: u32, kernel_width: u32, step_y: u32, step_x: u32, start_y: i32, start_x: i32,
    dilation_y: i32, dilation_x: i32, slab_pixels: u32, row_tiles: u32, column_tiles: u32, channel_groups: u32, tiles: u32, slab_floats: u32") }}

struct Tile { slab: u32, channel_group: u32, row: u32, column4: u32 }

// Tiles of one slab are neighbours: they share its pixels.
fn tile(index: u32, rows: u32, columns4: u32) -> Tile {
    let a = index / p.column_tiles;
    let b = a / p.row_tiles;
    let slab = b / p.channel_groups;
    return Tile(slab, b - slab * p.channel_groups, (a - b * p.row_tiles) * rows, (index - a * p.column_tiles) * columns4);
}

// A row: its offsets from the pixel that a tap of 0 would meet, and its channel. `inside` where there is such a row.
struct Row { y: i32, x: i32, channel: u32, inside: bool }

fn row_at(index: u32, t: Tile) -> Row {
    let row = min(index, p.rows - 1u);
    let tap = row / p.row_channels;
    let r = tap / p.kernel_width;
    return Row(
        p.start_y + i32(r) * p.dilation_y,
        p.start_x + i32(tap - r * p.kernel_width) * p.dilation_x,
        t.channel_group * p.row_channels + row - tap * p.row_channels,
        index < p.rows,
    );
}

// An output pixel.
struct Pixel { image: u32, y: u32, x: u32 }

fn pixel_at(index: u32) -> Pixel {
    let row = index / p.width;
    let image = row / p.height;
    return Pixel(image, row - image * p.height, index - row * p.width);
}

fn next(at: Pixel) -> Pixel {
    let end_x = at.x + 1u == p.width;
    let end_y = end_x & (at.y + 1u == p.height);
    return Pixel(select(at.image, at.image + 1u, end_y), select(select(at.y, at.y + 1u, end_x), 0u, end_y), select(at.x + 1u, 0u, end_x));
}

// Where a row finds its source value for an output pixel; NONE outside.
const NONE = 0xffffffffu;
// Far enough outside that no row comes back.
const OUTSIDE = -0x40000000;
fn source_at(at: Pixel, row: Row) -> u32 {
    let y = i32(at.y * p.step_y) + row.y;
    let x = i32(at.x * p.step_x) + row.x;
    let ok = row.inside & (u32(y) < p.source_height) & (u32(x) < p.source_width);
    return select(NONE, ((at.image * p.source_height + u32(y)) * p.source_width + u32(x)) * p.source_channels + row.channel, ok);
}

fn partial_at(t: Tile, row: u32, column4: u32) -> u32 {
    return ((t.slab * p.channel_groups + t.channel_group) * p.rows + row) * ((p.columns + 3u) / 4u) + column4;
}
