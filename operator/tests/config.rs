//! `spec.config`: checked, set at the primary, read back, kept, reset.
#![allow(clippy::unwrap_used)]

mod common;

use ais_operator::plan::config::{ConfigCall, ConfigOutcome};
use common::{Pass, World};
use serde_json::json;

const PODS: [&str; 5] = ["demo-gateway-0", "demo-gateway-1", "demo-gateway-2", "demo-target-0", "demo-target-1"];

fn verdict(pass: &Pass) -> (String, String) {
    pass.condition("ConfigValid")
}

fn is(pass: &Pass, status: &str, reason: &str) {
    assert_eq!(verdict(pass), (status.into(), reason.into()), "{}", pass.message("ConfigValid"));
}

/// The primary commits a setting; everybody publishes it.
fn commit(world: &mut World, name: &str, value: &str) {
    for pod in PODS {
        let view = world.view(pod);
        view.settings.as_mut().unwrap().insert(name.into(), value.into());
        view.config_version += 1;
    }
}

/// What the controller remembers of a call.
fn called(world: &mut World, outcome: Option<ConfigOutcome>) {
    let call = world.pass().plan.config.call.unwrap();
    world.observed.config_call = Some(ConfigCall { of: call.of, at: world.observed.now, outcome });
}

fn set(pass: &Pass) -> Vec<(String, String)> {
    pass.plan.config.call.iter().flat_map(|call| call.set.clone()).collect()
}

#[test]
fn nothing_asked_is_valid() {
    is(&World::settled(json!({})).pass(), "True", "NoOverlay");
}

#[test]
fn it_is_set_remembered_read_back_and_reset() {
    let mut world = World::settled(json!({}));
    world.set_spec(json!({"config": {"mirror": {"copies": 3}, "log.level": "debug", "versioning.enabled": true}}));
    let pass = world.step();
    is(&pass, "True", "Pending");
    // What is so already, by default, is not sent. All are remembered before the call.
    assert_eq!(set(&pass), [("log.level".into(), "debug".into()), ("mirror.copies".into(), "3".into())]);
    assert_eq!(pass.status.config.keys, ["log.level", "mirror.copies", "versioning.enabled"]);
    called(&mut world, None);
    assert_eq!(set(&world.pass()), [], "one call at a time");
    commit(&mut world, "log.level", "debug");
    commit(&mut world, "mirror.copies", "3");
    is(&world.step(), "True", "Applied");
    assert!(world.pass().plan.config.call.is_none());

    world.set_spec(json!({"config": {"mirror": null}}));
    let pass = world.step();
    is(&pass, "True", "Pending");
    assert_eq!(set(&pass), [("mirror.copies".into(), "2".into())]);
    assert!(pass.status.config.keys.contains(&"mirror.copies".into()), "until it is seen at its default");
    assert!(pass.events().is_empty());
    commit(&mut world, "mirror.copies", "2");
    let pass = world.step();
    is(&pass, "True", "Applied");
    assert_eq!(pass.status.config.keys, ["log.level", "versioning.enabled"]);

    world.set_spec(json!({"config": null}));
    assert_eq!(set(&world.step()), [("log.level".into(), "info".into())]);
    commit(&mut world, "log.level", "info");
    let pass = world.step();
    is(&pass, "True", "NoOverlay");
    assert!(pass.status.config.keys.is_empty());
}

#[test]
fn settings_that_are_not_named_are_left_alone() {
    let mut world = World::settled(json!({"config": {"mirror.copies": 2}}));
    commit(&mut world, "log.level", "trace");
    is(&world.step(), "True", "Applied");
    assert!(world.pass().plan.config.call.is_none());
}

#[test]
fn what_somebody_changes_through_the_api_is_set_back_and_said_once() {
    let mut world = World::settled(json!({"config": {"mirror.copies": 3}}));
    commit(&mut world, "mirror.copies", "3");
    is(&world.step(), "True", "Applied");
    commit(&mut world, "mirror.copies", "7");
    let pass = world.step();
    assert_eq!((set(&pass), pass.events()), (vec![("mirror.copies".into(), "3".into())], vec!["ConfigDrift"]));
    assert!(pass.plan.notes[0].message.contains("mirror.copies was 7, spec.config says 3"));
    assert!(world.pass().events().is_empty());
}

#[test]
fn a_wrong_overlay_changes_nothing_and_is_told() {
    let mut world = World::settled(json!({"config": {"mirror.copies": 3}}));
    commit(&mut world, "mirror.copies", "3");
    world.step();
    for (patch, reason, part) in [
        (json!({"miror.enabled": true}), "UnknownKey", "did you mean 'mirror.enabled'?"),
        (json!({"miror.enabled": null, "mirror.copies": "x"}), "InvalidValue", "expected a number"),
        (json!({"mirror.copies": 3, "space": {"lowwm": 1}}), "UnsupportedKey", "cannot be set"),
        (json!({"space": null, "ha.lease_ms": 1}), "OwnedBySpec", "spec.ha.leaseMilliseconds"),
    ] {
        world.set_spec(json!({"config": patch}));
        let before = world.observed.cluster.status.clone().unwrap();
        let pass = world.step();
        is(&pass, "False", reason);
        assert!(pass.message("ConfigValid").contains(part) && pass.plan.config.call.is_none());
        assert_eq!(pass.status.config.keys, ["mirror.copies"]);
        let notes = ais_operator::conditions::notes(&before.conditions, &pass.status.conditions);
        assert_eq!(notes.iter().map(|n| n.reason).collect::<Vec<_>>(), ["ConfigInvalid"]);
        let again = world.pass().status.conditions;
        assert!(ais_operator::conditions::notes(&pass.status.conditions, &again).is_empty());
        assert_eq!(pass.condition("Available").0, "True");
    }
}

#[test]
fn a_refusal_is_told_and_not_repeated_soon() {
    let mut world = World::settled(json!({"config": {"auth.client_auth_required": true}}));
    called(&mut world, Some(ConfigOutcome::Refused("requires a key for tokens".into())));
    let pass = world.step();
    is(&pass, "False", "Refused");
    assert!(pass.message("ConfigValid").contains("requires a key for tokens") && pass.plan.config.call.is_none());
    assert!(world.after(61).pass().plan.config.call.is_some());
}

#[test]
fn an_unknown_outcome_is_asked_again() {
    let mut world = World::settled(json!({"config": {"mirror.copies": 3}}));
    called(&mut world, Some(ConfigOutcome::Unknown("time-out".into())));
    let pass = world.pass();
    assert!(pass.plan.config.call.is_none() && pass.plan.requeue.as_secs() <= 5);
    assert!(world.after(6).pass().plan.config.call.is_some());
}

#[test]
fn nobody_is_asked_while_paused_or_without_a_primary() {
    let mut world = World::settled(json!({"config": {"mirror.copies": 3}}));
    world.set_spec(json!({"paused": true}));
    assert!(world.pass().plan.config.call.is_none());
    world.set_spec(json!({"paused": false}));
    assert!(world.pass().plan.config.call.is_some());
    PODS.iter().for_each(|pod| world.lose(pod));
    let pass = world.pass();
    is(&pass, "True", "NoPrimary");
    assert!(pass.plan.config.call.is_none() && pass.status.config.keys == ["mirror.copies"]);
}

#[test]
fn settings_for_the_next_start_are_named() {
    let mut world = World::settled(json!({"config": {"ha.park_ms": 12000}}));
    commit(&mut world, "ha.park_ms", "12000");
    let pass = world.step();
    is(&pass, "True", "Applied");
    assert!(pass.message("ConfigValid").ends_with("at its next start: ha.park_ms"));
}
