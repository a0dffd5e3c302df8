//! The list of commands that have been recorded and not yet submitted.
//!
//! Uploads travel as a copy inside the encoder: `Queue::write_buffer` lands before every
//! unsubmitted command, so it is only used on buffers that no unsubmitted command touches (staging,
//! and the ring of parameters, both rewritten after a submit).

use std::collections::VecDeque;
use std::sync::Arc;

use super::adapter::IMMEDIATE_BYTES;
use super::clock::Instant;
use super::command::{Command, DISPATCHES_PER_REPLAY, DISPATCHES_PER_SUBMIT, Dispatch, Load};
use super::health::{self, Health};
use super::kernel::Pipeline;
use super::recording::Recording;
use crate::error::Result;

const SLOT: u64 = 256;
/// Uploads wait in as much memory at most, or in that of a single one, before they are submitted.
const STAGING_BYTES: u64 = 32 << 20;
/// Submissions in flight before the host waits for the oldest.
const IN_FLIGHT: usize = 16;

/// Counts of what has been recorded since the device was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Kernels launched.
    pub dispatches: u64,
    /// Queue submissions.
    pub submits: u64,
    /// Bytes copied from the host.
    pub uploaded_bytes: u64,
    /// The host's time for turning what was recorded into commands of the driver.
    pub encode_nanoseconds: u64,
    /// The host's time for handing them over.
    pub submit_nanoseconds: u64,
}

pub(crate) struct Recorder {
    health: Arc<Health>,
    commands: Vec<Command>,
    /// Each submission waits for the one before it.
    one_by_one: bool,
    /// The program that is being captured.
    pub recording: Option<Recording>,
    pending: Load,
    staging_free: Vec<wgpu::Buffer>,
    staging_used: Vec<wgpu::Buffer>,
    /// Parameters of unsubmitted dispatches, where there are no immediates.
    uniform: Option<(wgpu::Buffer, wgpu::BindGroup)>,
    in_flight: VecDeque<(u64, wgpu::SubmissionIndex)>,
    pub counters: Counters,
    /// Something that counts its rounds has been submitted since this was last taken.
    pub counted: bool,
}

