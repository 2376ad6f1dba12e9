//! Certificates and the member secret: what is made, what is renewed when, and what is refused.
#![allow(clippy::unwrap_used)]

#[path = "tls/access.rs"]
mod access;
mod common;

use std::collections::BTreeMap;

use ais_meta::auth::{Secret, Secrets};
use ais_operator::apply::Write;
use ais_operator::facts::{Kind, SecretFact, Step};
use ais_operator::tls::issue::{authority, certificate, renewed};
use ais_operator::tls::{Lifetimes, Pair, Readers, Server, TlsFacts, content, parse, prints, trust, wanted_names};
use ais_operator::validate::validate;
use ais_operator::view::TlsView;
use common::{Pass, World};
use serde_json::{Value, json};

const DAY: i64 = 24 * 3600;

/// A world whose Secrets are read as the operator reads them.
struct Kept(World);

fn self_managed() -> Value {
    json!({"tls": {"mode": "SelfManaged"}})
}

impl Kept {
    fn settled(spec: Value) -> Self {
        let mut kept = Self(World::new(spec));
        kept.step();
        kept.0.start_pods();
        kept.0.lead("demo-gateway-0", 1);
        kept.everybody_reads();
        for _ in 0..4 {
            kept.step();
        }
        kept
    }

    fn read(&mut self) {
        let observed = &mut self.0.observed;
        let names = observed.names();
        let found = content::own(&names, &observed.live);
        let readers = Readers::of(&observed.pods, &observed.reports, &observed.cluster.spec);
        observed.tls =
            renewed(found, &names, &observed.cluster, observed.now, observed.defaults.lifetimes, &readers).unwrap();
        if let Some(live) = observed.live.get(&(Kind::Secret, "demo-secret".to_owned())) {
            let bytes: k8s_openapi::ByteString = serde_json::from_value(live["data"]["secret"].clone()).unwrap();
            let note = |key: &str| live["metadata"]["annotations"][key].as_str().unwrap_or_default().to_owned();
            observed.secret = SecretFact {
                content: String::from_utf8(bytes.0).unwrap(),
                request: note("aiscluster.dev/rotation"),
                step: Step::parse(&note("aiscluster.dev/rotation-step")),
            };
        }
    }

    fn pass(&mut self) -> Pass {
        self.read();
        self.0.pass()
    }

    fn step(&mut self) -> Pass {
        self.read();
        self.0.step()
    }

    /// Nodes read what is in the Secrets now.
    fn everybody_reads(&mut self) {
        let pods: Vec<String> = self.0.observed.pods.iter().map(|p| p.name.clone()).collect();
        pods.iter().for_each(|pod| self.reads(pod));
    }

    fn reads(&mut self, pod: &str) {
        self.read();
        let found = content::own(&self.0.names(), &self.0.observed.live).server;
        let tls = found.map(|server| TlsView {
            certificate: Some(parse(&server.own.certs).unwrap()[0].print.clone()),
            authorities: prints(&server.ca),
            problem: None,
        });
        let secrets = digests(&self.0.observed.secret.content);
        let view = self.0.view(pod);
        (view.credentials.tls, view.credentials.secrets) = (tls, secrets);
    }

    fn server(&self) -> Server {
        content::own(&self.0.names(), &self.0.observed.live).server.unwrap()
    }

    fn print(&self) -> String {
        parse(&self.server().own.certs).unwrap()[0].print.clone()
    }
}

fn digests(content: &str) -> Vec<String> {
    Secrets::from_file_content(content.as_bytes()).unwrap().iter().map(Secret::digest).collect()
}

fn applied(pass: &Pass) -> Vec<String> {
    let name = |w: &Write| match w {
        Write::Apply(w) => Some(format!("{:?}/{}", w.key.0, w.key.1)),
        _ => None,
    };
    pass.writes.iter().filter_map(name).collect()
}

