//! Awaiting the device: whoever waits is woken, once, and by whatever ends the wait.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::common::gpu;
use wgrad::error::{Error, Result};
use wgrad::gpu::{Gpu, GpuOptions, Pending};
use wgrad::nn::{Linear, Parameters, state_dict};
use wgrad::tensor::{DType, Tensor};

/// Wakes a thread, and counts how often.
struct Counting {
    thread: Thread,
    wakes: AtomicUsize,
}

impl Counting {
    fn new() -> Arc<Self> {
        Arc::new(Self { thread: std::thread::current(), wakes: AtomicUsize::new(0) })
    }

    fn wakes(&self) -> usize {
        self.wakes.load(Ordering::SeqCst)
    }
}

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// Polls `futures` whenever one of them was woken, and never else: their outputs, and how often
/// that was.
fn drive<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T> + Send>>>) -> (Vec<T>, usize) {
    let counting = Counting::new();
    let waker = Waker::from(counting.clone());
    let mut outputs: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        let seen = counting.wakes();
        for (future, output) in futures.iter_mut().zip(&mut outputs).filter(|(_, output)| output.is_none()) {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                *output = Some(value);
            }
        }
        if outputs.iter().all(Option::is_some) {
            return (outputs.into_iter().flatten().collect(), counting.wakes());
        }
        while counting.wakes() == seen {
            assert!(Instant::now() < limit, "nobody was woken");
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

/// A matrix that takes its time, with `value` everywhere; its sum is 512 * 512 times as much.
fn slow(gpu: &Gpu, value: f32) -> Tensor {
    let x = Tensor::full(gpu, [512, 512], value, DType::F32).unwrap();
    let shares = Tensor::full(gpu, [512, 512], 1.0 / 512.0, DType::F32).unwrap();
    (0..6).fold(x, |x, _| x.matmul(&shares).unwrap())
}

#[test]
fn whoever_awaits_is_woken_and_does_not_poll_in_a_loop() {
    let gpu = gpu();
    let y = slow(&gpu, 2.0);
    let (values, wakes) = drive(vec![y.to_vec_later::<f32>().unwrap().into_future()]);
    assert_eq!(values, [Ok(vec![2.0; 512 * 512])]);
    // Once by the copy, and once by the rounds of loops that tests count.
    assert!(wakes <= 3, "{wakes} wakes");
}

#[test]
fn several_reads_arrive_in_any_order_of_waiting() {
    let gpu = gpu();
    let mut reads: Vec<Pending<f32>> = Vec::new();
    for i in 0..6 {
        let sum = slow(&gpu, i as f32).mean(&[], false).unwrap();
        reads.push(sum.to_vec_later::<f32>().unwrap().map(|v| Ok(v[0])));
        if i % 2 == 0 {
            gpu.flush().unwrap();
        }
    }
    // One is waited for by a thread that blocks meanwhile, one by nobody; the others from the last
    // to the first.
    let blocked = reads.remove(2);
    drop(reads.remove(0));
    let thread = std::thread::spawn(move || blocked.wait());
    let (values, wakes) = drive(reads.into_iter().rev().map(IntoFuture::into_future).collect());
    assert_eq!(values, [5.0, 4.0, 3.0, 1.0].map(Ok));
    assert!(wakes <= 3 * 4, "{wakes} wakes");
    assert_eq!(thread.join().unwrap(), Ok(2.0));
}

#[test]
fn a_wait_that_is_given_up_harms_no_other() {
    let gpu = gpu();
    let y = slow(&gpu, 3.0);
    let mut given_up = y.read_later().unwrap().into_future();
    let counting = Counting::new();
    let _ = given_up.as_mut().poll(&mut Context::from_waker(&Waker::from(counting)));
    drop(given_up);
    assert_eq!(drive(vec![Box::pin(async move { y.mean(&[], false)?.item_async().await })]).0, [Ok(3.0)]);
    assert_eq!(gpu.synchronize(), Ok(()));
}

#[test]
fn a_lost_device_ends_every_wait_with_its_error() {
    let gpu = gpu();
    let (y, z) = (slow(&gpu, 4.0), slow(&gpu, 5.0));
    let counting = Counting::new();
    let waker = Waker::from(counting.clone());
    let mut read = y.to_vec_later::<f32>().unwrap().into_future();
    let synchronized = gpu.clone();
    let mut finished = pin!(async move { synchronized.synchronize_async().await });
    let waiting = usize::from(read.as_mut().poll(&mut Context::from_waker(&waker)).is_pending())
        + usize::from(finished.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    gpu.destroy();
    assert!(counting.wakes() >= waiting, "{} of {waiting} were woken", counting.wakes());
    let lost = Err(Error::DeviceLost("destroyed by the program".into()));
    if waiting == 2 {
        assert_eq!(read.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(lost.clone().map(|()| vec![])));
        assert_eq!(finished.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(lost.clone()));
    }
    let (later, wakes) = drive(vec![Box::pin(async move { z.to_vec_async::<f32>().await })]);
    assert_eq!((later, wakes), (vec![lost.map(|()| vec![])], 0));
}

#[test]
fn awaited_forms_give_what_blocking_ones_give() {
    fn sent<T>(future: impl Future<Output = Result<T>> + Send) -> Result<T> {
        pollster::block_on(future)
    }
    let options = GpuOptions::from_env().unwrap();
    let adapters = sent(wgrad::gpu::adapters_async()).unwrap();
    assert_eq!(adapters, wgrad::gpu::adapters().unwrap());
    let gpu = sent(Gpu::with_async(options.clone())).unwrap();
    assert_eq!((gpu.options(), gpu.capabilities()), (&options, sent(Gpu::new_async()).unwrap().capabilities()));
    let x = Tensor::from_slice(&gpu, &[1i32, -2, 3], [3]).unwrap();
    assert_eq!(sent(x.to_vec_async::<i32>()), Ok(vec![1, -2, 3]));
    assert_eq!(sent(x.to_f64_async()), Ok(vec![1.0, -2.0, 3.0]));
    assert_eq!(sent(x.to_vec_async::<f32>()).unwrap_err(), x.to_vec::<f32>().unwrap_err());
    assert_eq!(sent(x.item_async()).unwrap_err(), x.item().unwrap_err());
    assert_eq!(sent(Tensor::zeros(&gpu, [0], DType::F32).unwrap().to_vec_async::<f32>()), Ok(vec![]));
    let params = Parameters::new(&gpu, 0);
    Linear::new(&params, "fc", 3, 2).unwrap();
    assert_eq!(sent(state_dict::to_archive_async(&params)), state_dict::to_archive(&params));
    assert_eq!(sent(gpu.synchronize_async()), Ok(()));
}
