//! The suite `ladder`: a matrix product, a convolution and softmax, each written three times. The
//! first two kernels of each, `shaders/ladder`, are there to be read; the last is the engine's own.

use std::sync::Arc;

use super::peers::{Convolution, tensor};
use super::run::Row;
use super::sampled::{self, Geometry};
use super::workload::{Workload, operator, twin};
use crate::error::Result;
use crate::gpu::{AdapterKind, Capabilities, Kernel, Launch, kernel, rounds};
use crate::io::layout::Layout;
use crate::ops::linear::{Form, Matmul};
use crate::ops::sample::{Sample, normal};
use crate::ops::softmax::Softmax;
use crate::ops::{Array, Cost, Operator, Tolerance, apply, exactly};
use crate::params;
use crate::tensor::{Spec, Tensor};

const SUITE: &str = "ladder";

/// Elements along an edge of the tiles of `gemm_tiled` and `conv2d_tiled`.
const TILE: usize = 16;
/// Lanes of the workgroup that owns a row in `softmax_tiled`.
const LANES: usize = 64;
/// As in the suite `peers`.
const TEMPERATURE: f32 = 4.0;

static GEMM: [Kernel; 2] = [kernel!("ladder/gemm_naive"), kernel!("ladder/gemm_tiled")];
static CONV2D: [Kernel; 2] = [kernel!("ladder/conv2d_naive"), kernel!("ladder/conv2d_tiled")];
static SOFTMAX: [Kernel; 2] = [kernel!("ladder/softmax_naive"), kernel!("ladder/softmax_tiled")];

/// What is computed.
#[derive(Debug, Clone, Copy)]
enum Problem {
    /// `[m, k]` times `[k, n]`.
    Gemm([usize; 3]),
    /// Dense, without bias.
    Conv2d(Convolution),
    /// Along the rows of `[rows, n]`.
    Softmax([usize; 2]),
}

/// How it is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// As the definition says.
    Naive,
    /// Shared in workgroup memory.
    Tiled,
    /// By the engine's operator.
    Engine,
}

const STEPS: [(Step, &str); 3] = [(Step::Naive, "naive"), (Step::Tiled, "tiled"), (Step::Engine, "engine")];

/// A step of the ladder as an operator. Whatever it computes by, the engine's operator says what
/// the result is, what it costs, and how far it may be off.
struct Rung {
    problem: Problem,
    step: Step,
    engine: Arc<dyn Operator>,
}

impl Rung {
    fn new(problem: Problem, step: Step) -> Self {
        let engine: Arc<dyn Operator> = match problem {
            Problem::Gemm(_) => Arc::new(Matmul { form: Form::Nn }),
            Problem::Conv2d(convolution) => convolution.operator(),
            Problem::Softmax(_) => Arc::new(Softmax::new(-1, TEMPERATURE)),
        };
        Self { problem, step, engine }
    }

    /// On inputs of the problem's shapes, against the float64 reference.
    fn sample(problem: Problem, step: Step) -> Sample {
        let inputs = match problem {
            Problem::Gemm([m, k, n]) => vec![normal([m, k]), normal([k, n])],
            Problem::Conv2d(Convolution { n, size, c, k, kernel, .. }) => vec![normal([n, size, size, c]), normal([k, kernel, kernel, c])],
            Problem::Softmax(shape) => vec![normal(shape)],
        };
        Sample::new(Self::new(problem, step), inputs)
    }

    /// Launches the ladder's own kernel, as anybody would who has written one.
    fn launch(&self, inputs: &[&Tensor], y: &Tensor) -> Result<()> {
        let ([naive, tiled], entry) = match self.problem {
            Problem::Gemm(_) => (&GEMM, "gemm"),
            Problem::Conv2d(_) => (&CONV2D, "conv2d"),
            Problem::Softmax(_) => (&SOFTMAX, "softmax"),
        };
        let is_naive = self.step == Step::Naive;
        let launch = Launch::new(y.gpu(), if is_naive { naive } else { tiled }, entry);
        let launch = inputs.iter().fold(launch, |launch, x| launch.read(*x)).write(y);
        let tiles = |rows: usize, columns: usize| rows.div_ceil(TILE) * columns.div_ceil(TILE);
        let tiled_walk = |terms: usize| rounds(terms.div_ceil(TILE), rounds(TILE, 0));
        match self.problem {
            Problem::Gemm([m, k, n]) => {
                let launch = launch.params(params![m, k, n]);
                if is_naive { launch.walk(rounds(k, 0)).invocations(m * n) } else { launch.walk(tiled_walk(k)).groups(tiles(m, n)) }
            }
            Problem::Conv2d(own) => {
                let Convolution { n, size, c, k, kernel, stride, .. } = own;
                let ([oh, ow], padding) = (own.geometry().output(), kernel / 2);
                let (pixels, walk) = (n * oh * ow, rounds(kernel, rounds(kernel, rounds(c, 0))));
                let items = if is_naive { pixels * k } else { pixels };
                let launch = launch.params(params![items, size, size, c, oh, ow, k, kernel, stride, padding]);
                match is_naive {
                    true => launch.walk(walk).invocations(items),
                    false => launch.walk(tiled_walk(kernel * kernel * c)).groups(tiles(pixels, k)),
                }
            }
            Problem::Softmax([rows, n]) => {
                let rate = 1.0 / TEMPERATURE;
                let tree = rounds(LANES.ilog2() as usize, 0);
                match is_naive {
                    true => launch.params(params![rows, n, rate]).walk(3 * rounds(n, 0)).invocations(rows),
                    false => launch.params(params![n, rate]).walk(2 * rounds(n.div_ceil(LANES), 0) + tree).groups(rows),
                }
            }
        }
    }
}