#[test]
fn self_managed_makes_everything_that_nodes_and_clients_need_and_then_rests() {
    let mut kept = Kept(World::new(self_managed()));
    let first = kept.step();
    for made in ["Secret/demo-ca", "Secret/demo-tls", "ConfigMap/demo-ca", "StatefulSet/demo-gateway"] {
        assert!(applied(&first).iter().any(|name| name == made), "{made}: {:?}", applied(&first));
    }
    assert!(first.events().contains(&"CertificateIssued"), "{:?}", first.events());
    assert_eq!(first.status.endpoint.as_deref(), Some("https://demo.ns.svc.cluster.local:51080"));
    let live = &kept.0.observed.live;
    let pod = &live[&(Kind::StatefulSet, "demo-gateway".to_owned())]["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["scheme"], "HTTPS", "{probe}");
    }
    let text = pod.to_string();
    assert!(text.contains("AIS_TLS_CERT_FILE") && text.contains("\"secretName\":\"demo-tls\""), "{text}");
    assert!(!text.contains("demo-ca"), "the authority's key never reaches a pod");
    let published = &live[&(Kind::ConfigMap, "demo-ca".to_owned())]["data"];
    assert!(published["ca.crt"].as_str().unwrap().contains("BEGIN CERTIFICATE") && published["ca.key"].is_null());

    let mut kept = Kept::settled(self_managed());
    for seconds in [0, 20, DAY] {
        kept.0.after(seconds);
        let pass = kept.pass();
        assert!(pass.writes.is_empty() && pass.events().is_empty(), "{:?}", pass.writes);
        assert_eq!(pass.condition("CertificatesValid"), ("True".into(), "Valid".into()));
    }
}

#[test]
fn a_cluster_without_tls_has_none_of_it() {
    let world = World::settled(json!({}));
    assert_eq!(world.pass().condition("CertificatesValid"), ("True".into(), "NotUsed".into()));
    let text = serde_json::to_string(&world.observed.live.values().collect::<Vec<_>>()).unwrap();
    assert!(!text.contains("TLS") && !text.contains("HTTPS") && !text.contains("https"), "{text}");
}

#[test]
fn a_certificate_is_renewed_once_when_two_thirds_of_its_life_are_over() {
    let mut kept = Kept::settled(self_managed());
    let first = kept.print();
    kept.0.after(59 * DAY);
    assert!(kept.step().writes.is_empty());
    kept.0.after(2 * DAY);
    let pass = kept.step();
    assert_eq!(applied(&pass), ["Secret/demo-tls"]);
    assert_eq!(pass.events(), ["CertificateRotated"]);
    assert_ne!(kept.print(), first);
    // The kubelets are told once, and nothing moves until the nodes have read it.
    assert_eq!(pass.writes.len(), 6, "{:?}", pass.writes);
    assert!(kept.step().writes.is_empty());
    kept.everybody_reads();
    assert!(kept.step().writes.is_empty());
    // Further names are another certificate.
    kept.0.set_spec(json!({"tls": {"names": ["ais.example.com", "192.0.2.7"]}}));
    kept.step();
    let own = &parse(&kept.server().own.certs).unwrap()[0];
    assert!(own.names.contains("ais.example.com") && own.names.contains("192.0.2.7"));
    kept.everybody_reads();
    kept.step();
    assert!(kept.step().writes.is_empty());
}

#[test]
fn an_authority_changes_in_three_steps_that_wait_for_the_nodes() {
    let mut kept = Kept::settled(self_managed());
    kept.0.observed.defaults.lifetimes = Lifetimes::default();
    let (old, first) = (prints(&kept.server().ca), kept.print());
    // Authorities change after two thirds of ten years; certificates in between do not.
    for _ in 0..41 {
        kept.0.after(60 * DAY);
        kept.step();
        kept.everybody_reads();
    }
    let overlap = Lifetimes::default().overlap_s();
    let before = kept.print();
    assert!(before != first && prints(&kept.server().ca).len() == 2, "both are trusted");
    // One node has not read it: nobody shows a certificate of the new one.
    kept.0.view("demo-target-1").credentials.tls.as_mut().unwrap().authorities.clone_from(&old);
    kept.0.after(overlap + 1);
    kept.step();
    assert_eq!(kept.print(), before);
    kept.everybody_reads();
    kept.step();
    assert_ne!(kept.print(), before);
    assert_eq!(prints(&kept.server().ca).len(), 2, "a node may still show the old one");
    kept.everybody_reads();
    kept.step();
    let now = prints(&kept.server().ca);
    assert!(now.len() == 1 && now != old);
    kept.everybody_reads();
    kept.step();
    assert!(kept.step().writes.is_empty());
}

