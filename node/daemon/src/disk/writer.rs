//! The thread that writes the state directory.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ais_ha::{Persist, Token};
use tokio::sync::mpsc;

use super::{Store, Work};
use crate::hooks::Hooks;

/// Between tries after a failure: a full disk must be noticed to have room again soon.
const RETRY: Duration = Duration::from_millis(200);

/// A sync that takes longer is worth a warning (protocol.md section 8).
pub const SLOW: Duration = Duration::from_millis(50);
/// Between warnings of a disk that stays slow.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// What the thread tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Everything up to this token is durable.
    Persisted {
        /// The highest.
        token: Token,
        /// How long it took.
        took_ms: u64,
    },
    /// Writing failed; it goes on trying.
    Failed {
        /// The system's word.
        why: String,
    },
}

#[derive(Default)]
struct Queue {
    /// Latest hard state wins: what waits is one piece of work, so the queue is bounded by construction.
    work: Option<Work>,
    /// When the oldest of it was submitted.
    since: Option<Instant>,
    /// When the oldest of what the thread writes now was submitted.
    writing_since: Option<Instant>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands work to the thread. Dropping it lets the thread end after what it is writing.
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. Reports go to `reports`; when its receiver is gone the thread ends.
    ///
    /// # Errors
    /// The system's, when no thread can be started.
    pub fn start(store: Store, reports: mpsc::Sender<Report>, hooks: Arc<dyn Hooks>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("disk".to_owned())
            .spawn(move || run(&theirs, store, &reports, &*hooks))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Queues one change of the hard state; never blocks on the disk.
    pub fn submit(&self, persist: Persist) {
        let mut queue = self.shared.lock();
        queue.work.get_or_insert_default().add(persist);
        queue.since.get_or_insert_with(Instant::now);
        drop(queue);
        self.shared.wake.notify_one();
    }

    /// Since when the oldest work that is not durable waits.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Instant> {
        let queue = self.shared.lock();
        queue.writing_since.or(queue.since)
    }

    /// Ends the thread after the work that is queued, unless the disk hangs for longer than `patience`: false then,
    /// and the thread may still write.
    pub fn close(mut self, patience: Duration) -> bool {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        let deadline = Instant::now() + patience;
        let Some(thread) = self.thread.take() else { return true };
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let ended = thread.is_finished();
        if ended && thread.join().is_err() {
            tracing::error!("the disk thread panicked");
        }
        ended
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
    }
}

fn run(shared: &Shared, mut store: Store, reports: &mpsc::Sender<Report>, hooks: &dyn Hooks) {
    let mut failing: Option<String> = None;
    // Work of a failed try; later work is put on top of it.
    let mut held: Option<Work> = None;
    let mut warned: Option<Instant> = None;
    loop {
        let Some(work) = next(shared, &mut held) else { return };
        let start = Instant::now();
        match store.write(&work) {
            Ok(()) => {
                let took = start.elapsed();
                hooks.fsync(took);
                warn_if_slow(took, &mut warned);
                shared.lock().writing_since = None;
                if failing.take().is_some() {
                    tracing::info!("the state directory can be written again");
                }
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                if reports.blocking_send(Report::Persisted { token: work.token, took_ms }).is_err() {
                    return;
                }
            }
            Err(error) => {
                hooks.persist_failed();
                let why = error.to_string();
                // Once per failure, not per try.
                if failing.as_ref() != Some(&why) {
                    tracing::error!(%why, "cannot write the state directory; trying again");
                    failing = Some(why.clone());
                    if reports.blocking_send(Report::Failed { why }).is_err() {
                        return;
                    }
                }
                held = Some(work);
                if pause(shared) {
                    return;
                }
            }
        }
    }
}

/// Once when it begins, again while it lasts.
fn warn_if_slow(took: Duration, warned: &mut Option<Instant>) {
    if took > SLOW && warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
        tracing::warn!(
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "the state directory's disk is slow: every write and every election waits for it"
        );
        *warned = Some(Instant::now());
    }
}

/// Waits for work; `None` when there is none and will be none.
fn next(shared: &Shared, held: &mut Option<Work>) -> Option<Work> {
    let mut queue = shared.lock();
    loop {
        let fresh = queue.work.take();
        let since = queue.since.take();
        queue.writing_since = queue.writing_since.or(since);
        match (held.take(), fresh) {
            (Some(mut old), Some(new)) => {
                old.stack(new);
                return Some(old);
            }
            (Some(work), None) | (None, Some(work)) => return Some(work),
            (None, None) if queue.closed => return None,
            (None, None) => queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// Waits between tries; true when the process ends, which does not wait for a disk that fails.
fn pause(shared: &Shared) -> bool {
    let deadline = Instant::now() + RETRY;
    let mut queue = shared.lock();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if queue.closed || left.is_zero() {
            return queue.closed;
        }
        queue = shared.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}
