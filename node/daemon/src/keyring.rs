//! The cluster's secrets as they stand now: read again when the file changes, so that they can be rotated under way.
//!
//! The first line of the file signs and dials, every line is accepted. A rotation is three edits of the file, each
//! given time to reach all members: `old, new`, then `new, old`, then `new`. Connections move to the first key as it
//! changes and end when theirs is not accepted any more.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ais_meta::auth::{self, SECRETS_MAX, Secrets};
use tokio::runtime;
use tokio::sync::{Notify, watch};

use crate::peers::Psk;

/// Between two looks at a file that nobody asks for.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Between two looks that failed handshakes ask for.
const LOOK_LEAST: Duration = Duration::from_millis(500);
/// A few lines; anything longer is not a file of secrets.
const FILE_MAX: u64 = 64 << 10;

/// What is signed with and accepted now.
#[derive(Debug, PartialEq, Eq)]
pub struct Ring {
    secrets: Option<Secrets>,
    /// Never empty; in the order of the secrets.
    psks: Vec<Psk>,
}

impl Ring {
    fn new(secrets: Option<Secrets>) -> Self {
        let psks = match &secrets {
            Some(secrets) => secrets.iter().map(|secret| Psk::from_secret(secret.as_bytes())).collect(),
            None => vec![Psk::insecure()],
        };
        Self { secrets, psks }
    }

    /// The secrets; `None` when the node runs without any.
    #[must_use]
    pub fn secrets(&self) -> Option<&Secrets> {
        self.secrets.as_ref()
    }

    /// Keys of handshakes: the first one dials, all are accepted.
    #[must_use]
    pub fn psks(&self) -> &[Psk] {
        &self.psks
    }

    /// What tells the secrets apart for those who hold them; in their order.
    #[must_use]
    pub fn digests(&self) -> Vec<String> {
        let secrets = self.secrets.as_ref().map(|secrets| secrets.iter().map(auth::Secret::digest).collect());
        secrets.unwrap_or_default()
    }

    /// Whether new connections are dialled with it.
    #[must_use]
    pub fn is_first(&self, psk: &Psk) -> bool {
        self.psks.first() == Some(psk)
    }
}

/// Everybody's view of the secrets. Cheap to clone; never prints them.
#[derive(Clone, Debug)]
pub struct Keyring {
    ring: watch::Receiver<Arc<Ring>>,
    set: Arc<watch::Sender<Arc<Ring>>>,
    file: Option<PathBuf>,
    doubt: Arc<Notify>,
}

impl Keyring {
    /// Secrets that were read from `file`, or none.
    #[must_use]
    pub fn new(secrets: Option<Secrets>, file: Option<PathBuf>) -> Self {
        let (set, ring) = watch::channel(Arc::new(Ring::new(secrets)));
        Self { ring, set: Arc::new(set), file, doubt: Arc::default() }
    }

    /// The secrets of now.
    #[must_use]
    pub fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.borrow())
    }

    /// Changes are awaited on it.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Ring>> {
        self.ring.clone()
    }

    /// Somebody does not hold what we hold: perhaps the file changed.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Other secrets from now on.
    pub fn replace(&self, secrets: Secrets) {
        let fresh = Ring::new(Some(secrets));
        self.set.send_if_modified(|ring| {
            let news = **ring != fresh;
            if news {
                *ring = Arc::new(fresh);
            }
            news
        });
    }

    /// Follows the file for as long as the runtime lives. What does not read changes nothing.
    pub fn follow(&self, runtime: &runtime::Handle) {
        let Some(path) = self.file.clone() else { return };
        if let Some(why) = exposed(&path) {
            tracing::warn!(path = %path.display(), "the secrets {why}");
        }
        let keyring = self.clone();
        runtime.spawn(async move {
            let mut problem = None;
            loop {
                tokio::time::sleep(LOOK_LEAST).await;
                let _ = tokio::time::timeout(LOOK_EVERY - LOOK_LEAST, keyring.doubt.notified()).await;
                match read(&path).await {
                    Ok(secrets) => {
                        let count = secrets.iter().count();
                        let before = keyring.ring();
                        keyring.replace(secrets);
                        if *before != *keyring.ring() {
                            tracing::info!(count, "the secrets changed; the first one signs and dials from now on");
                        }
                        problem = None;
                    }
                    Err(why) if problem.as_ref() != Some(&why) => {
                        tracing::error!(path = %path.display(), %why, "the secrets stay as they were");
                        problem = Some(why);
                    }
                    Err(_) => {}
                }
            }
        });
    }
}

