//! How much a node may say. Its words are copied to status and events, and one that is broken, or in other hands, may
//! say anything that fits into an answer.
//!
//! Texts for people are cut. Names are not: what is named by a cut name is somebody else, so a view with names that no
//! node has is no node's word.

use crate::view::{Member, NodeView, Voter};

/// Texts for people, in characters.
pub const TEXT_CHARS_MAX: usize = 300;
/// Why a node waits, in characters.
const REASON_CHARS_MAX: usize = 200;
/// Versions, roles and kinds, in characters.
const WORD_CHARS_MAX: usize = 64;
/// Names of nodes are names of pods; ids of disks and clusters are shorter.
const ID_BYTES_MAX: usize = 253;
/// As many as `status.electorate` may hold.
const VOTERS_MAX: usize = 9;
/// One for each machine of the largest Kubernetes, and more.
const MEMBERS_MAX: usize = 16 * 1024;
/// One of each that is known: two secrets while one is rotated, a few authorities.
const DIGESTS_MAX: usize = 64;

/// No longer than `chars_max` characters.
#[must_use]
pub fn cut(mut text: String, chars_max: usize) -> String {
    if let Some((at, _)) = text.char_indices().nth(chars_max) {
        text.truncate(at);
    }
    text
}

/// The view, cut to what may be copied.
///
/// # Errors
/// What no node says.
pub fn bounded(mut view: NodeView) -> Result<NodeView, &'static str> {
    if view.electorate.len() > VOTERS_MAX {
        return Err("it names more voters than there can be");
    }
    if view.members.len() > MEMBERS_MAX {
        return Err("it names more members than there can be");
    }
    if ids(&view).any(|id| id.len() > ID_BYTES_MAX) {
        return Err("it names somebody by a name that is too long");
    }
    let short = |text: &mut String, chars_max| *text = cut(std::mem::take(text), chars_max);
    short(&mut view.version, WORD_CHARS_MAX);
    short(&mut view.role, WORD_CHARS_MAX);
    short(&mut view.reason, REASON_CHARS_MAX);
    view.electorate.iter_mut().for_each(|voter| short(&mut voter.kind, WORD_CHARS_MAX));
    view.members.iter_mut().for_each(|member| short(&mut member.kind, WORD_CHARS_MAX));
    view.credentials.secrets.truncate(DIGESTS_MAX);
    if let Some(tls) = &mut view.credentials.tls {
        tls.authorities.truncate(DIGESTS_MAX);
        tls.problem = tls.problem.take().map(|text| cut(text, TEXT_CHARS_MAX));
    }
    Ok(view)
}

/// Every name in it, apart from its own, which was compared.
fn ids(view: &NodeView) -> impl Iterator<Item = &str> {
    let voters = view.electorate.iter().flat_map(|Voter { node_id, disk_id, .. }| [node_id, disk_id]);
    let members = view.members.iter().flat_map(|Member { node_id, disk_id, .. }| [node_id, disk_id]);
    let own = [Some(&view.disk_id), view.cluster_uuid.as_ref(), view.primary.as_ref()].into_iter().flatten();
    voters.chain(members).chain(own).map(String::as_str)
}