impl Operator for Rung {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        self.engine.infer(inputs)
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        if self.step == Step::Engine {
            return self.engine.forward(inputs, outputs);
        }
        let ([x, ..], [spec]) = (inputs, outputs) else { return Ok(Vec::new()) };
        let y = Tensor::empty(x.gpu(), spec.shape.clone(), spec.dtype)?;
        self.launch(inputs, &y)?;
        Ok(vec![y])
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        self.engine.reference(inputs)
    }

    fn tolerance(&self) -> Tolerance {
        self.engine.tolerance()
    }

    fn summed(&self, inputs: &[Array], gradient_of: Option<usize>) -> f64 {
        self.engine.summed(inputs, gradient_of)
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        self.engine.cost(inputs, outputs)
    }
}

/// The ladder's own kernels on sizes that no tile divides.
pub fn samples() -> Vec<Sample> {
    let convolution =
        |size: usize, c: usize, k: usize, kernel: usize, stride: usize| Convolution { n: 2, size, c, k, kernel, stride, depthwise: false };
    let problems = [
        Problem::Gemm([1, 1, 1]),
        Problem::Gemm([33, 65, 7]),
        Problem::Gemm([16, 300, 35]),
        Problem::Conv2d(convolution(7, 3, 5, 3, 1)),
        Problem::Conv2d(convolution(9, 5, 17, 3, 2)),
        Problem::Conv2d(convolution(5, 33, 4, 1, 1)),
        Problem::Softmax([1, 1]),
        Problem::Softmax([5, 33]),
        Problem::Softmax([65, 197]),
    ];
    problems.into_iter().flat_map(|problem| [Step::Naive, Step::Tiled].map(|step| Rung::sample(problem, step))).collect()
}

/// A step on a problem, with numbers made as in the suite `peers`.
fn workload(problem: Problem, (step, word): (Step, &str)) -> Workload {
    let (group, shape, size) = match problem {
        Problem::Gemm([m, k, n]) => ("gemm", format!("[{m}, {k}] x [{k}, {n}]"), m.to_string()),
        Problem::Conv2d(own) => ("conv2d", own.shape(), format!("{}x{}x{}", own.n, own.size, own.c)),
        Problem::Softmax([rows, n]) => ("softmax", format!("[{rows}, {n}], temperature {TEMPERATURE}"), format!("{rows}x{n}")),
    };
    Workload::new(SUITE, format!("{group}_{size}/{word}"), group, shape, move |gpu| {
        let (geometry, inputs) = match problem {
            Problem::Gemm([m, k, n]) => {
                let inputs = vec![tensor(gpu, 1, [m, k], Layout::Plain)?, tensor(gpu, 2, [k, n], Layout::Plain)?];
                (Geometry::product([m, k, n]), inputs)
            }
            Problem::Conv2d(own) => {
                let Convolution { n, size, c, k, kernel, .. } = own;
                let x = tensor(gpu, 3, [n, c, size, size], Layout::Convolution)?;
                (own.geometry(), vec![x, tensor(gpu, 4, [k, c, kernel, kernel], Layout::Convolution)?])
            }
            Problem::Softmax([rows, n]) => {
                let gate = twin(gpu, &format!("[3, {n}]"), move || Rung::sample(Problem::Softmax([3, n]), step));
                let x = tensor(gpu, 6, [rows, n], Layout::Plain)?;
                return operator(Arc::new(Rung::new(problem, step)), vec![x], None, &[], gate);
            }
        };
        let given = inputs.clone();
        let gate = move || {
            let [x, w] = exactly(SUITE, &given)?;
            let y = apply(Rung::new(problem, step), &[x, w])?;
            let [y] = exactly(SUITE, &y)?;
            sampled::gate(&geometry, x, w, y, None)
        };
        operator(Arc::new(Rung::new(problem, step)), inputs, None, &[], gate)
    })
}

/// Every step on a smaller and a larger problem of each kind.
pub fn workloads(capabilities: &Capabilities) -> Vec<Workload> {
    let software = capabilities.kind == AdapterKind::Software;
    let images = |n, size, c| Problem::Conv2d(Convolution { n, size, c, k: c, kernel: 3, stride: 1, depthwise: false });
    let problems = match software {
        true => [
            Problem::Gemm([256; 3]),
            Problem::Gemm([512; 3]),
            images(4, 16, 64),
            images(4, 32, 64),
            Problem::Softmax([4096, 64]),
            Problem::Softmax([4096, 1000]),
        ],
        false => [
            Problem::Gemm([1024; 3]),
            Problem::Gemm([4096; 3]),
            images(16, 32, 64),
            images(64, 56, 128),
            Problem::Softmax([16384, 64]),
            Problem::Softmax([16384, 1000]),
        ],
    };
    problems.into_iter().flat_map(|problem| STEPS.map(|step| workload(problem, step))).collect()
}

/// How many times as fast a row is as the step before it; `None` for the first, and where that is
/// not among `before`.
pub fn gain(row: &Row, before: &[Row]) -> Option<f64> {
    let of = |row: &Row| row.name.split_once('/').map(|(problem, _)| problem.to_string());
    let last = before.last().filter(|last| row.suite == SUITE && last.schedule == row.schedule && of(last) == of(row))?;
    Some(last.time().0.median / row.time().0.median)
}
