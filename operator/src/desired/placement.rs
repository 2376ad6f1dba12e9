//! Where pods go, and as whom they run.

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, PodAffinityTerm, PodAntiAffinity, PodSecurityContext, SELinuxOptions, SeccompProfile,
    SecurityContext, Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use ais_crds::PodTemplate;

use super::services::voters;
use crate::names::Role;
use crate::validate::Valid;

const USER: i64 = 65532;
const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

pub(super) fn tolerations(custom: &PodTemplate) -> Vec<Toleration> {
    custom
        .tolerations
        .iter()
        .map(|t| Toleration {
            key: t.key.clone(),
            operator: t.operator.clone(),
            value: t.value.clone(),
            effect: t.effect.clone(),
            toleration_seconds: t.toleration_seconds,
        })
        .collect()
}

/// Different nodes: preferred, not required, since a cluster on few nodes must still come up.
pub(super) fn apart(selector: LabelSelector) -> Affinity {
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: PodAffinityTerm {
                    topology_key: HOST.into(),
                    label_selector: Some(selector),
                    ..PodAffinityTerm::default()
                },
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// Different zones, where nodes have zones: the pods of the role, and all that may vote together, because a quorum knows
/// no roles and targets are its witnesses. Nodes without zones are passed over by the scheduler.
pub(super) fn zones(valid: &Valid, role: Role) -> Vec<TopologySpreadConstraint> {
    let own = LabelSelector { match_labels: Some(valid.names.selector(role)), ..LabelSelector::default() };
    [own, voters(valid)].into_iter().map(zone).collect()
}

/// Different zones for these pods, if that can be had.
pub(super) fn zone(selector: LabelSelector) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: ZONE.into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(selector),
        ..TopologySpreadConstraint::default()
    }
}

/// Fit for the `restricted` pod security standard, whatever is asked for.
pub(super) fn pod_security(custom: &PodTemplate) -> PodSecurityContext {
    let asked = custom.security_context.clone().unwrap_or_default();
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(asked.run_as_user.unwrap_or(USER)),
        run_as_group: Some(asked.run_as_group.unwrap_or(USER)),
        fs_group: Some(asked.fs_group.unwrap_or(USER)),
        fs_group_change_policy: Some("OnRootMismatch".into()),
        supplemental_groups: Some(asked.supplemental_groups).filter(|list| !list.is_empty()),
        se_linux_options: asked
            .se_linux_level
            .map(|level| SELinuxOptions { level: Some(level), ..SELinuxOptions::default() }),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

pub(super) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        ..SecurityContext::default()
    }
}
