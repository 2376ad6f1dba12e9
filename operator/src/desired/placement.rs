//! Where pods go, and as whom they run.

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, PodAffinityTerm, PodAntiAffinity, PodSecurityContext, SELinuxOptions, SeccompProfile,
    SecurityContext, Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use ais_crds::PodTemplate;

use super::services::voters;
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

/// Different nodes and, less so, different zones: preferred, not required, since a cluster on few nodes must still come up.
pub(super) fn apart(selector: LabelSelector) -> Affinity {
    let term = |weight: i32, key: &str| WeightedPodAffinityTerm {
        weight,
        pod_affinity_term: PodAffinityTerm {
            topology_key: key.into(),
            label_selector: Some(selector.clone()),
            ..PodAffinityTerm::default()
        },
    };
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![term(100, HOST), term(50, ZONE)]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// Different zones, where nodes have zones, for all that may vote together: a quorum knows no roles, and targets are its
/// witnesses. Nodes without zones are passed over by the scheduler. It is the only constraint on zones, because an API
/// server refuses two of one key; that pods of a role keep apart is said by [`apart`].
pub(super) fn zones(valid: &Valid) -> Vec<TopologySpreadConstraint> {
    vec![zone(voters(valid))]
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
