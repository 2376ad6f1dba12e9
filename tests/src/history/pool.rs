//! Which gateways the clients use now.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use super::clients::Random;
use crate::wait::Wait;

#[derive(Debug)]
struct Entry {
    id: String,
    address: String,
    open: bool,
    /// One clone beside this one for each call under way.
    calls: Arc<()>,
}

/// The gateways, some of them closed to new calls.
#[derive(Debug, Default)]
pub struct Pool {
    entries: Mutex<Vec<Entry>>,
}

/// A gateway for one call.
#[derive(Debug)]
pub struct Use {
    /// Its id.
    pub id: String,
    /// Its public address.
    pub address: String,
    _call: Arc<()>,
}

impl Pool {
    /// A pool of these gateways (id, public address), all open.
    pub fn new(gateways: Vec<(String, String)>) -> Arc<Self> {
        let entry = |(id, address)| Entry { id, address, open: true, calls: Arc::new(()) };
        Arc::new(Self { entries: Mutex::new(gateways.into_iter().map(entry).collect()) })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Vec<Entry>) -> T) -> T {
        f(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A random open gateway, another one than `not` if there is one.
    pub fn pick(&self, random: &mut Random, not: Option<&str>) -> Option<Use> {
        self.with(|entries| {
            let open = || entries.iter().filter(|entry| entry.open);
            let others: Vec<&Entry> = open().filter(|entry| not != Some(entry.id.as_str())).collect();
            let from = if others.is_empty() { open().collect() } else { others };
            let entry = from.get(random.below(from.len()))?;
            Some(Use { id: entry.id.clone(), address: entry.address.clone(), _call: entry.calls.clone() })
        })
    }

    /// The gateway at this place, counted round; `None` while it is closed.
    pub fn nth(&self, place: usize) -> Option<Use> {
        self.with(|entries| {
            let entry = entries.get(place % entries.len().max(1)).filter(|entry| entry.open)?;
            Some(Use { id: entry.id.clone(), address: entry.address.clone(), _call: entry.calls.clone() })
        })
    }

    /// Takes a gateway out and waits until no call is under way there.
    pub fn close(&self, id: &str) -> Result<()> {
        let idle = || self.with(|entries| entries.iter().all(|e| e.id != id || Arc::strong_count(&e.calls) == 1));
        self.set(id, false);
        Wait::new(format!("the calls at {id}"), Duration::from_secs(25))
            .every(Duration::from_millis(1))
            .until(|| Ok(idle().then_some(())))
    }

    /// Takes a gateway out at once; calls under way there go on.
    pub fn shut(&self, id: &str) {
        self.set(id, false);
    }

    /// Takes a gateway in again.
    pub fn open(&self, id: &str) {
        self.set(id, true);
    }

    /// Adds a gateway.
    pub fn add(&self, id: &str, address: &str) {
        let entry = Entry { id: id.to_owned(), address: address.to_owned(), open: true, calls: Arc::new(()) };
        self.with(|entries| entries.push(entry));
    }

    /// A gateway came back at another address.
    pub fn readdress(&self, id: &str, address: &str) {
        self.with(|entries| {
            for entry in entries.iter_mut().filter(|entry| entry.id == id) {
                address.clone_into(&mut entry.address);
            }
        });
    }

    fn set(&self, id: &str, open: bool) {
        self.with(|entries| entries.iter_mut().filter(|entry| entry.id == id).for_each(|entry| entry.open = open));
    }
}
