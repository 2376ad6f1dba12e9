//! Access gateways: their pods have no names, so they show the certificate of all, and clients verify their Service.

use ais_crds::AISClusterSpec;
use ais_operator::tls::required_hosts;

use super::*;

const HOST: &str = "demo-access.ns.svc.cluster.local";
const NAMES: [&str; 4] = ["demo-access", "demo-access.ns", "demo-access.ns.svc", HOST];

fn object(world: &World, kind: Kind, name: &str) -> Value {
    world.observed.live.get(&(kind, name.to_owned())).cloned().unwrap_or_default()
}

/// What pods of the voters are made from, and the policy over all pods.
fn the_others(world: &World) -> [Value; 3] {
    let template = |name| object(world, Kind::StatefulSet, name)["spec"]["template"].clone();
    [template("demo-gateway"), template("demo-target"), object(world, Kind::NetworkPolicy, "demo")["spec"].clone()]
}

fn names(server: &Server) -> Vec<String> {
    parse(&server.own.certs).unwrap()[0].names.iter().filter(|name| name.contains("access")).cloned().collect()
}

#[test]
fn they_are_made_alike_in_both_shapes() {
    let mut spec = self_managed();
    spec["image"] = json!("registry.example/aiscluster:1");
    spec["accessGateways"] = json!({"replicas": 2});
    let mut kept = Kept::settled(spec);
    let mut made = object(&kept.0, Kind::Deployment, "demo-access")["spec"].clone();
    // What the API server adds is not ours.
    made["template"]["spec"].as_object_mut().unwrap().remove("dnsPolicy");
    let text = serde_json::to_string_pretty(&made).unwrap();
    expect_test::expect_file!["../snapshots/access_tls.json"].assert_eq(&text);
    assert!(kept.step().writes.is_empty());

    kept.0.set_spec(json!({"accessGateways": {"replicas": null, "daemonSet": true}}));
    let before = kept.print();
    kept.step();
    assert_eq!(object(&kept.0, Kind::Deployment, "demo-access"), Value::Null);
    let mut set = object(&kept.0, Kind::DaemonSet, "demo-access")["spec"].clone();
    set["template"]["spec"].as_object_mut().unwrap().remove("dnsPolicy");
    assert_eq!(set["template"], made["template"]);
    assert_eq!(kept.print(), before, "the names are the same");
    assert_eq!(kept.pass().condition("CertificatesValid"), ("True".into(), "Valid".into()));
}

#[test]
fn asking_for_them_is_another_certificate_and_nobody_restarts() {
    let mut kept = Kept::settled(self_managed());
    let (others, first, authorities) = (the_others(&kept.0), kept.print(), prints(&kept.server().ca));
    assert!(names(&kept.server()).is_empty());
    let mut last = first;
    for (asked, held) in [(json!({"replicas": 1}), &NAMES[..]), (Value::Null, &[])] {
        kept.0.set_spec(json!({"accessGateways": asked}));
        let pass = kept.step();
        assert_eq!(applied(&pass).first().map(String::as_str), Some("Secret/demo-tls"), "{:?}", applied(&pass));
        assert_eq!(pass.events(), ["CertificateRotated"]);
        assert_eq!(pass.condition("CertificatesValid"), ("True".into(), "Valid".into()));
        let moved = |w: &Write| match w {
            Write::Apply(w) => w.key.0 == Kind::StatefulSet,
            Write::DeletePod { .. } => true,
            _ => false,
        };
        assert!(!pass.writes.iter().any(moved), "{:?}", applied(&pass));
        assert_eq!(names(&kept.server()), held);
        assert_eq!(prints(&kept.server().ca), authorities);
        assert_ne!(kept.print(), last);
        last = kept.print();
        kept.everybody_reads();
        for _ in 0..2 {
            kept.step();
        }
        let pass = kept.pass();
        assert!(pass.writes.is_empty() && kept.print() == last, "{:?}", pass.writes);
        assert_eq!(the_others(&kept.0), others);
    }
}