impl Recorder {
    /// `uniform_layout` is given where parameters travel through a uniform buffer. A software
    /// driver takes a submission only when the one before it is done, and would block without a
    /// limit (`one_by_one`); encoding still overlaps with running.
    pub(crate) fn new(
        device: &wgpu::Device,
        health: Arc<Health>,
        uniform_layout: Option<&wgpu::BindGroupLayout>,
        one_by_one: bool,
    ) -> Self {
        let uniform = uniform_layout.map(|layout| {
            let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("parameters"),
                size: DISPATCHES_PER_SUBMIT as u64 * SLOT,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &buffer,
                offset: 0,
                size: std::num::NonZeroU64::new(u64::from(IMMEDIATE_BYTES)),
            });
            let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("parameters"),
                layout,
                entries: &[wgpu::BindGroupEntry { binding: 0, resource }],
            });
            (buffer, group)
        });
        Self {
            health,
            commands: Vec::new(),
            one_by_one,
            recording: None,
            pending: Load::default(),
            staging_free: Vec::new(),
            staging_used: Vec::new(),
            uniform,
            in_flight: VecDeque::new(),
            counters: Counters::default(),
            counted: false,
        }
    }

    /// The number of the submission that will carry what is recorded now.
    pub(crate) fn serial(&self) -> u64 {
        self.counters.submits
    }

    /// Adds a command to what is not submitted yet, which must have room for it.
    pub(crate) fn push(&mut self, command: Command) {
        self.counters.dispatches += u64::from(matches!(command, Command::Dispatch(_)));
        self.pending.add(&command, DISPATCHES_PER_SUBMIT);
        self.commands.push(command);
    }

    /// Whether this thread is capturing a program.
    pub(crate) fn recording(&mut self) -> Option<&mut Recording> {
        self.recording.as_mut().filter(|r| r.is_of_this_thread())
    }

    /// Whether this can go with what is not submitted yet: that must stay one submission, whose
    /// number is known to those who wait for it.
    pub(crate) fn has_room(&self, command: &Command) -> bool {
        let mut pending = self.pending;
        pending.add(command, DISPATCHES_PER_SUBMIT)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.pending.is_full()
    }

    /// Copies `data` (a multiple of 4 bytes) into `target`, in recording order.
    pub(crate) fn upload(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        target: &wgpu::Buffer,
        offset: u64,
        data: &[u8],
    ) -> Result<()> {
        let size = (data.len() as u64).next_power_of_two().max(SLOT).min(device.limits().max_buffer_size);
        if self.staging_used.iter().map(wgpu::Buffer::size).sum::<u64>() + size > STAGING_BYTES {
            self.flush(device, queue);
        }
        let position = self.staging_free.iter().position(|b| b.size() == size);
        let staging = match position {
            Some(i) => self.staging_free.swap_remove(i),
            None => health::buffer(device, Some("staging"), size, wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST)?,
        };
        queue.write_buffer(&staging, 0, data);
        self.push(Command::Copy {
            source: staging.clone(),
            source_offset: 0,
            target: target.clone(),
            target_offset: offset,
            bytes: data.len() as u64,
        });
        self.staging_used.push(staging);
        self.counters.uploaded_bytes += data.len() as u64;
        Ok(())
    }

    /// Submits everything recorded so far.
    pub(crate) fn flush(&mut self, device: &wgpu::Device, queue: &wgpu::Queue) {
        self.flush_with(device, queue, &[]);
    }

    /// Submits everything recorded so far with a program behind it.
    pub(crate) fn flush_with(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, program: &[Command]) {
        let recorded = std::mem::take(&mut self.commands);
        let commands: Vec<&Command> = recorded.iter().chain(program).collect();
        self.submit(device, queue, &commands);
        self.pending = Load::default();
        // A later write to a staging buffer is ordered after the submission that read it. What
        // these uploads did not need is given up: initial values are followed by batches.
        if !self.staging_used.is_empty() {
            self.staging_free = std::mem::take(&mut self.staging_used);
        }
    }

    /// Encodes `commands` and submits them, in parts where they are many or take long. Neighbouring
    /// dispatches share a pass.
    fn submit(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, commands: &[&Command]) {
        let most = if self.uniform.is_some() { DISPATCHES_PER_SUBMIT } else { DISPATCHES_PER_REPLAY };
        let mut rest = commands;
        while !rest.is_empty() && self.health.check().is_ok() {
            let begun = Instant::now();
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("wgrad") });
            let (mut blob, mut counted) = (Vec::new(), false);
            let mut load = Load::default();
            while let Some((first, tail)) = rest.split_first().filter(|(first, _)| load.add(first, most)) {
                match first {
                    Command::Effect(effect) => {
                        effect();
                        rest = tail;
                    }
                    Command::Copy { source, source_offset, target, target_offset, bytes } => {
                        encoder.copy_buffer_to_buffer(source, *source_offset, target, *target_offset, *bytes);
                        rest = tail;
                    }
                    Command::Stamp(query_set, index) => {
                        let stamp = wgpu::ComputePassTimestampWrites {
                            query_set,
                            beginning_of_pass_write_index: Some(*index),
                            end_of_pass_write_index: None,
                        };
                        encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(stamp) });
                        rest = tail;
                    }
                    Command::Timed(dispatch, query_set, index) => {
                        let stamps = wgpu::ComputePassTimestampWrites {
                            query_set,
                            beginning_of_pass_write_index: Some(*index),
                            end_of_pass_write_index: Some(*index + 1),
                        };
                        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(stamps) };
                        let mut pass = encoder.begin_compute_pass(&descriptor);
                        self.encode(&mut pass, dispatch, &mut None, &mut blob);
                        counted |= dispatch.rounds.is_some();
                        rest = tail;
                    }
                    Command::Dispatch(first) => {
                        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                        let mut bound = None;
                        let mut encode = |dispatch| {
                            self.encode(&mut pass, dispatch, &mut bound, &mut blob);
                            counted |= dispatch.rounds.is_some();
                        };
                        encode(first);
                        rest = tail;
                        while let Some((next, tail)) = rest.split_first() {
                            match next {
                                Command::Dispatch(dispatch) if load.add(next, most) => encode(dispatch),
                                Command::Effect(effect) => effect(),
                                _ => break,
                            }
                            rest = tail;
                        }
                    }
                }
            }
            if let Some((buffer, _)) = self.uniform.as_ref().filter(|_| !blob.is_empty()) {
                queue.write_buffer(buffer, 0, &blob);
            }
            self.counted |= counted;
            let buffer = encoder.finish();
            let encoded = Instant::now();
            // A failure stays, and whoever flushed looks for it.
            if self.one_by_one
                && let Some((_, last)) = self.in_flight.back()
                && self.health.wait(device, Some(last.clone())).is_err()
            {
                return;
            }
            let waited = Instant::now();
            let index = queue.submit([buffer]);
            self.counters.encode_nanoseconds += (encoded - begun).as_nanos() as u64;
            self.counters.submit_nanoseconds += waited.elapsed().as_nanos() as u64;
            self.in_flight.push_back((self.counters.submits, index));
            self.counters.submits += 1;
            if self.in_flight.len() > IN_FLIGHT
                && let Some((_, oldest)) = self.in_flight.pop_front()
            {
                let _ = self.health.wait(device, Some(oldest));
            }
        }
    }

    /// Adds a dispatch to `pass`, whose last pipeline was `bound`.
    fn encode<'c>(&self, pass: &mut wgpu::ComputePass, dispatch: &'c Dispatch, bound: &mut Option<&'c Arc<Pipeline>>, blob: &mut Vec<u8>) {
        if !bound.is_some_and(|last| Arc::ptr_eq(last, &dispatch.pipeline)) {
            pass.set_pipeline(&dispatch.pipeline.raw);
            *bound = Some(&dispatch.pipeline);
        }
        pass.set_bind_group(0, &dispatch.bind_group, &[]);
        if let Some((at, words)) = &dispatch.rounds {
            pass.set_bind_group(*at, words, &[]);
        }
        if !dispatch.params.is_empty() {
            let params = dispatch.present_params();
            match &self.uniform {
                Some((_, group)) => {
                    pass.set_bind_group(1, group, &[blob.len() as u32]);
                    blob.extend_from_slice(&params);
                    blob.resize(blob.len().next_multiple_of(SLOT as usize), 0);
                }
                None => pass.set_immediates(0, &params),
            }
        }
        let [x, y, z] = dispatch.grid;
        pass.dispatch_workgroups(x, y, z);
    }

    /// The submission with this serial number, while it may still be in flight.
    pub(crate) fn submission(&self, serial: u64) -> Option<wgpu::SubmissionIndex> {
        self.in_flight.iter().find(|(s, _)| *s == serial).map(|(_, index)| index.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::{BYTES_PER_SECOND, OPERATIONS_PER_SECOND};
    use super::super::{Gpu, Kernel, Launch};
    use super::*;
    use crate::tensor::{DType, Tensor};

    const ADD: &str = r#"{{ inout(0, "y") }} @compute @workgroup_size(1) fn run() { store_y(0u, load_y(0u) + 1.0); }"#;

    /// Submissions of a program of ten dispatches, of which each says that it does so many
    /// operations, when it is recorded and when it is replayed.
    fn submissions(gpu: &Gpu, flops: f64) -> [u64; 2] {
        let kernel = Kernel::new("one", ADD);
        let y = Tensor::zeros(gpu, [1], DType::F32).unwrap();
        let launch = || (0..10).try_for_each(|_| Launch::new(gpu, &kernel, "run").write(&y).flops(flops).groups(1));
        gpu.synchronize().unwrap();
        let before = gpu.counters().submits;
        let ((), program) = gpu.capture(launch).unwrap();
        gpu.flush().unwrap();
        let between = gpu.counters().submits;
        program.replay().unwrap();
        let after = gpu.counters().submits;
        assert_eq!(y.to_vec::<f32>().unwrap(), [20.0]);
        [between - before, after - between]
    }

    #[test]
    fn heavy_steps_are_submitted_in_parts_and_light_ones_are_not() {
        let gpu = Gpu::new().unwrap();
        assert_eq!(submissions(&gpu, 1e9), [1, 1], "10 GFLOP");
        // 125 GFLOP are a submission.
        assert_eq!(submissions(&gpu, 40e9), [4, 4]);
        assert_eq!(submissions(&gpu, 63e9), [10, 10]);
        assert_eq!(submissions(&gpu, 1e15), [10, 10], "what is too much by itself");
    }

    #[test]
    fn what_is_read_is_in_the_submission_that_is_waited_for() {
        let gpu = Gpu::new().unwrap();
        let kernel = Kernel::new("one", ADD);
        let y = Tensor::zeros(&gpu, [1], DType::F32).unwrap();
        let heavy = || Launch::new(&gpu, &kernel, "run").write(&y).flops(70e9).groups(1).unwrap();
        for count in 1..5 {
            heavy();
            heavy();
            assert_eq!(y.to_vec::<f32>().unwrap(), [2.0 * count as f32]);
        }
    }

    #[test]
    fn a_dispatch_counts_the_rounds_of_its_loops() {
        let gpu = Gpu::new().unwrap();
        let kernel = Kernel::new("one", r#"{{ inout(0, "y") }} @compute @workgroup_size(8, 8) fn run() { store_y(0u, 1.0); }"#);
        let y = Tensor::zeros(&gpu, [1], DType::F32).unwrap();
        Launch::new(&gpu, &kernel, "run").write(&y).walk(100).groups(3).unwrap();
        let recorder = gpu.recorder();
        let Some(Command::Dispatch(dispatch)) = recorder.commands.last() else { panic!("nothing was recorded") };
        assert_eq!(dispatch.steps, 3.0 * 64.0 * 100.0);
        assert_eq!(dispatch.seconds(), 19_200.0 / OPERATIONS_PER_SECOND + 4.0 / BYTES_PER_SECOND);
    }
}
