//! The benchmark: its probes, workloads, gates, arguments and verdicts. Nothing here depends on how long something takes.

mod common;

use common::gpus;
use wgrad::bench::probes;

#[test]
fn probes_compute_what_they_must() {
    for (schedule, gpu) in gpus() {
        let (peaks, rows) = probes::measure(&gpu, 0.0).unwrap();
        for row in &rows {
            assert_eq!(row.gate.passed, Some(true), "{} ({schedule}): {:?}", row.name, row.gate);
        }
        println!("{schedule}: {peaks:?}");
        assert!(peaks.fma_gflops.is_some() && peaks.loads_gflops.is_some() && peaks.copy_gbs.is_some());
    }
}
