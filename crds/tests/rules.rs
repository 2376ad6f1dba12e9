//! Every rule of `refusals.json`, in this process. The same table runs against a real API server in
//! the end-to-end tests; what only that one checks (structure, unknown fields) is left to it.
#![allow(clippy::unwrap_used)]

use serde_json::Value;

fn merge(into: &mut Value, patch: &Value) {
    let (Value::Object(map), Value::Object(changes)) = (&mut *into, patch) else {
        *into = patch.clone();
        return;
    };
    for (key, change) in changes {
        if change.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Object(serde_json::Map::new())), change);
        }
    }
}

fn patched(base: &Value, patch: &Value) -> Value {
    let mut object = base.clone();
    if !patch.is_null() {
        merge(&mut object, patch);
    }
    object
}

fn schema() -> Value {
    let crd = serde_json::to_value(ais_crds::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn table() -> Value {
    serde_json::from_str(include_str!("refusals.json")).unwrap()
}

fn verdict(schema: &Value, case: &Value, base: &Value) -> Vec<String> {
    let before = patched(base, &case["before"]);
    let object = patched(&before, &case["patch"]);
    let old = (case["operation"] == "update").then_some(&before);
    match kube_cel::Validator::new().validate(schema, &object, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|e| e.to_string()).collect(),
    }
}

#[test]
fn what_is_allowed_passes() {
    let (schema, table) = (schema(), table());
    for case in table["accepted"].as_array().unwrap() {
        let errors = verdict(&schema, case, &table["base"]);
        assert!(errors.is_empty(), "{}: {errors:?}", case["name"]);
        let object = patched(&table["base"], &case["patch"]);
        serde_json::from_value::<ais_crds::AISCluster>(object).unwrap();
    }
}

#[test]
fn each_rule_refuses_with_its_message() {
    let (schema, table) = (schema(), table());
    for case in table["refused"].as_array().unwrap().iter().filter(|c| c["by"] == "cel") {
        let errors = verdict(&schema, case, &table["base"]);
        let message = case["message"].as_str().unwrap();
        assert!(errors.iter().any(|e| e.contains(message)), "{}: {errors:?}", case["name"]);
    }
}

/// A rule that no case refuses is a rule nobody saw work.
#[test]
fn each_rule_has_a_case() {
    fn messages(schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(map) => {
                if let Some(rules) = map.get("x-kubernetes-validations").and_then(Value::as_array) {
                    found.extend(rules.iter().filter_map(|r| r["message"].as_str().map(str::to_owned)));
                }
                map.values().for_each(|v| messages(v, found));
            }
            Value::Array(list) => list.iter().for_each(|v| messages(v, found)),
            _ => {}
        }
    }
    let mut rules = Vec::new();
    messages(&schema(), &mut rules);
    assert!(rules.len() > 15);
    let table = table();
    let cases = table["refused"].as_array().unwrap();
    for rule in rules {
        assert!(cases.iter().any(|c| rule.contains(c["message"].as_str().unwrap())), "no case for: {rule}");
    }
}

/// Structure, without a server: the types themselves refuse these, or the schema has a bound.
#[test]
fn later_choices_do_not_decode() {
    let table = table();
    for name in ["failback-unknown", "pull-policy-unknown", "targets-without-replicas"] {
        let case = table["refused"].as_array().unwrap().iter().find(|c| c["name"] == name).unwrap();
        let object = patched(&table["base"], &case["patch"]);
        assert!(serde_json::from_value::<ais_crds::AISCluster>(object).is_err(), "{name}");
    }
}
