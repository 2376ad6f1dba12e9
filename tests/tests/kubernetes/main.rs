//! The product in a real Kubernetes: operator, chart, pods, failover and failback, with clients that write all the
//! time.
//!
//! The cases share one cluster and run in their order: each leaves the cluster whole for the next. A word on the
//! command line selects cases by name; those that build the cluster up always run.

mod automatic;
mod bed;
mod chart;
mod cuts;
mod deletion;
mod drain;
mod failback;
mod failover;
mod fields;
mod founding;
mod growth;
mod hardening;
mod held;
mod host;
mod install;
mod life;
mod manual;
mod refused;
mod rest;
mod rights;
mod rollout;
mod scale;
mod settings;
mod side;
mod spec;
mod stopped;
mod story;
mod tls;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow};

use bed::Bed;

/// A case: its name, and what does it and says in one line what was seen.
type Case = (&'static str, fn(&mut Bed) -> Result<String>);

/// What every other case needs.
const FIRST: &[Case] = &[
    ("chart_is_clean", chart::is_clean),
    ("operator_is_installed", chart::operator_is_installed),
    ("rules_refuse", chart::rules_refuse),
    ("newcomer", story::newcomer),
];

const CASES: &[Case] = &[
    ("stand_by_only_asks_for_the_lease", rights::stand_by_only_asks_for_the_lease),
    ("helm_test_passes", install::helm_test_passes),
    ("sdk_through_every_gateway", story::sdk_through_every_gateway),
    ("idle_writes_nothing", rest::idle_writes_nothing),
    ("objects_are_as_documented", rest::objects_are_as_documented),
    ("clients_begin", failover::clients_begin),
    ("primary_killed", failover::primary_killed),
    ("primary_force_deleted", failover::primary_force_deleted),
    ("restarted_pods_know_the_primary", failover::restarted_pods_know_the_primary),
    ("pods_cut_from_each_other", cuts::pods_cut_from_each_other),
    ("failback_by_patch", failback::by_patch),
    ("failback_refused", failback::refused),
    ("failback_waits_for_a_pod_that_moves", held::waits_for_a_pod_that_moves),
    ("operator_killed_during_a_failback", held::operator_killed_during_a_failback),
    ("sdk_during_failovers", story::sdk_during_failovers),
    ("clients_history_is_right", failover::clients_history_is_right),
    ("returns_by_itself", automatic::returns_by_itself),
    ("founding_without_an_unschedulable_gateway", founding::without_an_unschedulable_gateway),
    ("founding_again_and_foreign_volumes", founding::refound_and_foreign_volumes),
    ("founding_outlives_the_operator", founding::outlives_the_operator),
    ("pods_are_evicted", drain::pods_are_evicted),
    ("a_voter_loses_its_volume", drain::a_voter_loses_its_volume),
    ("rollout_with_one_move", rollout::with_one_move),
    ("rollout_ends_on_the_preferred", rollout::ends_on_the_preferred),
    ("rollout_stops_at_a_broken_image", rollout::stops_at_a_broken_image),
    ("rollout_supervised", rollout::supervised),
    ("rollout_outlives_the_operator", rollout::outlives_the_operator),
    ("rollout_to_more_voters", rollout::to_more_voters),
    ("refused_and_followed", refused::by_the_server_and_by_the_operator),
    ("clients_begin_again", failover::clients_begin_again),
    ("config_overlay", spec::config_overlay),
    ("access_gateways", spec::access_gateways),
    ("networking_and_monitoring", spec::networking_and_monitoring),
    ("clients_history_is_still_right", failover::clients_history_is_right),
    ("explained_and_waited_for", spec::explained_and_waited_for),
    ("an_unreadable_object_blinds_nobody", spec::an_unreadable_object_blinds_nobody),
    ("gateways_up_and_down", scale::gateways_up_and_down),
    ("targets_by_kubectl_scale", scale::targets_by_kubectl_scale),
    ("settings_reach_pods_and_claims", settings::reach_pods_and_claims),
    ("stopped_and_back", stopped::stopped_and_back),
    ("tls_self_managed", tls::self_managed),
    ("tls_certificates_rotate", tls::certificates_rotate),
    ("tls_users_secret", tls::users_secret),
    ("tls_turned_on_while_stopped", tls::turned_on),
    ("deletes_the_data", deletion::deletes_the_data),
    ("ends_although_a_pod_does_not", deletion::ends_although_a_pod_does_not),
    ("volumes_grow_where_they_may", growth::volumes_grow_where_they_may),
    ("network_of_the_node", host::network_of_the_node),
    ("conditions_follow_the_spec", rest::conditions_follow_the_spec),
    ("nothing_is_privileged", hardening::nothing_is_privileged),
    ("chart_changes_under_clients", install::chart_changes_under_clients),
    ("operator_hands_over_when_it_ends", rights::operator_hands_over_when_it_ends),
    ("deleted_and_adopted", life::deleted_and_adopted),
    ("every_status_field_moved", fields::every_status_field_moved),
    ("rights_are_those_that_are_used", rights::rights_are_those_that_are_used),
    ("uninstalled", life::uninstalled),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        FIRST.iter().chain(CASES).for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let mut tally = Tally::default();
    let mut bed = match Bed::make() {
        Ok(bed) => bed,
        Err(error) => {
            println!("test the_bed ... FAILED\n    {error:#}\n\ntest result: FAILED. 0 passed; 1 failed");
            return ExitCode::FAILURE;
        }
    };
    let chosen = FIRST.iter().map(|case| (case, true));
    let chosen = chosen.chain(CASES.iter().map(|case| (case, false)));
    bed.whole = words.is_empty();
    for ((name, case), first) in chosen.filter(|((name, _), first)| *first || wanted(name)) {
        let well = tally.run(&mut bed, name, *case);
        // What comes later needs a whole cluster; after a failure it may not be one.
        if !well && (first || bed.recover().is_err()) {
            println!("the rest is left out");
            break;
        }
    }
    if let Err(error) = bed.down(tally.failed == 0) {
        println!("test nothing_is_left ... FAILED\n    {error:#}");
        tally.failed += 1;
    }
    let verdict = if tally.failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {} passed; {} failed", tally.passed, tally.failed);
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
}

impl Tally {
    fn run(&mut self, bed: &mut Bed, name: &str, case: fn(&mut Bed) -> Result<String>) -> bool {
        let begin = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| case(bed))).unwrap_or_else(|_| Err(anyhow!("panicked")));
        let took_s = begin.elapsed().as_secs_f64();
        match result {
            Ok(seen) => {
                println!("test {name} ... ok ({took_s:.1} s) {seen}");
                self.passed += 1;
                true
            }
            Err(error) => {
                println!("test {name} ... FAILED ({took_s:.1} s)\n    {error:#}\n{}", bed.product.diagnosis());
                self.failed += 1;
                false
            }
        }
    }
}