#[test]
fn a_lost_authority_is_replaced_without_a_gap() {
    let mut kept = Kept::settled(self_managed());
    let (old, before) = (prints(&kept.server().ca), kept.print());
    kept.0.observed.live.remove(&(Kind::Secret, "demo-ca".to_owned()));
    kept.step();
    let both = prints(&kept.server().ca);
    assert!(both.len() == 2 && both.contains(&old[0]) && kept.print() == before);
    // A lost certificate is made at once: pods that start need one.
    kept.0.observed.live.remove(&(Kind::Secret, "demo-tls".to_owned()));
    kept.step();
    assert_ne!(kept.print(), before);
}

#[test]
fn with_both_secrets_lost_what_was_published_is_still_trusted() {
    let mut kept = Kept::settled(self_managed());
    let old = prints(&kept.server().ca);
    for name in ["demo-ca", "demo-tls"] {
        kept.0.observed.live.remove(&(Kind::Secret, name.to_owned()));
    }
    kept.step();
    let both = prints(&kept.server().ca);
    assert!(both.len() == 2 && both.contains(&old[0]), "{both:?}");
    kept.everybody_reads();
    kept.step();
    assert!(!prints(&kept.server().ca).contains(&old[0]), "it leaves when everybody shows the new one");
}

#[test]
fn a_clock_that_went_back_makes_certificates_that_hold_now() {
    let mut kept = Kept::settled(self_managed());
    let (old, before) = (prints(&kept.server().ca), kept.print());
    kept.0.observed.now -= jiff::SignedDuration::from_hours(24 * 30);
    assert_eq!(kept.0.pass().condition("CertificatesValid").1, "NotYetValid");
    for _ in 0..3 {
        kept.step();
        kept.everybody_reads();
    }
    assert_eq!(kept.0.pass().condition("CertificatesValid"), ("True".into(), "Valid".into()));
    let now = prints(&kept.server().ca);
    assert!(kept.print() != before && now.len() == 1 && now != old);
    kept.step();
    assert!(kept.step().writes.is_empty());
}

#[test]
fn a_certificate_ends_no_later_than_its_authority() {
    let world = World::new(json!({}));
    let (names, now) = (world.names(), world.observed.now);
    let signer = authority(&names, now, 100).unwrap();
    let own = certificate(&signer, &["a".to_owned()].into(), now, 90 * DAY).unwrap();
    assert_eq!(parse(&own.certs).unwrap()[0].not_after_s, parse(&signer.certs).unwrap()[0].not_after_s);
}

#[test]
fn an_address_is_one_name_however_it_is_spelt() {
    let mut kept =
        Kept::settled(json!({"tls": {"mode": "SelfManaged", "names": ["2001:DB8:0:0::7", "Ais.example.com"]}}));
    assert!(parse(&kept.server().own.certs).unwrap()[0].names.contains("2001:db8::7"));
    assert!(kept.step().writes.is_empty());
}

#[test]
fn names_are_within_their_limits_in_the_longest_cluster() {
    let mut world = World::new(json!({"accessGateways": {"replicas": 1}}));
    world.observed.cluster.metadata.name = Some("n".repeat(40));
    world.observed.cluster.metadata.namespace = Some("s".repeat(63));
    let signer = authority(&world.names(), world.observed.now, DAY).unwrap();
    let wanted = wanted_names(&world.names(), &world.observed.cluster.spec);
    let own = certificate(&signer, &wanted, world.observed.now, DAY).unwrap();
    assert!(wanted.iter().all(|name| name.len() <= 253 && name.split('.').all(|label| label.len() <= 63)));
    let server = Server { own, ca: signer.certs };
    let hosts = ais_operator::tls::required_hosts(&world.observed);
    let checked = ais_operator::tls::check(&server, &hosts, world.observed.now);
    assert!(checked.is_ok(), "{checked:?}");
    // The standard allows 64 characters of a common name.
    let ders = x509_parser::pem::Pem::iter_from_buffer(server.ca.as_bytes());
    for pem in ders {
        let pem = pem.unwrap();
        let subject =
            pem.parse_x509().unwrap().subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned();
        assert_eq!(subject.len(), 64, "{subject}");
    }
}

