//! The adversary on a shared volume: a thread that does one thing over and over until it is dropped.

use crate::kernel;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// A running loop.
pub struct Swapper {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Swapper {
    /// Exchanges two names as fast as the kernel does.
    pub fn exchange(a: PathBuf, b: PathBuf) -> Swapper {
        Swapper::start(move || {
            // A name that is gone for the moment is back in the next round.
            let _ = kernel::exchange(&a, &b);
        })
    }

    /// Binds `source` over `target` and takes it off again.
    pub fn bind(source: &Path, target: &Path) -> Swapper {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        let (source, target) = (source.to_path_buf(), target.to_path_buf());
        Swapper::start(move || {
            if mount(Some(&source), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>).is_ok() {
                std::thread::sleep(std::time::Duration::from_micros(300));
                // Busy or gone: the next round tries again.
                let _ = umount2(&target, MntFlags::MNT_DETACH);
            }
        })
    }

    fn start(mut round: impl FnMut() + Send + 'static) -> Swapper {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (stop.clone(), rounds.clone());
        let thread = std::thread::spawn(move || {
            // The last processor; on a machine with one they share it.
            let mut cpus = nix::sched::CpuSet::new();
            let last = std::thread::available_parallelism().map_or(0, |n| n.get() - 1);
            if cpus.set(last).is_ok() {
                let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus);
            }
            while !stopped.load(Ordering::Relaxed) {
                round();
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Swapper { stop, rounds, thread: Some(thread) }
    }

    /// Ends it; how often it went round.
    pub fn stop(mut self) -> u64 {
        self.end();
        self.rounds.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.end();
    }
}
