//! The member secret: stored by the operator, handed to pods by kubelets one after the other, read by nodes.

use ais_meta::auth::{Secret as Line, Secrets};
use ais_operator::apply::Write;
use ais_operator::desired::SECRET_KEY;
use ais_operator::facts::{Kind, SecretFact, Step};
use ais_operator::names::{ANNOTATION_ROTATION, ANNOTATION_ROTATION_STEP};
use ais_operator::view::Credentials;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::Model;

impl Model {
    /// Every pass draws another one, in case it is the one to begin a rotation.
    pub(super) fn draw(&mut self) {
        self.world.observed.fresh_secret = format!("{:0>40}", self.world.observed.now.as_second());
    }

    /// As `observe.rs` reads it again.
    pub(super) fn store(&mut self, write: &Write) {
        let Write::Apply(wanted) = write else { return };
        if wanted.key.0 != Kind::Secret {
            return;
        }
        let secret: Secret = serde_json::from_value(self.world.observed.live[&wanted.key].clone()).unwrap();
        let mut annotations = secret.metadata.annotations.unwrap_or_default();
        self.world.observed.secret = SecretFact {
            content: String::from_utf8(secret.data.unwrap().remove(SECRET_KEY).unwrap().0).unwrap(),
            request: annotations.remove(ANNOTATION_ROTATION).unwrap_or_default(),
            step: Step::parse(&annotations.remove(ANNOTATION_ROTATION_STEP).unwrap_or_default()),
        };
    }

    /// A node reads it when it starts; of those that run, one a turn gets the newest. True if nobody did.
    pub(super) fn read_secret(&mut self) -> bool {
        let observed = &self.world.observed;
        let content = &observed.secret.content;
        for pod in observed.pods.iter().filter(|p| p.running) {
            self.secrets.entry(pod.uid.clone()).or_insert_with(|| content.clone());
        }
        let late = observed.pods.iter().find(|p| p.running && self.secrets[&p.uid] != *content);
        late.map(|pod| self.secrets.insert(pod.uid.clone(), content.clone())).is_none()
    }

    fn read_by(&self, node: &str) -> Option<&String> {
        self.secrets.get(&self.world.observed.pod(node)?.uid)
    }

    pub(super) fn credentials(&self, node: &str) -> Credentials {
        let secrets = self.read_by(node).and_then(|content| Secrets::from_file_content(content.as_bytes()).ok());
        Credentials { secrets: secrets.iter().flat_map(Secrets::iter).map(Line::digest).collect(), tls: None }
    }

    /// Whatever a member or the operator signs with, every node accepts.
    pub(super) fn understand_each_other(&self) {
        let observed = &self.world.observed;
        let all: Vec<&String> = observed.pods.iter().filter_map(|p| self.read_by(&p.name)).collect();
        let signing =
            all.iter().copied().chain([&observed.secret.content]).filter_map(|content| content.lines().next());
        for line in signing {
            let deaf = all.iter().filter(|content| !content.lines().any(|known| known == line)).count();
            assert!(deaf == 0, "{deaf} nodes do not accept {line}: {}", self.describe());
        }
    }

    /// What came of it: which random text it is does not count.
    pub(super) fn secret(&self) -> Value {
        let SecretFact { content, request, step } = &self.world.observed.secret;
        let known = self.world.observed.pods.iter().all(|p| self.read_by(&p.name) == Some(content));
        json!({"lines": content.lines().count(), "request": request, "step": step.as_str(), "known": known})
    }
}
