//! Proof that the lease is still ours.
//!
//! Whoever renews the lease says that it is lost only once it has read so: as long as its calls fail or hang it says
//! nothing, and another instance takes over meanwhile. Here the lease is read on its own, by a client that neither
//! repeats nor waits, and each answer is a proof for a few seconds only.
//! # Guarantees
//! Two never act at once as long as their clocks differ by less than [`Terms::margin`]: what was last read says when
//! another instance may take the lease, and the proof ends before that.
//! # Caveats
//! The proof is about the moment of the question. What was sent before it ended may still arrive: deletions carry uids,
//! and moves of the primary its epoch.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, Config};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

/// How a lease is confirmed.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Between two questions.
    pub period: Duration,
    /// How long one may take.
    pub question: Duration,
    /// How long an answer is believed, from its question on.
    pub believed: Duration,
    /// How long before another instance may take the lease it counts as lost.
    pub margin: Duration,
}

impl Default for Terms {
    /// Two questions may fail in a row, and the end comes before that of a lease of fifteen seconds.
    fn default() -> Self {
        Self {
            period: Duration::from_secs(3),
            question: Duration::from_secs(3),
            believed: Duration::from_secs(10),
            margin: Duration::from_secs(2),
        }
    }
}

/// How long the lease is known to be ours. Copies share what is known.
#[derive(Clone, Debug)]
pub struct Tenure {
    until: watch::Receiver<Option<Instant>>,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl Tenure {
    /// Confirms from now on a lease that was just acquired.
    #[must_use]
    pub fn watch(client: Client, namespace: &str, name: &str, identity: &str, terms: Terms) -> Self {
        let (sender, until) = watch::channel(Some(Instant::now() + terms.believed));
        let leases: Api<Lease> = Api::namespaced(client, namespace);
        let task = confirm(leases, name.to_owned(), identity.to_owned(), terms, sender);
        Self { until, _task: Arc::new(AbortOnDropHandle::new(tokio::spawn(task))) }
    }

    /// Of an instance that competes with nobody: a pass by itself.
    #[must_use]
    pub fn unbounded() -> Self {
        const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);
        let (sender, until) = watch::channel(Some(Instant::now() + FOR_EVER));
        let task = async move { sender.closed().await };
        Self { until, _task: Arc::new(AbortOnDropHandle::new(tokio::spawn(task))) }
    }

    /// It is ours at this moment.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Resolves when it is not known to be ours any more.
    pub async fn ended(&self) {
        let mut news = self.until.clone();
        loop {
            let Some(until) = *news.borrow_and_update() else { return };
            tokio::select! {
                biased;
                changed = news.changed() => if changed.is_err() { return },
                () = sleep_until(until) => return,
            }
        }
    }
}

/// A client for leases: each call is short, and what fails is told instead of repeated.
///
/// # Errors
/// If the configuration makes no client.
pub fn client(mut config: Config, terms: &Terms) -> kube::Result<Client> {
    config.default_retry = false;
    config.connect_timeout = Some(terms.question);
    config.write_timeout = Some(terms.question);
    config.read_timeout = Some(terms.believed);
    config.reset_reader_on_write = true;
    Client::try_from(config)
}

async fn confirm(
    leases: Api<Lease>,
    name: String,
    identity: String,
    terms: Terms,
    until: watch::Sender<Option<Instant>>,
) {
    loop {
        let (asked, now) = (Instant::now(), Timestamp::now());
        match timeout(terms.question, leases.get(&name)).await {
            Ok(Ok(lease)) => {
                let proof = proof(&lease, &identity, now, &terms);
                until.send_replace(proof.map(|valid| asked + valid));
                if proof.is_none() {
                    tracing::error!(lease = name, "the lease is not ours any more, or about to end");
                    return;
                }
            }
            Ok(Err(error)) => tracing::warn!(lease = name, %error, "the lease cannot be confirmed now"),
            Err(_) => tracing::warn!(lease = name, "no answer about the lease"),
        }
        sleep(terms.period).await;
    }
}

/// How long this answer proves that the lease is ours, from `now`, its question, on.
fn proof(lease: &Lease, identity: &str, now: Timestamp, terms: &Terms) -> Option<Duration> {
    let spec = lease.spec.as_ref().filter(|spec| spec.holder_identity.as_deref() == Some(identity))?;
    let end = spec.renew_time.as_ref()?.0 + SignedDuration::from_secs(spec.lease_duration_seconds?.into());
    let left = Duration::try_from(end.duration_since(now)).ok()?.checked_sub(terms.margin)?;
    Some(left.min(terms.believed)).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_proves_no_more_than_what_is_left_of_the_lease() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap_or_default();
        let lease = |holder: &str, renewed_s: i64| -> Lease {
            let renewed = now - SignedDuration::from_secs(renewed_s);
            let spec = serde_json::json!({
                "holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": format!("{renewed:.6}"),
            });
            serde_json::from_value(serde_json::json!({"metadata": {}, "spec": spec})).unwrap_or_default()
        };
        let proof = |lease: &Lease| proof(lease, "me", now, &Terms::default()).map(|left| left.as_secs());
        let table = [(0, Some(10)), (3, Some(10)), (4, Some(9)), (12, Some(1)), (13, None), (16, None), (9000, None)];
        for (renewed_s, left) in table {
            assert_eq!(proof(&lease("me", renewed_s)), left, "renewed {renewed_s} s ago");
        }
        // A clock that was set back proves no more than any other.
        assert_eq!(proof(&lease("me", -9000)), Some(10));
        assert_eq!(proof(&lease("another", 0)), None);
        assert_eq!(proof(&Lease::default()), None);
    }
}
