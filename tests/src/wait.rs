//! The one polling loop of the harness: every wait has a name, a deadline and a reason when it fails.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// A bounded wait for something outside this process.
pub struct Wait<'a> {
    what: String,
    timeout: Duration,
    every: Duration,
    guard: Option<Box<dyn Fn() -> Result<()> + 'a>>,
}

impl<'a> Wait<'a> {
    /// A wait for `what` of at most `timeout`, looking every 100 ms.
    pub fn new(what: impl Into<String>, timeout: Duration) -> Self {
        Self { what: what.into(), timeout, every: Duration::from_millis(100), guard: None }
    }

    /// Replaces the interval between two looks.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Ends the wait at once with this check's error: what is waited for can no longer come.
    #[must_use]
    pub fn unless(mut self, guard: impl Fn() -> Result<()> + 'a) -> Self {
        self.guard = Some(Box::new(guard));
        self
    }

    /// Looks until the probe gives a value. Its errors count as "not yet"; the last one is shown at the deadline.
    pub fn until<T>(self, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let end = Instant::now() + self.timeout;
        loop {
            let last = match probe() {
                Ok(Some(value)) => return Ok(value),
                Ok(None) => None,
                Err(error) => Some(error),
            };
            if let Some(guard) = &self.guard {
                guard()?;
            }
            if Instant::now() >= end {
                let Self { what, timeout, .. } = self;
                match last {
                    Some(error) => bail!("waited {timeout:.0?} for {what}: {error:#}"),
                    None => bail!("waited {timeout:.0?} for {what}"),
                }
            }
            std::thread::sleep(self.every);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_with_the_value_the_guard_or_the_last_error() {
        let mut looks = 0;
        let every = Duration::from_millis(1);
        let found = Wait::new("three looks", Duration::from_secs(5)).every(every).until(|| {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.expect("found"), 3);

        let late = Wait::new("never", Duration::from_millis(5))
            .every(every)
            .until(|| bail!("no: {}", 1) as Result<Option<()>>);
        assert!(late.expect_err("late").to_string().contains("for never: no: 1"));

        let dead = Wait::new("dead", Duration::from_secs(60)).unless(|| bail!("it died")).until(|| Ok(None::<()>));
        assert_eq!(dead.expect_err("dead").to_string(), "it died");
    }
}
