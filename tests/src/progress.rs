//! Progress lines on standard error, each with the seconds since the start.

use std::time::{Duration, Instant};

/// A clock that prints what was reached and when.
#[derive(Debug, Clone)]
pub struct Progress {
    start: Instant,
    name: String,
}

impl Progress {
    /// Starts the clock; `name` stands before every line.
    pub fn new(name: impl Into<String>) -> Self {
        Self { start: Instant::now(), name: name.into() }
    }

    /// Prints one line.
    pub fn line(&self, text: impl AsRef<str>) {
        eprintln!("[{} {:6.1}s] {}", self.name, self.start.elapsed().as_secs_f64(), text.as_ref());
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}
