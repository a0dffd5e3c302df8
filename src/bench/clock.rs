//! Clocks.

/// Processor time of all threads of this process, seconds. On a software driver and a shared
/// machine it says more than the wall clock. `None` where the system does not tell.
pub fn processor_seconds() -> Option<f64> {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
    }
    #[cfg(not(unix))]
    None
}