/// Why others than the owner and its group may know the secrets, or replace them. Not refused: a volume of Kubernetes
/// shows a Secret with mode 0644 unless told otherwise, and only to the containers that mount it.
fn exposed(path: &Path) -> Option<&'static str> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    let mounted = path.parent().is_some_and(|directory| directory.join("..data").exists());
    match mode {
        _ if mode & 0o022 != 0 => Some("can be replaced by others than the owner of their file: give it mode 0600"),
        _ if mode & 0o004 != 0 && !mounted => {
            Some("can be read by everybody on this machine: give their file mode 0600")
        }
        _ => None,
    }
}

async fn read(path: &Path) -> Result<Secrets, String> {
    let path = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || read_secrets(&path));
    reading.await.unwrap_or_else(|e| Err(e.to_string()))
}

/// Reads a file of secrets.
///
/// # Errors
/// What is wrong with it, and what to do; never what stands in it.
pub fn read_secrets(path: &Path) -> Result<Secrets, String> {
    let length = std::fs::metadata(path).map_err(|e| format!("cannot be read: {e}"))?.len();
    if length > FILE_MAX {
        return Err(format!("has {length} bytes; a file of secrets has at most {SECRETS_MAX} lines"));
    }
    let content = std::fs::read(path).map_err(|e| format!("cannot be read: {e}"))?;
    Secrets::from_file_content(&content).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(text: &str) -> Secrets {
        Secrets::from_file_content(text.as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn the_file_is_followed_and_what_does_not_read_changes_nothing() {
        let path = std::env::temp_dir().join(format!("ais-keyring-{:016x}", getrandom::u64().unwrap()));
        let (old, new) = ("an-older-secret-of-all", "a-newer-secret-of-all");
        std::fs::write(&path, old).unwrap();
        let keyring = Keyring::new(Some(read_secrets(&path).unwrap()), Some(path.clone()));
        keyring.follow(&runtime::Handle::current());
        let mut changes = keyring.changes();
        // Too short: kept as it was. The next look finds the good one.
        std::fs::write(&path, "short").unwrap();
        keyring.doubt();
        std::fs::write(&path, format!("{new}\n{old}\n")).unwrap();
        keyring.doubt();
        changes.wait_for(|ring| ring.secrets() == Some(&secrets(&format!("{new}\n{old}")))).await.unwrap();
        let ring = keyring.ring();
        assert!(ring.is_first(&Psk::from_secret(new.as_bytes())) && ring.psks().len() == 2);
        assert!(!format!("{keyring:?}").contains(new));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_that_others_may_read_or_write_is_told_of_and_a_mounted_secret_is_not() {
        let directory = std::env::temp_dir().join(format!("ais-exposed-{:016x}", getrandom::u64().unwrap()));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("secret");
        std::fs::write(&path, "a-secret-of-a-cluster").unwrap();
        let mut told = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            exposed(&path).is_some()
        };
        assert_eq!([0o600, 0o440, 0o640].map(&mut told), [false; 3]);
        assert_eq!([0o644, 0o604, 0o660, 0o666].map(&mut told), [true; 4]);
        std::fs::create_dir(directory.join("..data")).unwrap();
        assert_eq!([0o644, 0o440].map(&mut told), [false; 2], "as Kubernetes mounts it");
        assert!(told(0o666));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