/// A cluster without them has the certificate that an operator of before made: it is not drawn anew after an upgrade.
#[test]
fn without_them_the_names_are_those_of_before() {
    let world = World::new(self_managed());
    let wanted: Vec<String> = wanted_names(&world.names(), &world.observed.cluster.spec).into_iter().collect();
    let before = [
        "*.demo-gateway.ns.svc",
        "*.demo-gateway.ns.svc.cluster.local",
        "*.demo-target.ns.svc",
        "*.demo-target.ns.svc.cluster.local",
        "demo",
        "demo-primary",
        "demo-primary.ns",
        "demo-primary.ns.svc",
        "demo-primary.ns.svc.cluster.local",
        "demo.ns",
        "demo.ns.svc",
        "demo.ns.svc.cluster.local",
        "localhost",
    ];
    assert_eq!(wanted, before);
}

#[test]
fn a_users_certificate_must_name_their_service_if_there_are_any() {
    let mine = || json!({"tls": {"mode": "SecretRef", "secretRef": {"name": "mine"}}});
    let mut world = World::new(mine());
    let without = good(&world, 90);
    world.observed.tls = without.clone();
    world.step();
    world.start_pods();
    world.lead("demo-gateway-0", 1);
    for _ in 0..4 {
        world.step();
    }
    assert_eq!(world.pass().condition("CertificatesValid"), ("True".into(), "Valid".into()));
    let others = the_others(&world);
    world.set_spec(json!({"accessGateways": {"replicas": 1}}));
    let pass = world.step();
    assert_eq!(pass.condition("CertificatesValid"), ("False".into(), "NamesMissing".into()));
    assert!(pass.message("CertificatesValid").contains(HOST), "{}", pass.message("CertificatesValid"));
    assert_eq!(pass.condition("Ready").0, "True", "the others serve as before");
    assert_eq!(the_others(&world), others);
    assert!(!pass.writes.iter().any(|w| matches!(w, Write::DeletePod { .. })));
    world.observed.tls = good(&world, 90);
    world.step();
    assert_eq!(world.pass().condition("CertificatesValid"), ("True".into(), "Valid".into()));

    // Before there is a pod it is refused, as every certificate that will not do.
    let mut spec = mine();
    spec["accessGateways"] = json!({"daemonSet": true});
    let mut world = World::new(spec);
    world.observed.tls = without;
    let why = validate(&world.observed).unwrap_err();
    assert!(why.reason == "NamesMissing" && why.message.contains(HOST), "{why:?}");
    assert!(required_hosts(&world.observed).contains(&HOST.to_owned()));
}

/// Nobody asks them what they have read: an authority that everybody else has left goes some minutes later.
#[test]
fn an_old_authority_stays_until_their_kubelets_have_had_the_time() {
    let unhurried = |spec: Value| {
        let mut kept = Kept::settled(spec);
        for name in ["demo-ca", "demo-tls"] {
            kept.0.observed.live.remove(&(Kind::Secret, name.to_owned()));
        }
        kept.step();
        kept.everybody_reads();
        kept.step();
        kept
    };
    assert_eq!(prints(&unhurried(self_managed()).server().ca).len(), 1);
    let mut spec = self_managed();
    spec["accessGateways"] = json!({"replicas": 1});
    let mut kept = unhurried(spec);
    for (seconds, authorities) in [(0, 2), (290, 2), (20, 1)] {
        kept.0.after(seconds);
        kept.step();
        assert_eq!(prints(&kept.server().ca).len(), authorities, "{seconds} s later");
    }
    // Lives of minutes, as tests have them, do not wait for longer than the certificate lives.
    let names = kept.0.names();
    let now = kept.0.observed.now;
    let (old, new) = (authority(&names, now, 300).unwrap(), authority(&names, now, 360).unwrap());
    let spec: AISClusterSpec = kept.0.observed.cluster.spec.clone();
    let wanted = wanted_names(&names, &spec);
    let own = parse(&certificate(&new, &wanted, now, 120).unwrap().certs).unwrap().remove(0);
    let authorities = parse(&format!("{}{}", new.certs, old.certs)).unwrap();
    let (pods, reports) = (Vec::new(), BTreeMap::new());
    let readers = Readers::of(&pods, &reports, &spec);
    let lives = Lifetimes::new(120, 360).unwrap();
    let forgets = |seconds: i64| {
        let then = now + jiff::SignedDuration::from_secs(seconds);
        let due = ais_operator::tls::due(then, lives, &wanted, &authorities, Some(&own), &readers);
        assert!(!due.certificate && !due.authority, "{due:?}");
        due.forget
    };
    assert!(!forgets(20) && forgets(40));
}
