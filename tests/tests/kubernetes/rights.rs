//! What the operator may do, what it does, and who of its instances does it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ais_tests::product::{OPERATOR_NAMESPACE, RELEASE};
use ais_tests::testbed::audit::Request;
use ais_tests::testbed::kubectl::is_ready;
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bed::{Bed, LONG};
use crate::install::can;

/// A lease that was not released is taken over 15 s after its last renewal.
const HAND_OVER: Duration = Duration::from_secs(10);
/// Group, resource, verb.
type Right = (String, String, String);

/// Rights that no test uses, and why they are needed all the same.
const UNUSED: &[(&str, &str, &str, &str)] = &[
    (
        "aiscluster.dev",
        "aisclusters/finalizers",
        "update",
        "asked for by an admission plugin, in no request of its own",
    ),
    ("coordination.k8s.io", "leases", "update", "the way of API servers that do not apply leases"),
];

/// The operator's own requests.
fn asked(bed: &Bed) -> Result<Vec<Request>> {
    let user = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{RELEASE}");
    let mut all = bed.testbed.audited()?;
    all.retain(|request| request.user == user);
    ensure!(!all.is_empty(), "the audit log knows no request of the operator");
    Ok(all)
}

/// What its roles grant.
fn granted(bed: &Bed) -> Result<BTreeSet<Right>> {
    let admin = &bed.product.admin;
    let lease = admin.in_namespace(OPERATOR_NAMESPACE).get(&format!("role/{RELEASE}-lease"))?;
    let mut rights = BTreeSet::new();
    for role in [admin.get(&format!("clusterrole/{RELEASE}"))?, lease] {
        for rule in role["rules"].as_array().context("a role without rules")? {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    let each = texts(&rule["verbs"]);
                    rights.extend(each.into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
                }
            }
        }
    }
    Ok(rights)
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// Nothing was forbidden; over a whole run, nothing is granted that nobody used; and some things may never be granted.
pub(crate) fn rights_are_those_that_are_used(bed: &mut Bed) -> Result<String> {
    let (asked, granted) = (asked(bed)?, granted(bed)?);
    // The chart before this one, and roles of two namespaces, were in force in between: what was forbidden then does
    // not count. Forbidden now does.
    let mut used: BTreeSet<Right> = asked
        .iter()
        .filter(|request| request.code != 403)
        .map(|request| (request.group.clone(), request.resource.clone(), request.verb.clone()))
        .collect();
    // Applying what is not there yet is one request, a patch, for which both rights are needed.
    let applied: Vec<Right> = used.iter().filter(|right| right.2 == "patch").cloned().collect();
    used.extend(applied.into_iter().map(|(group, resource, _)| (group, resource, "create".to_owned())));
    let forbidden: BTreeSet<String> = asked
        .iter()
        .filter(|request| request.code == 403)
        .filter(|r| !granted.contains(&(r.group.clone(), r.resource.clone(), r.verb.clone())))
        .map(|r| format!("{} {} {}", r.verb, r.group, r.resource))
        .collect();
    ensure!(forbidden.is_empty(), "the operator asked for what no rule grants: {forbidden:?}");
    let excused = |right: &&Right| UNUSED.iter().any(|(g, r, v, _)| (*g, *r, *v) == (&*right.0, &*right.1, &*right.2));
    let unused: Vec<&Right> = granted.difference(&used).filter(|right| !excused(right)).collect();
    let stale: Vec<_> = UNUSED
        .iter()
        .filter(|(g, r, v, _)| !granted.contains(&((*g).to_owned(), (*r).to_owned(), (*v).to_owned())))
        .collect();
    ensure!(stale.is_empty(), "excuses for rights that are not granted: {stale:?}");
    for what in [
        &["list", "secrets", "--all-namespaces"][..],
        &["watch", "secrets", "--all-namespaces"],
        &["create", "pods", "--all-namespaces"],
        &["create", "pods/exec", "--all-namespaces"],
        &["create", "serviceaccounts/token", "--all-namespaces"],
        &["create", "clusterrolebindings"],
        &["escalate", "clusterroles"],
        &["impersonate", "users"],
        &["update", "aisclusters", "--all-namespaces"],
        &["patch", "customresourcedefinitions"],
    ] {
        ensure!(!can(&bed.product.admin, what)?, "it may {what:?}");
    }
    ensure!(!bed.whole || unused.is_empty(), "rights that nothing used, take them out: {}", shown(&unused));
    let note =
        if unused.is_empty() { "all used".to_owned() } else { format!("not used by these cases: {}", shown(&unused)) };
    Ok(format!("{} rights, {note}; {} requests, none beyond them", granted.len(), asked.len()))
}

fn shown(rights: &[&Right]) -> String {
    rights.iter().map(|(group, resource, verb)| format!("{verb} {resource}.{group}")).collect::<Vec<_>>().join(", ")
}

/// Who holds the lease.
fn holder(bed: &Bed) -> Result<String> {
    let lease = bed.product.admin.in_namespace(OPERATOR_NAMESPACE).get(&format!("lease/{RELEASE}"))?;
    Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
}

fn pods(bed: &Bed) -> Result<Vec<String>> {
    let selector = format!("app.kubernetes.io/instance={RELEASE},app.kubernetes.io/name={RELEASE}");
    let pods = bed.product.admin.in_namespace(OPERATOR_NAMESPACE).list("pods", Some(&selector))?;
    let ready = pods.iter().filter(|pod| is_ready(pod));
    Ok(ready.filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect())
}

pub(crate) fn stand_by_only_asks_for_the_lease(bed: &mut Bed) -> Result<String> {
    let holder = holder(bed)?;
    let others: Vec<String> = pods(bed)?.into_iter().filter(|pod| *pod != holder).collect();
    ensure!(!others.is_empty(), "{holder} is alone");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for request in asked(bed)? {
        *counts.entry(request.pod.clone()).or_default() += 1;
        if others.contains(&request.pod) {
            ensure!(request.resource == "leases", "{} waits for the lease and asked {request:?}", request.pod);
        }
    }
    let of = |pod: &String| counts.get(pod).copied().unwrap_or_default();
    ensure!(of(&holder) > 20 && others.iter().all(|pod| of(pod) > 0), "the audit log knows no pods: {counts:?}");
    Ok(format!("{} requests of the acting instance, {} of the other, all for the lease", of(&holder), of(&others[0])))
}

/// The lease is released on exit, and whoever waits for it sees so: nobody waits until it would have run out.
pub(crate) fn operator_hands_over_when_it_ends(bed: &mut Bed) -> Result<String> {
    let operator = bed.product.admin.in_namespace(OPERATOR_NAMESPACE);
    Wait::new("two instances", LONG).until(|| Ok((pods(bed)?.len() == 2).then_some(())))?;
    let old =
        Wait::new("a holder of the lease", LONG).until(|| Ok(Some(holder(bed)?).filter(|name| !name.is_empty())))?;
    let begin = Instant::now();
    operator.run(&["delete", "pod", &old, "--wait=false"])?;
    let new = Wait::new("another holder of the lease", LONG).every(Duration::from_millis(50)).until(|| {
        let now = holder(bed)?;
        Ok(Some(now).filter(|name| !name.is_empty() && *name != old))
    })?;
    let took = begin.elapsed();
    ensure!(took < HAND_OVER, "{new} took over from {old} after {took:.1?}");
    operator.run(&["rollout", "status", &format!("deployment/{RELEASE}"), "--timeout=60s"])?;
    Ok(format!("{took:.1?}"))
}
