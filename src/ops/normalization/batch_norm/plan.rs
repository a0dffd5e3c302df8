//! How batch norm cuts its matrix into pieces, on software drivers and on GPUs.

use std::ops::Range;

use crate::gpu::{Gpu, Knob, Launch, Param, Schedule, rounds};
use crate::ops::entry::kernels;
use crate::params;
use crate::tensor::Shape;
use crate::tensor::rows::{fitting, ranges};

/// How the matrix `[rows, columns]` of vec4s (or single channels) is cut into pieces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    schedule: Schedule,
    /// A workgroup is one subgroup, so sums may go through shuffles.
    shuffle: bool,
    /// Rows of the matrix.
    rows: usize,
    /// Channels of a column: 4, or 1 where C is no multiple of 4.
    width: usize,
    /// Columns of the matrix.
    columns: usize,
    /// Statistics and what follows them are one dispatch.
    small: bool,
    /// Most slabs of a reduction.
    most_slabs: usize,
    /// Rows of a slab, where somebody else chose them.
    given: Option<usize>,
    /// Rows of a piece, some whole slabs, where x is larger than a binding.
    piece: Option<usize>,
}

/// Some slabs of x that can be bound at once.
pub(super) struct Piece {
    /// Their rows of the matrix.
    pub rows: Range<usize>,
    /// Their numbers.
    pub slabs: Range<usize>,
    /// The plan for them.
    pub plan: Plan,
}

/// What the workgroups of a launch share out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Walk {
    /// All rows of a few columns to each.
    Columns,
    /// As many slabs of rows as [`Plan::slabs`] says; the sums of each are partial.
    Slabs,
    /// As many of these slabs to each as [`Plan::merged`] makes one.
    Merge,
    /// The same number of rows to each, few enough to stay in a cache.
    Rows,
    /// The partial sums of all slabs of a few columns to each.
    Partials,
}

kernels!(BATCH_NORM = "normalization/batch_norm");

/// Rows of a slab at most: one invocation walks them.
const LONGEST_SLAB: usize = 16_384;
/// Most slabs of a reduction.
const SLABS: Knob = Knob { name: "normalization/batch_norm.slabs", choices: &[64, 128, 256, 512] };
/// The most vec4s, as a power of two, of a matrix that is small: where launches cost more than the
/// parallelism that one dispatch gives up.
const SMALL: Knob = Knob { name: "normalization/batch_norm.small", choices: &[0, 11, 13, 15, 17, 19] };

impl Plan {
    /// The plan for x of this shape.
    pub fn new(gpu: &Gpu, x: &Shape) -> Self {
        let channels = x.last();
        let width = if channels.is_multiple_of(4) { 4 } else { 1 };
        let (rows, columns) = (x.numel() / channels.max(1), channels / width);
        let bucket = Knob::bucket(rows * columns);
        let schedule = gpu.schedule("normalization/batch_norm.schedule", bucket);
        let shuffle = schedule == Schedule::Software && gpu.capabilities().fixed_subgroup() == Some(8);
        let most_slabs = gpu.tuned(&SLABS, bucket, 256) as usize;
        let plan = Self { schedule, shuffle, rows, width, columns, small: false, most_slabs, given: None, piece: None };
        let default = if schedule == Schedule::Software { 17 } else { 13 };
        let (_, _, copies) = plan.across(plan.narrow());
        let small = rows * columns <= 1 << gpu.tuned(&SMALL, bucket, default);
        Self { small: small && gpu.capabilities().may_walk(2 * rows.div_ceil(copies) + rows.div_ceil(16 * copies) + 64), ..plan }.cut(gpu)
    }

    /// The same in pieces, where x is larger than a binding.
    fn cut(self, gpu: &Gpu) -> Self {
        let (row, most) = (4 * self.channels() as u64, gpu.capabilities().max_binding_bytes);
        // Half of that, where x is stored as f16.
        let Some((fit, step)) = fitting(&[row, row / 2], most).filter(|_| row * self.rows as u64 > most) else { return self };
        let slab = self.slab_rows().next_multiple_of(step).min(fit);
        Self { small: false, given: Some(slab), piece: Some(fit - fit % slab), ..self }
    }

    /// Whether x is larger than a binding.
    pub fn in_pieces(&self) -> bool {
        self.piece.is_some()
    }

    /// What can be bound at once, in order: all of x, unless it is larger than a binding.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> {
        let slab = self.slab_rows();
        ranges(self.rows, self.piece.unwrap_or(self.rows)).map(move |rows| {
            let slabs = rows.start / slab..rows.end.div_ceil(slab);
            Piece { slabs, plan: Self { rows: rows.len(), ..*self }, rows }
        })
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Shape of the first rows of all slabs.
    pub fn firsts(&self) -> [usize; 2] {
        [self.slabs().1, self.channels()]
    }

