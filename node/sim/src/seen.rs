//! What happened in the core, rule by rule: a range of seeds in which some rule hardly ever worked proves little of it.

use ais_ha::{AppendBody, ForwardReply, Input, Message, Packet, PreVoteAnswer, Redial, TransferAnswer};

macro_rules! seen {
    ($($(#[$doc:meta])* $name:ident $text:literal $floor:literal)*) => {
        /// Something that a rule of the protocol does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Seen { $($(#[$doc])* $name),* }
        /// Each with its name and how often per thousand seeds it must have happened at least.
        pub const SEEN: &[(&str, u64)] = &[$(($text, $floor)),*];
    };
}

seen! {
    /// Rule 1.
    DeadEvidence "evidence: refused" 500
    /// Rule 1.
    OtherBoot "evidence: another boot" 500
    /// Rule 1.
    NoEvidence "redial without evidence" 500
    /// Rule 1.
    Ending "'stopping' said" 200
    /// Rule 2.
    Begins "election begins" 300
    /// Rule 3.
    Probe "probe" 500
    /// Rule 3.
    ProbeNo "probe: leads nothing" 50
    /// Rule 3.
    ProbeYes "probe: leads" 30
    /// Rule 3.
    PreVoteYes "pre-vote granted" 1000
    /// Rules 3 and 8.
    PreVoteNo "pre-vote refused, lease or promise" 500
    /// Rule 4.
    Prepare "prepare" 2000
    /// Rule 9.
    PrepareToken "prepare with a token" 100
    /// Rule 4.
    Promise "promise" 2000
    /// Rule 4.
    Refuse "prepare or accept refused" 300
    /// Rule 5.
    Fetch "fetch of an adopted State" 10
    /// Rule 5.
    Body "body given" 10
    /// Rule 9.
    Resign "resign" 300
    /// Rule 9.
    Token "token" 200
    /// Rule 8.
    NotHolding "heartbeat answered without the lease" 20
    /// Section 7.
    NeedFull "base missing" 50
    /// Section 7.
    Full "whole State sent" 500
    /// Section 7.
    Steps "steps sent" 5000
    /// Rule 12.
    CommitPush "commit pushed" 5000
    /// Rule 12.
    Pull "pull" 1000
    /// Rule 13.
    Forward "mutation forwarded" 5000
    /// Rule 13.
    NotPrimary "forward refused: not primary" 100
    /// Rule 13.
    Lost "forward answered: ask the next primary" 5
    /// Rule 9.
    TransferAsk "hand-over asked through another gateway" 100
    /// Rule 9.
    TransferResigned "hand-over: resigned, watch" 20
    /// Section 5.
    Offer "founding offer" 300
    /// Section 5.
    ReOffer "founding re-offer" 6
    /// Section 5.
    Bound "founding bind" 300
    /// Section 6.
    Join "join asked" 500
    /// Section 4.
    VoterAdded "voter added" 300
    /// Section 4.
    VoterRemoved "voter removed" 500
    /// Section 4.
    VoterSwapped "seat swapped to a new disk" 200
    /// Rule 8.
    Lapse "lease lapsed" 200
    /// Rule 5.
    Adoption "newer State adopted" 100
    /// Rule 3.
    PreVoteRound "pre-vote round" 1000
    /// Rule 6.
    Won "first State committed" 1500
    /// Rule 13.
    Unavailable "503" 5
    /// Rule 13.
    Outdated "judged by what has changed" 5
    /// Rule 13.
    Unknown "504" 5
    /// Rule 12.
    FreshRead "fresh read" 2000
    /// Rule 9.
    HandedOver "hand-over done" 300
    /// Rule 10.
    Restored "restored snapshot came back" 10
    /// Rule 10.
    SetAside "record set aside" 1
    /// Section 4.
    Recovered "lost majority recovered" 5
    /// Section 4.
    RecoverRefused "recovery refused" 5
    /// Section 6.
    Configured "configuration answered" 100
    /// Section 6.
    Revoked "revocation answered" 50
    /// Section 6.
    TxnBegun "membership transaction answered" 100
    /// Section 6.
    TxnBusy "membership transaction refused: another runs" 1
    /// Section 6.
    TxnDone "membership transaction finished" 50
    /// Section 6.
    TxnOther "membership transaction finished by another epoch" 1
    /// Section 4.
    Headless "no voter left that may lead and knows the voters" 5
    /// Section 6: while a voter that is to take a seat is damped.
    TxnWaits "membership transaction waits after healing, seconds" 0
    /// Section 6.
    Ordered "process ended by a committed order" 10
    /// L3.
    Preferred "preferred primary leads after healing" 500
    /// L4.
    Undeposed "benign run without an election" 50
    /// Section 4.
    Witness "witness votes" 100
    /// Section 6.
    Left "member left the Smap" 300
    /// Section 6.
    CameBack "member came back into the Smap" 300
    /// A fault of the network that is no event of a plan.
    LostPacket "packet lost" 5000
    /// The same.
    Duplicate "packet arrives twice" 5000
    /// A fault of the disk: of what was handed over and not synced, some is gone.
    Unsynced "un-synced records lost at a process's end" 300
    /// A fault of the clock: off by more than 100 ms at the end of the run.
    Drift "clock drifted" 1000
}

impl Seen {
    /// Of a packet on its way out.
    pub(crate) fn sent(packet: &Packet) -> Option<Self> {
        Some(match &packet.message {
            Message::ElectionBegins => Self::Begins,
            Message::Probe => Self::Probe,
            Message::ProbeReply { leading } => {
                if *leading {
                    Self::ProbeYes
                } else {
                    Self::ProbeNo
                }
            }
            Message::PreVoteReply { answer: PreVoteAnswer::Yes, .. } => Self::PreVoteYes,
            Message::PreVoteReply { .. } => Self::PreVoteNo,
            Message::Prepare { token: None } => Self::Prepare,
            Message::Prepare { .. } => Self::PrepareToken,
            Message::Promise { .. } => Self::Promise,
            Message::Refuse { .. } => Self::Refuse,
            Message::Fetch { .. } => Self::Fetch,
            Message::Body { .. } => Self::Body,
            Message::Resign { .. } => Self::Resign,
            Message::Token(_) => Self::Token,
            Message::HeartbeatAck { holds: false, .. } => Self::NotHolding,
            Message::NeedFull { .. } => Self::NeedFull,
            Message::Append { body: AppendBody::Full(_), .. } => Self::Full,
            Message::Append { body: AppendBody::Deltas(_), .. } => Self::Steps,
            Message::Append { body: AppendBody::Commit, .. } => Self::CommitPush,
            Message::Pull { .. } => Self::Pull,
            Message::Forward { change: ais_meta::Change::Join { .. }, .. } => Self::Join,
            Message::Forward { .. } => Self::Forward,
            Message::Forwarded { reply: ForwardReply::NotPrimary { .. }, .. } => Self::NotPrimary,
            Message::Forwarded { reply: ForwardReply::Lost, .. } => Self::Lost,
            Message::TransferAsk { .. } => Self::TransferAsk,
            Message::TransferAnswer { result: TransferAnswer::Resigned { .. }, .. } => Self::TransferResigned,
            Message::Offer(offer) if offer.number > 1 => Self::ReOffer,
            Message::Offer(_) => Self::Offer,
            Message::Bound { .. } => Self::Bound,
            Message::Stopping => Self::Ending,
            _ => return None,
        })
    }

    /// Of an input.
    pub(crate) fn heard(input: &Input) -> Option<Self> {
        match input {
            Input::Redialled { result: Redial::Refused, .. } => Some(Self::DeadEvidence),
            Input::Redialled { result: Redial::OtherBoot, .. } => Some(Self::OtherBoot),
            Input::Redialled { .. } => Some(Self::NoEvidence),
            _ => None,
        }
    }
}
