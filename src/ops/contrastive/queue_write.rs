//! Writing keys into MoCo's ring of negatives, in place (He et al. 2020).

use super::pairs::check_rows;
use crate::error::{Error, Result};
use crate::gpu::Launch;
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Autocast, Cost, Operator, apply};
use crate::params;
use crate::tensor::{Spec, Tensor};

const NAME: &str = "queue_write";
kernels!(KERNEL = "contrastive/queue_write");

/// Where the first row goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// To this row of the queue.
    Row(usize),
    /// To the row that a third input, an i32 `[1]`, names; it is advanced on the device, so the
    /// write can be replayed.
    Cursor,
}

/// Writes `rows` [B, D] into `queue` [M, D] in place, wrapping around at the end; B <= M.
#[derive(Debug, Clone)]
pub struct QueueWrite {
    /// Where the first row goes.
    pub start: Start,
}

impl QueueWrite {
    fn split<'a, T>(&self, inputs: &'a [T]) -> Result<(&'a T, &'a T, Option<&'a T>)> {
        match (inputs, self.start) {
            ([queue, rows], Start::Row(_)) => Ok((queue, rows, None)),
            ([queue, rows, cursor], Start::Cursor) => Ok((queue, rows, Some(cursor))),
            _ => {
                let wanted = if self.start == Start::Cursor { "3 inputs with a cursor" } else { "2 inputs with a start" };
                Err(Error::shape(NAME, format!("it takes {wanted}, {} were given", inputs.len())))
            }
        }
    }
}

impl Operator for QueueWrite {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let (queue, rows, cursor) = self.split(inputs)?;
        check_rows(NAME, ["queue", "rows"], [queue, rows])?;
        if queue.dtype != rows.dtype {
            return Err(Error::dtype(NAME, format!("queue {queue} and rows {rows} must have one element type; cast the rows")));
        }
        let (m, b) = (queue.shape.dim(0), rows.shape.dim(0));
        if b > m {
            return Err(Error::shape(NAME, format!("rows {} do not fit into queue {}", rows.shape, queue.shape)));
        }
        match (self.start, cursor) {
            (Start::Row(start), _) if start >= m.max(1) => Err(Error::argument(NAME, format!("start {start} is outside 0..{m}"))),
            (_, Some(cursor)) if cursor.shape.numel() != 1 => {
                Err(Error::shape(NAME, format!("cursor must have one element, found {}", cursor.shape)))
            }
            (_, Some(cursor)) => cursor.check_indices(NAME, "cursor", m, None).map(|()| vec![]),
            _ => Ok(vec![]),
        }
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let (queue, rows, cursor) = self.split(inputs)?;
        let (m, b) = (queue.shape().dim(0), rows.shape().dim(0));
        let start = if let Start::Row(start) = self.start { start } else { 0 };
        let mut launch = Launch::new(queue.gpu(), &KERNEL, "write")
            .storage(queue.dtype().storage())
            .define("ENTRY", "write")
            .define("CURSOR", cursor.is_some())
            .write(*queue)
            .read(*rows);
        if let Some(cursor) = cursor {
            launch = launch.read(*cursor);
        }
        launch.params(params![m, queue.shape().last(), rows.numel(), start]).invocations(rows.numel())?;
        if let Some(cursor) = cursor.filter(|_| m > 0) {
            Launch::new(queue.gpu(), &KERNEL, "advance").define("ENTRY", "advance").write(*cursor).params(params![m, b]).groups(1)?;
        }
        Ok(vec![])
    }

    fn mutates(&self) -> Vec<usize> {
        if self.start == Start::Cursor { vec![0, 2] } else { vec![0] }
    }

    fn autocast(&self) -> Autocast {
        Autocast::Full
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let (queue, rows, cursor) = self.split(inputs)?;
        let (m, d, b) = (queue.shape.dim(0), queue.shape.last(), rows.shape.dim(0));
        let start = match self.start {
            Start::Row(start) => start,
            Start::Cursor => cursor.map_or(0.0, |c| c.flat(0)) as usize,
        };
        let mut out = queue.clone();
        for (i, row) in rows.rows().enumerate() {
            for (c, value) in row.iter().enumerate() {
                out.set((start + i) % m * d + c, *value);
            }
        }
        let advanced = cursor.map(|c| Array::integers(c.shape.clone(), vec![((start + b) % m) as f64]));
        Ok([out].into_iter().chain(advanced).collect())
    }

    fn cost(&self, inputs: &[Spec], _outputs: &[Spec]) -> Cost {
        Cost { flops: 0.0, bytes: 2.0 * inputs.get(1).map_or(0.0, |rows| rows.bytes() as f64) }
    }
}

fn samples() -> Vec<Sample> {
    let at =
        |m: usize, b: usize, d: usize, start: usize| Sample::new(QueueWrite { start: Start::Row(start) }, [normal([m, d]), normal([b, d])]);
    let cursor = |m: usize, b: usize, d: usize, start: f64| {
        let position = Input::Values(Array::integers([1], vec![start]));
        Sample::new(QueueWrite { start: Start::Cursor }, [normal([m, d]), normal([b, d]), position])
    };
    vec![at(1, 1, 1, 0), at(5, 3, 7, 4), at(7, 7, 3, 2), at(65, 33, 5, 40), at(3, 0, 5, 1), cursor(7, 3, 5, 6.0), cursor(65, 33, 3, 32.0)]
}

fn bad() -> Vec<Bad> {
    let at = |start: usize| QueueWrite { start: Start::Row(start) };
    let outside = Input::Values(Array::integers([1], vec![5.0]));
    vec![
        Bad::new(at(0), [normal([5, 4])], "it takes 2 inputs"),
        Bad::new(QueueWrite { start: Start::Cursor }, [normal([5, 4]), normal([2, 4])], "it takes 3 inputs"),
        Bad::new(QueueWrite { start: Start::Cursor }, [normal([5, 4]), normal([2, 4]), outside], "cursor holds 5, outside 0..5"),
        Bad::new(at(0), [normal([5, 4]), normal([6, 4])], "do not fit"),
        Bad::new(at(5), [normal([5, 4]), normal([2, 4])], "start 5 is outside 0..5"),
        Bad::new(at(0), [normal([5, 4]), normal([2, 3])], "must have 4 features"),
        Bad::new(at(0), [normal([5, 4]), indices([2, 4], 3)], "must hold floats"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["queue", "rows", "cursor"],
        outputs: &[],
        kernels: &[KERNELS],
        build: Box::new(|a| {
            let start = if a.has("start") { Start::Row(a.size("start")?) } else { Start::Cursor };
            Ok(Box::new(QueueWrite { start }))
        }),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// Writes `rows` [B, D] into this queue [M, D] in place from row `start` on, wrapping around.
    ///
    /// # Errors
    /// More rows than the queue holds, other shapes or types, a start outside the queue.
    pub fn queue_write(&self, rows: &Tensor, start: usize) -> Result<()> {
        apply(QueueWrite { start: Start::Row(start) }, &[self, rows]).map(drop)
    }

    /// As [`Self::queue_write`], from the row that `cursor`, an i32 `[1]`, holds; the cursor moves
    /// on by B, on the device.
    ///
    /// # Errors
    /// As [`Self::queue_write`].
    pub fn queue_write_next(&self, rows: &Tensor, cursor: &Tensor) -> Result<()> {
        apply(QueueWrite { start: Start::Cursor }, &[self, rows, cursor]).map(drop)
    }
}