    /// Lanes of a workgroup, and vec4s that each reads of a step: a subgroup of 8 on software
    /// drivers.
    fn lanes(&self) -> (usize, usize) {
        if self.schedule == Schedule::Software { (8, 4) } else { (256, 1) }
    }

    /// Columns of a workgroup that walks all rows (no more than lanes): a cache line, less where
    /// that would leave one workgroup alone.
    fn narrow(&self) -> usize {
        (self.columns.next_power_of_two() / 2).clamp(1, if self.width == 4 { 4 } else { 8 })
    }

    /// Whether statistics and what follows them are one dispatch.
    pub fn small(&self) -> bool {
        self.small
    }

    /// Columns that lie side by side in a workgroup, the lanes that they get (a power of two), and
    /// the rows of a step.
    fn across(&self, chunk: usize) -> (usize, usize, usize) {
        let (lanes, blocks) = self.lanes();
        let chunks = self.columns.div_ceil(chunk.min(lanes * blocks)).max(1);
        let chunk = self.columns.div_ceil(chunks).max(1);
        let across = chunk.next_power_of_two();
        (chunk, across, lanes * blocks / across)
    }

    /// Rows of a slab, and how many slabs there are: of shapes and schedule alone, so that results
    /// repeat.
    fn slabs(&self) -> (usize, usize) {
        if let Some(rows) = self.given {
            return (rows, self.rows.div_ceil(rows.max(1)));
        }
        let (_, _, copies) = self.across(usize::MAX);
        let rows = self.rows.div_ceil(self.most_slabs).min(LONGEST_SLAB).max(4 * copies).next_multiple_of(copies);
        (rows, self.rows.div_ceil(rows))
    }

    /// Shape of the partial sums.
    pub fn partials(&self) -> [usize; 3] {
        [self.slabs().1, 2, self.channels()]
    }

    /// The variant of the kernel called `step`, its first parameters, and the number of its
    /// workgroups.
    pub fn launch<'a>(&self, gpu: &'a Gpu, step: &'a str, walk: Walk) -> (Launch<'a>, Vec<Param>, usize) {
        let (lanes, blocks) = self.lanes();
        let (slab_rows, slabs) = self.slabs();
        let narrow = matches!(walk, Walk::Columns | Walk::Partials);
        let (chunk, across, copies) = self.across(if narrow { self.narrow() } else { usize::MAX });
        let (rows, each) = match walk {
            Walk::Columns => (self.rows, self.rows.next_multiple_of(copies).max(1)),
            Walk::Partials => (slabs, slabs.next_multiple_of(copies).max(1)),
            Walk::Slabs => (self.rows, slab_rows),
            Walk::Merge => (slabs, self.merged()),
            Walk::Rows => (self.rows, slab_rows.min((65536 / self.channels().max(1)).max(16)).next_multiple_of(copies)),
        };
        // Two walks at most, one of them in blocks, and the joining of lanes.
        let launch = Launch::new(gpu, &BATCH_NORM, step)
            .walk(rounds(each.div_ceil(16 * copies), rounds(16, 0)) + rounds(each.div_ceil(copies), 0) + rounds(8, 0))
            .define("STEP", step)
            .define("WIDTH", self.width)
            .define("LANES", lanes)
            .define("BLOCKS", blocks)
            .define("SHUFFLE", self.shuffle);
        let launch = if matches!(step, "statistics" | "merge" | "combine") { launch.define("PIECES", self.in_pieces()) } else { launch };
        let shift = across.trailing_zeros();
        let params = params![rows, self.columns, chunk, shift, copies, each, self.rows].to_vec();
        (launch, params, rows.div_ceil(each).max(usize::from(narrow)) * self.columns.div_ceil(chunk))
    }

    /// The same with slabs of `rows` rows.
    pub fn in_slabs(&self, rows: usize) -> Self {
        Self { given: Some(rows), ..*self }
    }

    /// How many slabs become one, so that their number is what a reduction has at most.
    pub fn merged(&self) -> usize {
        self.slabs().1.div_ceil(self.most_slabs).max(1)
    }

    /// The schedule.
    pub fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// The bucket of x in tuning tables.
    pub fn bucket(&self) -> u32 {
        Knob::bucket(self.rows * self.columns)
    }

    /// Channels.
    pub fn channels(&self) -> usize {
        self.columns * self.width
    }

    /// Rows of a slab of the partial sums.
    pub fn slab_rows(&self) -> usize {
        self.slabs().0
    }
}
