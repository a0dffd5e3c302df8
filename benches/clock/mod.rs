//! What a benchmark measures: the wall clock or, with `WGRAD_BENCH=cpu` (Linux), the processor time of all threads of this process. On a
//! software driver and a machine that is shared, the latter says more: two cores that work alone take half of it.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now() -> Duration {
    if std::env::var("WGRAD_BENCH").is_ok_and(|what| what == "cpu") {
        let nanoseconds = |task: std::fs::DirEntry| -> u64 {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap();
            text.split(' ').next().unwrap().parse().unwrap()
        };
        let tasks = std::fs::read_dir("/proc/self/task").expect("WGRAD_BENCH=cpu reads /proc/self/task");
        return Duration::from_nanos(tasks.map(|task| nanoseconds(task.unwrap())).sum());
    }
    START.elapsed()
}

/// For criterion's `iter_custom`: what `times` calls of `work` take.
pub fn measure<T>(times: u64, work: impl Fn() -> T) -> Duration {
    LazyLock::force(&START);
    let begun = now();
    for _ in 0..times {
        std::hint::black_box(work());
    }
    now() - begun
}
