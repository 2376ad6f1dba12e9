//! Log lines on standard error, for people or as JSON. The last of them are kept for whoever asks over HTTP, and the
//! level can change while the process runs.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, OnceLock};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::LogFormat;

/// Bytes of recent lines that are kept.
const RECENT_MAX: usize = 256 << 10;

static RECENT: Mutex<Recent> = Mutex::new(Recent { lines: VecDeque::new(), bytes: 0 });
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// How bad a line is, AIStore's three words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// And below.
    Info,
    /// Something to look at.
    Warning,
    /// Something broke.
    Error,
}

impl From<&Level> for Severity {
    fn from(level: &Level) -> Self {
        match *level {
            Level::ERROR => Self::Error,
            Level::WARN => Self::Warning,
            _ => Self::Info,
        }
    }
}

/// The last lines, oldest first.
struct Recent {
    lines: VecDeque<(Severity, String)>,
    bytes: usize,
}

impl Recent {
    fn push(&mut self, severity: Severity, line: String) {
        self.bytes += line.len();
        self.lines.push_back((severity, line));
        while self.bytes > RECENT_MAX {
            let Some((_, gone)) = self.lines.pop_front() else { return };
            self.bytes -= gone.len();
        }
    }

    fn from(&self, least: Severity) -> String {
        self.lines.iter().filter(|(severity, _)| *severity >= least).map(|(_, line)| line.as_str()).collect()
    }
}

fn kept() -> MutexGuard<'static, Recent> {
    RECENT.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The last lines of at least this severity.
#[must_use]
pub fn recent(least: Severity) -> String {
    kept().from(least)
}

/// Writes to standard error and keeps what was written.
struct Tee;

/// One line on its way.
struct Line {
    severity: Severity,
    text: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Tee {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { severity: Severity::Info, text: Vec::new() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        Line { severity: meta.level().into(), text: Vec::new() }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.text.is_empty() {
            return;
        }
        // Nobody can be told that standard error is gone.
        drop(io::stderr().write_all(&self.text));
        kept().push(self.severity, plain(&String::from_utf8_lossy(&self.text)));
    }
}

/// Without a terminal's colours.
fn plain(text: &str) -> String {
    let mut rest = text;
    let mut out = String::with_capacity(text.len());
    while let Some(at) = rest.find("\u{1b}[") {
        out.push_str(&rest[..at]);
        let sequence = &rest[at + 2..];
        let end = sequence.find(|c: char| c.is_ascii_alphabetic()).map_or(sequence.len(), |end| end + 1);
        rest = &sequence[end..];
    }
    out.push_str(rest);
    out
}

/// Starts logging for the whole process. `level` is a level or a filter; [`crate::config`] has checked it.
///
/// # Errors
/// When logging was started before.
pub fn init(format: LogFormat, level: &str) -> Result<(), TryInitError> {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Human => {
            let colours = io::stderr().is_terminal();
            registry.with(fmt::layer().with_ansi(colours).with_writer(Tee)).try_init()?;
        }
        LogFormat::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(Tee)).try_init()?;
        }
    }
    // Logging was not started before, so there is none yet.
    let _ = FILTER.set(handle);
    Ok(())
}

/// Logs at this level from now on, if logging was started. Says so, when it is another one.
pub fn set_level(level: &str) {
    let (Some(handle), Ok(filter)) = (FILTER.get(), EnvFilter::try_new(level)) else { return };
    let now = handle.with_current(ToString::to_string).unwrap_or_default();
    if now == filter.to_string() {
        return;
    }
    match handle.reload(filter) {
        Ok(()) => tracing::info!(level, before = now, "the cluster's configuration set another log level"),
        Err(error) => tracing::warn!(level, %error, "the log level cannot be changed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_lines_are_bounded_and_chosen_by_severity() {
        let mut recent = Recent { lines: VecDeque::new(), bytes: 0 };
        recent.push(Severity::Info, "a\n".to_owned());
        recent.push(Severity::Error, "b\n".to_owned());
        recent.push(Severity::Warning, "c\n".to_owned());
        assert_eq!(recent.from(Severity::Info), "a\nb\nc\n");
        assert_eq!(recent.from(Severity::Warning), "b\nc\n");
        assert_eq!(recent.from(Severity::Error), "b\n");
        recent.push(Severity::Info, "x".repeat(RECENT_MAX - 2));
        assert_eq!(recent.from(Severity::Warning), "c\n");
        recent.push(Severity::Info, "y".repeat(RECENT_MAX + 1));
        assert_eq!((recent.lines.len(), recent.bytes), (0, 0), "one line that is too long pushes all out, itself too");
    }

    #[test]
    fn colours_do_not_reach_whoever_asks() {
        assert_eq!(plain("\u{1b}[2m2026\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m x"), "2026  INFO x");
        assert_eq!(plain("plain \u{1b}[ü 1"), "plain ");
    }
}