#[test]
fn a_users_secret_that_goes_away_leaves_everything_as_it_is() {
    let mut world = World::new(json!({"tls": {"mode": "SecretRef", "secretRef": {"name": "mine"}}}));
    world.observed.tls = good(&world, 90);
    world.step();
    world.start_pods();
    world.lead("demo-gateway-0", 1);
    let ca = world.observed.tls.server.clone().unwrap().ca;
    for _ in 0..4 {
        world.step();
    }
    let published = content::published(&world.names(), &world.observed.live);
    assert_eq!(published.as_ref(), Some(&ca));
    let mut unreadable = good(&world, 90);
    unreadable.server.as_mut().unwrap().ca = "none".to_owned();
    for gone in [content::users("mine", None), unreadable] {
        let gone = TlsFacts { published: published.clone(), ..gone };
        // Nodes have read it: the operator goes on verifying them by it, and clients go on finding it.
        assert_eq!(trust(&gone), ca);
        world.observed.tls = gone;
        let pass = world.pass();
        assert_eq!(pass.condition("CertificatesValid").0, "False");
        assert!(pass.writes.is_empty(), "{:?}", pass.writes);
    }
}

#[test]
fn a_key_beside_the_authorities_is_never_published() {
    let mut world = World::new(json!({"tls": {"mode": "SecretRef", "secretRef": {"name": "mine"}}}));
    let mut facts = good(&world, 90);
    let server = facts.server.as_mut().unwrap();
    server.ca = format!("{}{}", server.own.key, server.ca);
    world.observed.tls = facts;
    world.step();
    let live = &world.observed.live[&(Kind::ConfigMap, "demo-ca".to_owned())];
    assert!(live.to_string().contains("BEGIN CERTIFICATE") && !live.to_string().contains("PRIVATE"), "{live}");
}

#[test]
fn running_again_before_the_old_pods_ended_ends_them_first() {
    let mut world = World::settled(json!({}));
    // The mode was changed while the cluster was on its way to its end, and Running came at once.
    world.set_spec(json!({"tls": {"mode": "SelfManaged"}}));
    let mut kept = Kept(world);
    let pods: Vec<String> = kept.0.observed.pods.iter().map(|pod| pod.name.clone()).collect();
    pods.iter().for_each(|pod| kept.0.lose(pod));
    for (seconds, replicas) in [(0, 3), (31, 0)] {
        kept.0.after(seconds);
        kept.step();
        kept.step();
        let set = &kept.0.observed.live[&(Kind::StatefulSet, "demo-gateway".to_owned())];
        assert_eq!(set["spec"]["replicas"], replicas, "after {seconds} s");
        let pass = kept.0.pass();
        assert!(pass.message("Progressing").contains("before spec.tls changed"), "{}", pass.message("Progressing"));
    }
    kept.0.observed.pods.clear();
    kept.step();
    kept.step();
    let set = &kept.0.observed.live[&(Kind::StatefulSet, "demo-gateway".to_owned())];
    assert_eq!(set["spec"]["replicas"], 3);
    kept.0.start_pods();
    assert!(kept.0.observed.pods.iter().all(|pod| pod.tls_secret.as_deref() == Some("demo-tls")));
}

