//! The drills of this binary.

use ais_tests::suite::Case;

use crate::{clocks, cuts, disks, life, lost, manage, names, shapes};

/// All of them, in the order in which they run.
pub(super) const CASES: &[Case] = &[
    ("black_hole_of_the_primary", cuts::black_hole_of_the_primary),
    ("cable_of_the_primary", cuts::cable_of_the_primary),
    ("one_way_cuts_of_the_primary", cuts::one_way_cuts_of_the_primary),
    ("one_way_cuts_between_two", cuts::one_way_cuts_between_two),
    ("splits_of_every_shape", cuts::splits_of_every_shape),
    ("wipes_of_one_and_of_two", disks::wipes_of_one_and_of_two),
    ("full_disks", disks::full_disks),
    ("slow_and_hung_disks", disks::slow_and_hung_disks),
    ("damaged_records", disks::damaged_records),
    ("lost_majority", lost::lost_majority),
    ("clock_steps", clocks::clock_steps),
    ("starved_nodes", clocks::starved_nodes),
    ("primary_and_next_die", life::primary_and_next_die),
    ("primary_and_a_target_die", life::primary_and_a_target_die),
    ("others_die_and_return", life::others_die_and_return),
    ("fast_restart_of_the_primary", life::fast_restart_of_the_primary),
    ("long_pause_of_the_primary", life::long_pause_of_the_primary),
    ("restart_of_all_in_random_order", life::restart_of_all_in_random_order),
    ("fifty_hand_overs", life::fifty_hand_overs),
    ("created_and_killed", life::created_and_killed),
    ("joins_during_elections", life::joins_during_elections),
    ("two_and_one_cut", shapes::two_and_one_cut),
    ("one_and_three", shapes::one_and_three),
    ("five_and_three", shapes::five_and_three),
    ("other_addresses", names::other_addresses),
    ("same_id_twice", names::same_id_twice),
    ("same_address_twice", names::same_address_twice),
    ("copied_disk", names::copied_disk),
    ("non_electable_never_leads", names::non_electable_never_leads),
    ("signatures_and_health", manage::signatures_and_health),
    ("configuration_survives", manage::configuration_survives),
    ("maintenance_survives", manage::maintenance_survives),
];
