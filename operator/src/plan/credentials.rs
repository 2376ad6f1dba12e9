//! Rotation of the member secret, and who has not read the newest secret or certificate yet. Pure.
//!
//! A rotation is three contents of the Secret, `old, new`, then `new, old`, then `new`: the first line signs, every line
//! is accepted. Each waits until every node says that it has read the one before, so no call ever meets a node that
//! does not accept it. Request and step stand in annotations of the Secret itself: the operator may end at any time.

use ais_meta::auth::{Secret, Secrets};

use crate::events::Note;
use crate::facts::{Observed, PodFact, SecretFact, Step};
use crate::view::Credentials;

/// What is decided of the secret, and whom to make read files now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialsPlan {
    /// The Secret as it shall be.
    pub secret: SecretFact,
    /// Pods whose node has not read the newest secret or certificate, and the digest of what it shall read.
    pub behind: Vec<String>,
    /// Digest of the newest secret and certificate.
    pub digest: String,
    /// What the rotation waits for; empty when there is none.
    pub rotating: Option<String>,
    /// Events.
    pub notes: Vec<Note>,
}

/// Digests of the secrets of a file's content, as the nodes show them.
fn digests(content: &str) -> Vec<String> {
    Secrets::from_file_content(content.as_bytes()).map(|s| s.iter().map(Secret::digest).collect()).unwrap_or_default()
}

fn view<'a>(observed: &'a Observed, pod: &str) -> Option<&'a Credentials> {
    Some(&observed.reports.get(pod)?.view()?.credentials)
}

/// Decides.
#[must_use]
pub fn decide(observed: &Observed) -> CredentialsPlan {
    let (secret, mut notes) = rotation(observed);
    if !observed.tls.issued.is_empty() {
        let reason = if observed.sets.is_empty() { "CertificateIssued" } else { "CertificateRotated" };
        notes.push(Note::normal(reason, "RotateCertificate", observed.tls.issued.join(", ")));
    }
    let wanted = digests(&secret.content);
    let late = behind(observed, |said| said.secrets != wanted);
    let rotating = (secret.step != Step::Done).then(|| match late.as_slice() {
        [] => "the next step follows".to_owned(),
        pods => format!("waiting until they have read it: {}", pods.join(", ")),
    });
    let tls = crate::tls::checked(observed).ok().zip(observed.tls.server.as_ref());
    let tls = tls.map(|(own, server)| (own.print, crate::tls::prints(&server.ca)));
    let digest = crate::desired::digest(&serde_json::json!([wanted, tls]));
    // Files are read sooner or later anyway; a node that does not answer reads them when it starts.
    let old = |said: &Credentials| {
        let has = said.tls.as_ref().map(|t| (t.certificate.clone().unwrap_or_default(), t.authorities.clone()));
        (secret.step != Step::Done && said.secrets != wanted) || (tls.is_some() && has.is_some() && has != tls)
    };
    let told = |pod: &&PodFact| pod.credentials.as_deref() == Some(digest.as_str());
    let stale = observed.pods.iter().filter(|p| !p.deleting && view(observed, &p.name).is_some_and(&old));
    let behind = stale.filter(|p| !told(p)).map(|p| p.name.clone()).collect();
    CredentialsPlan { secret, behind, digest, rotating, notes }
}

/// Pods of which the node does not answer, or says what `late` does not like.
fn behind(observed: &Observed, late: impl Fn(&Credentials) -> bool) -> Vec<String> {
    let stays = observed.pods.iter().filter(|p| !p.deleting);
    stays.filter(|p| view(observed, &p.name).is_none_or(&late)).map(|p| p.name.clone()).collect()
}

fn rotation(observed: &Observed) -> (SecretFact, Vec<Note>) {
    let now = &observed.secret;
    let asked = &observed.cluster.spec.auth.member_secret_rotation;
    let wanted = digests(&now.content);
    let read = || behind(observed, |said| said.secrets != wanted).is_empty();
    let lines: Vec<&str> = now.content.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let content = |lines: &[&str]| lines.join("\n");
    let step = |content: String, step| SecretFact { content, step, ..now.clone() };
    match (now.step, lines.as_slice()) {
        (Step::Done, [current, ..]) if !asked.is_empty() && now.request != *asked => {
            let secret = SecretFact {
                content: content(&[current, &observed.fresh_secret]),
                request: asked.clone(),
                step: Step::Add,
            };
            let message = format!("a new member secret is handed out (request {asked})");
            (secret, vec![Note::normal("SecretRotationStarted", "RotateSecret", message)])
        }
        (Step::Add, [old, new]) if read() => (step(content(&[new, old]), Step::Sign), Vec::new()),
        (Step::Sign, [new, _]) if read() => {
            let message = format!("every node signs with the new member secret; the old one is void (request {asked})");
            (step(content(&[new]), Step::Done), vec![Note::normal("SecretRotated", "RotateSecret", message)])
        }
        // Somebody edited the Secret by hand: what is there counts, and there is nothing left to do.
        (Step::Add | Step::Sign, [_] | []) => (step(now.content.clone(), Step::Done), Vec::new()),
        _ => (now.clone(), Vec::new()),
    }
}