#[test]
fn monitors_scrape_by_tls_and_verify() {
    let mut kept = Kept(World::new(json!({"tls": {"mode": "SelfManaged"}, "monitoring": {"podMonitor": true}})));
    kept.0.observed.pod_monitors = true;
    kept.step();
    let endpoint = &kept.0.observed.live[&(Kind::PodMonitor, "demo".to_owned())]["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["scheme"], "https");
    assert_eq!(endpoint["tlsConfig"]["ca"]["configMap"], json!({"name": "demo-ca", "key": "ca.crt"}));
    let name = endpoint["tlsConfig"]["serverName"].as_str().unwrap().to_owned();
    assert!(ais_operator::tls::required_hosts(&kept.0.observed).contains(&name), "every certificate has it: {name}");
    assert!(endpoint["tlsConfig"]["insecureSkipVerify"].is_null());
}

#[test]
fn nothing_is_drawn_while_paused() {
    let mut kept = Kept::settled(self_managed());
    kept.0.set_spec(json!({"paused": true}));
    kept.0.after(200 * DAY);
    let pass = kept.pass();
    assert!(pass.events().is_empty());
    assert_eq!(pass.condition("CertificatesValid"), ("False".into(), "CertificateExpired".into()));
}

/// A user's Secret, and the reason that is given for it.
fn judged(make: impl FnOnce(&World) -> TlsFacts, started: bool) -> (String, String) {
    let mut world = World::new(json!({"tls": {"mode": "SecretRef", "secretRef": {"name": "mine"}}}));
    if started {
        world.observed.tls = good(&world, 90);
        world.step();
    }
    world.observed.tls = make(&world);
    match validate(&world.observed) {
        Ok(_) => world.pass().condition("CertificatesValid"),
        Err(why) => ("refused".into(), why.reason.into()),
    }
}

fn signed(world: &World, ca: &Pair, names: &[&str], days: i64) -> TlsFacts {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let own = certificate(ca, &names, world.observed.now, days * DAY).unwrap();
    TlsFacts { server: Some(Server { own, ca: ca.certs.clone() }), ..TlsFacts::default() }
}

fn mine(world: &World) -> Pair {
    authority(&world.names(), world.observed.now, 1000 * DAY).unwrap()
}

fn good(world: &World, days: i64) -> TlsFacts {
    let names = wanted_names(&world.names(), &world.observed.cluster.spec);
    signed(world, &mine(world), &names.iter().map(String::as_str).collect::<Vec<_>>(), days)
}

#[test]
fn a_users_certificate_is_refused_before_anything_runs_and_reported_afterwards() {
    let pods_only = ["*.demo-gateway.ns.svc.cluster.local", "*.demo-target.ns.svc.cluster.local"];
    let edit = |world: &World, edit: fn(&mut Server)| {
        let mut facts = good(world, 90);
        edit(facts.server.as_mut().unwrap());
        facts
    };
    type Make<'a> = Box<dyn Fn(&World) -> TlsFacts + 'a>;
    let table: Vec<(&str, Make<'_>)> = vec![
        ("SecretMissing", Box::new(|_| content::users("mine", None))),
        ("SecretIncomplete", Box::new(|_| content::users("mine", Some(Default::default())))),
        ("CertificateUnreadable", Box::new(|w| edit(w, |s| s.own.certs = "no certificate".into()))),
        (
            "KeyMismatch",
            Box::new(|w| TlsFacts {
                server: good(w, 90).server.map(|s| Server { own: Pair { key: mine(w).key, ..s.own }, ..s }),
                ..TlsFacts::default()
            }),
        ),
        ("NamesMissing", Box::new(|w| signed(w, &mine(w), &pods_only, 90))),
        (
            "UnknownIssuer",
            Box::new(|w| TlsFacts {
                server: good(w, 90).server.map(|s| Server { ca: mine(w).certs, ..s }),
                ..TlsFacts::default()
            }),
        ),
    ];
    for (reason, make) in &table {
        assert_eq!(judged(make, false), ("refused".into(), (*reason).into()));
        assert_eq!(judged(make, true), ("False".into(), (*reason).into()));
    }
    assert_eq!(judged(|w| good(w, 90), false), ("True".into(), "Valid".into()));
}

#[test]
fn time_runs_out_for_a_users_certificate() {
    let mut world = World::new(json!({"tls": {"mode": "SecretRef", "secretRef": {"name": "mine"}}}));
    world.observed.tls = good(&world, 90);
    world.step();
    let mut seen = BTreeMap::new();
    for day in [0, 60, 66, 69, 91] {
        world.observed.now = "2026-01-01T00:00:00Z".parse().unwrap();
        let pass = world.after(day * DAY).pass();
        seen.insert(day, pass.condition("CertificatesValid").1);
    }
    let expected = [(0, "Valid"), (60, "Valid"), (66, "Valid"), (69, "ExpiringSoon"), (91, "CertificateExpired")];
    assert_eq!(seen, expected.into_iter().map(|(day, reason)| (day, reason.to_owned())).collect());
    world.observed.now = "2025-12-01T00:00:00Z".parse().unwrap();
    assert_eq!(world.pass().condition("CertificatesValid").1, "NotYetValid");
    // A quarter of ten years is not soon.
    world.observed.now = "2026-01-01T00:00:00Z".parse().unwrap();
    let ca = authority(&world.names(), world.observed.now, 4000 * DAY).unwrap();
    let names = wanted_names(&world.names(), &world.observed.cluster.spec);
    world.observed.tls = signed(&world, &ca, &names.iter().map(String::as_str).collect::<Vec<_>>(), 3650);
    assert_eq!(world.after(3600 * DAY).pass().condition("CertificatesValid").1, "Valid");
    assert_eq!(world.after(25 * DAY).pass().condition("CertificatesValid").1, "ExpiringSoon");
}

#[test]
fn a_node_that_complains_of_its_certificate_is_named() {
    let mut kept = Kept::settled(self_managed());
    let view = kept.0.view("demo-gateway-1");
    view.credentials.tls.as_mut().unwrap().problem = Some("the certificate does not name it".into());
    let pass = kept.pass();
    assert_eq!(pass.condition("CertificatesValid"), ("False".into(), "NotAccepted".into()));
    assert!(pass.message("CertificatesValid").contains("demo-gateway-1"));
}

#[test]
fn a_secret_is_rotated_in_steps_that_wait_for_every_node() {
    let mut kept = Kept::settled(json!({}));
    let old = kept.0.observed.secret.content.clone();
    kept.0.set_spec(json!({"auth": {"memberSecretRotation": "march"}}));
    let pass = kept.step();
    assert_eq!(pass.events(), ["SecretRotationStarted"]);
    kept.read();
    let new = kept.0.observed.fresh_secret.clone();
    assert_eq!(kept.0.observed.secret.content, format!("{old}\n{new}"));
    assert_eq!(kept.step().condition("Progressing"), ("True".into(), "RotatingSecret".into()));
    // All but one have read it; another operator, which knows nothing, waits as well.
    kept.everybody_reads();
    kept.0.view("demo-target-0").credentials.secrets = digests(&old);
    for _ in 0..3 {
        kept.step();
    }
    kept.read();
    assert_eq!(kept.0.observed.secret.content, format!("{old}\n{new}"));
    assert!(kept.step().message("Progressing").contains("demo-target-0"));
    for expected in [format!("{new}\n{old}"), new.clone()] {
        kept.everybody_reads();
        kept.step();
        kept.read();
        assert_eq!(kept.0.observed.secret.content, expected);
        // Nobody has read this one yet.
        kept.step();
        kept.read();
        assert_eq!(kept.0.observed.secret.content, expected);
    }
    kept.everybody_reads();
    kept.step();
    let rest = kept.step();
    assert!(rest.writes.is_empty() && rest.events().is_empty(), "{:?}", rest.writes);
    assert_eq!(rest.condition("Progressing").0, "False");
}

#[test]
fn a_node_that_does_not_answer_holds_a_rotation_and_a_new_request_waits_for_its_end() {
    let mut kept = Kept::settled(json!({}));
    let old = kept.0.observed.secret.content.clone();
    kept.0.set_spec(json!({"auth": {"memberSecretRotation": "one"}}));
    kept.step();
    kept.everybody_reads();
    kept.0.lose("demo-gateway-2");
    kept.0.set_spec(json!({"auth": {"memberSecretRotation": "two"}}));
    for _ in 0..3 {
        kept.step();
    }
    kept.read();
    assert!(kept.0.observed.secret.content.starts_with(&format!("{old}\n")));
    assert_eq!((kept.0.observed.secret.request.as_str(), kept.0.observed.secret.step), ("one", Step::Add));
}
