//! Scenarios as text: lines that begin with `> ` are commands, lines that begin with `#` are prose, the rest is what
//! came of it. `> expect ...` asserts, so that a regenerated transcript cannot quietly say something else.

use std::fmt::Write as _;

use ais_ha::{Input, Redial, Reply};
use ais_meta::{Change, DiskId, MemberAction, MemberOptions, Outcome, RequestId, VoterId};

use super::{World, id};

/// Plays the commands of a transcript; gives it back with fresh output.
pub fn tell(text: &str) -> String {
    let mut world = World::new();
    let mut out = String::new();
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        } else if let Some(command) = line.strip_prefix("> ") {
            let _ = writeln!(out, "{line}");
            world.command(command);
            out.push_str(&std::mem::take(&mut world.log));
        }
    }
    out
}

/// A request's number, without the disk.
pub(super) fn short(request: &RequestId) -> String {
    match request {
        RequestId::Gateway { origin, run, seq } => format!("{}#{run}.{seq}", origin.node),
        RequestId::Client(id) => id.clone(),
    }
}

pub(super) fn reply(reply: &Reply) -> String {
    match reply {
        Reply::Settled { outcome: Outcome::Done, stamp } => format!("done in {stamp}"),
        Reply::Settled { outcome: Outcome::Began(what), stamp } => format!("done in {stamp}, began {what}"),
        Reply::Settled { outcome: Outcome::Refused(why), stamp } => format!("refused in {stamp}: {why}"),
        Reply::Unavailable => "503".to_owned(),
        Reply::Unknown => "504".to_owned(),
    }
}

impl World {
    pub(super) fn command(&mut self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words.as_slice() {
            ["founders", names @ ..] => self.discovery.initial_voters = names.iter().map(|n| id(n)).collect(),
            ["snapshot", name] => {
                let m = self.machine(name);
                m.copy = Some((m.run, m.disk, m.hard.clone()));
            }
            ["restore", name] => {
                let m = self.machine(name);
                assert!(m.node.is_none(), "{name} runs");
                (m.run, m.disk, m.hard) = m.copy.clone().unwrap();
            }
            ["mountpath-copy", name, uuid] => {
                let (uuid, peers) = (uuid.parse().unwrap(), Vec::new());
                self.machine(name).hard.remembered = Some(ais_ha::Remembered { uuid, peers });
            }
            ["no-uuid"] => self.uuid.clear(),
            ["discover"] => {
                for name in self.running() {
                    let discovery = self.discovery.clone();
                    self.feed(&name, Input::Discovery(discovery));
                }
            }
            ["standalone", on] => self.discovery.standalone = *on == "on",
            ["recorded-formed"] => self.discovery.formed = true,
            ["primary-ep", name] => self.discovery.primary_ep = self.primary_ep(name),
            ["uuid", uuid] => (*uuid).clone_into(&mut self.uuid),
            ["non-electable", name] => self.machine(name).electable = false,
            ["electable", name] => self.machine(name).electable = true,
            ["domain", domain, names @ ..] => {
                names.iter().for_each(|n| (*domain).clone_into(&mut self.machine(n).domain));
            }
            ["setting-voters", n] => self.voters = n.parse().unwrap(),
            ["boot", names @ ..] => names.iter().for_each(|n| self.boot(n)),
            ["wait", ms] => self.run(ms.parse().unwrap()),
            ["wait-primary", ms] => self.wait_primary(ms.parse().unwrap()),
            ["until", name, message, ms] => self.until(name, message, ms.parse().unwrap()),
            ["kill", names @ ..] => names.iter().for_each(|n| self.end(n, Some(Redial::Refused))),
            ["vanish", names @ ..] => names.iter().for_each(|n| self.end(n, None)),
            ["time-out", name] => self.end(name, Some(Redial::Unknown)),
            ["freeze", name] => self.machine(name).frozen = true,
            ["thaw", name] => {
                self.machine(name).frozen = false;
                self.drain(name);
            }
            ["wipe", name] => self.wipe(name),
            ["cut", from, to] => drop(self.cuts.insert(((*from).to_owned(), (*to).to_owned()))),
            ["split", rest @ ..] => {
                let at = rest.iter().position(|w| *w == "/").unwrap();
                for (one, two) in rest[..at].iter().flat_map(|a| rest[at + 1..].iter().map(move |b| (a, b))) {
                    self.cuts.insert(((*one).to_owned(), (*two).to_owned()));
                    self.cuts.insert(((*two).to_owned(), (*one).to_owned()));
                }
            }
            // As `heal`, but the connections had never ended: what was lost is lost.
            ["mend"] => self.cuts.clear(),
            ["heal"] => self.heal(),
            ["hold", name] => self.machine(name).held = true,
            ["release", name] => {
                self.machine(name).held = false;
                self.sync(name);
            }
            ["disk-full", name] => self.feed(name, Input::PersistFailed { why: "no space left".to_owned() }),
            ["recover", name, stamp] => {
                if *stamp == "held" {
                    let stamp = self.view(name).accepted.unwrap();
                    return self.feed(name, Input::Recover { nonce: 1, stamp });
                }
                let numbers: Vec<u64> = stamp.split('.').map(|n| n.parse().unwrap()).collect();
                let incarnation = u32::try_from(numbers[0]).unwrap();
                let stamp = ais_meta::Stamp::new(incarnation, numbers[1], numbers[2]);
                self.feed(name, Input::Recover { nonce: 1, stamp });
            }
            ["trace", on] => self.trace = *on == "on",
            ["keep", messages @ ..] => self.keep = messages.iter().map(|m| (*m).to_owned()).collect(),
            ["deliver-kept"] => self.deliver_kept(),
            ["stop", names @ ..] => names.iter().for_each(|n| self.feed(n, Input::Stop)),
            ["pull", name] => self.feed(name, Input::Pull { nonce: 1 }),
            ["decommission-cluster", gateway] => {
                let options = MemberOptions { rm_user_data: true, ..MemberOptions::default() };
                self.propose(gateway, None, Change::Decommission { options });
            }
            ["stopping", gateway] => self.propose(gateway, None, Change::Stopping { stopping: true }),
            [
                action @ ("start-maintenance" | "stop-maintenance" | "shutdown-node" | "decommission-node"
                | "rm-unsafe"),
                gateway,
                rest @ ..,
            ] => {
                self.membership(action, gateway, rest);
            }
            ["set-config", gateway, name, value] => {
                let set = [((*name).to_owned(), (*value).to_owned())].into();
                self.propose(gateway, None, Change::SetConfig { set, reset: false });
            }
            ["bucket", gateway, name] => self.bucket(gateway, None, name),
            ["bucket", gateway, name, "as", client] => self.bucket(gateway, Some(client), name),
            ["transfer", via, to, rest @ ..] => self.transfer(via, to, rest),
            ["expect", rest @ ..] => self.expect(rest),
            ["show"] => self.show(),
            _ => panic!("no such command: {command}"),
        }
    }

    fn wait_primary(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.primary().is_empty() && self.step(end) {}
        assert!(!self.primary().is_empty(), "nobody leads within {ms} ms\n{}", self.log);
    }

    /// Runs until a message of this kind from the node arrives somewhere (and lets it arrive).
    fn until(&mut self, name: &str, message: &str, ms: u64) {
        let end = self.now + ms;
        loop {
            let next = self.flights.front();
            let due = next.is_some_and(|f| f.from.id.node.as_str() == name && f.packet.message.name() == message);
            assert!(self.step(end), "no {message} of {name} within {ms} ms\n{}", self.log);
            if due {
                return;
            }
        }
    }

    fn wipe(&mut self, name: &str) {
        let m = self.machine(name);
        assert!(m.node.is_none(), "{name} runs");
        (m.disk, m.run, m.hard) = (DiskId(m.disk.0 + 0x10_0000), 0, ais_ha::HardState::default());
    }

    fn heal(&mut self) {
        let cuts = std::mem::take(&mut self.cuts);
        for (from, to) in cuts {
            if self.running().contains(&from) && self.running().contains(&to) {
                self.connect(&from, &to);
                self.connect(&to, &from);
            }
        }
    }

    fn deliver_kept(&mut self) {
        self.keep.clear();
        for (to, packet) in std::mem::take(&mut self.kept) {
            let line = format!("late: {} of {} reaches {to}", packet.message.name(), packet.from.id.node);
            self.say(&line);
            self.feed(&to, Input::Message(Box::new(packet)));
        }
    }

    fn bucket(&mut self, gateway: &str, client: Option<&str>, name: &str) {
        let change = Change::CreateBucket { name: name.parse().unwrap(), created_ns: 0, props: Default::default() };
        self.propose(gateway, client, change);
    }

    /// Nodes, and words that begin with `+`: options.
    fn membership(&mut self, action: &str, gateway: &str, rest: &[&str]) {
        let has = |option: &str| rest.contains(&option);
        let options = MemberOptions {
            skip_rebalance: has("+skip-rebalance"),
            rm_user_data: has("+rm-user-data"),
            keep_initial_config: has("+keep-initial-config"),
            no_shutdown: has("+no-shutdown"),
        };
        let nodes = rest.iter().filter(|w| !w.starts_with('+')).map(|n| id(n)).collect();
        let action = MemberAction::named(action).unwrap();
        self.propose(gateway, None, Change::Membership { action, nodes, options });
    }

    fn propose(&mut self, gateway: &str, client: Option<&str>, change: Change) {
        let own = || RequestId::Client(client.unwrap_or_default().to_owned());
        let node = self.machine(gateway).node.as_mut().unwrap();
        let request = if client.is_some() { own() } else { node.request_id().unwrap() };
        // As the shell does: judged by what is published here.
        let basis = self.view(gateway).published.map(|state| state.basis(&change));
        self.feed(gateway, Input::Propose { request, change, basis });
    }

    fn transfer(&mut self, via: &str, to: &str, rest: &[&str]) {
        let value = |key: &str| rest.iter().position(|w| *w == key).map(|at| rest[at + 1]);
        let input = Input::Transfer {
            nonce: self.now,
            to: id(to),
            expected_primary: value("if-primary").map(id),
            expected_epoch: value("if-epoch").map(|e| e.parse().unwrap()),
        };
        self.feed(via, input);
    }

    fn expect(&mut self, words: &[&str]) {
        let context = self.log.clone();
        match words {
            ["primary", name] => assert_eq!(self.primary(), [*name], "{context}"),
            ["no-primary"] => assert!(self.primary().is_empty(), "{:?} leads\n{context}", self.primary()),
            ["replies", n] => {
                assert_eq!(self.replies.values().flatten().count(), n.parse::<usize>().unwrap(), "{context}");
                assert!(self.replies.values().all(|r| r.len() == 1), "answered twice");
            }
            ["epoch", name, epoch] => assert_eq!(self.view(name).epoch.to_string(), *epoch, "{context}"),
            ["fulls", name, n] => {
                let sent = self.machines[*name].node.as_ref().unwrap().stats().fulls;
                assert_eq!(sent.to_string(), *n, "whole States that {name} sent\n{context}");
            }
            ["promised", name, epoch] => assert_eq!(self.view(name).promised.epoch.to_string(), *epoch, "{context}"),
            ["ready", name] => assert!(self.view(name).ready, "{}", self.view(name).reason),
            ["not-ready", name] => assert!(!self.view(name).ready),
            ["formed", name] => assert!(self.genesis(name).is_formed(), "{:?}", self.genesis(name)),
            ["unformed", name] => assert!(!self.genesis(name).is_formed(), "{:?}", self.genesis(name)),
            ["down", name] => assert!(self.machines[*name].node.is_none(), "{name} runs"),
            ["agree"] => self.expect_agreement(),
            ["peer", at, name, yes] => {
                let known = self.view(at).peers.contains_key(&id(name));
                assert_eq!(known, *yes == "yes", "{:?}", self.view(at).peers.keys());
            }
            ["reason", name, words @ ..] => {
                let reason = self.view(name).reason;
                assert!(reason.contains(&words.join(" ")), "{reason}\n{context}");
            }
            ["role", name, role] => assert_eq!(self.view(name).role.as_str(), *role, "{context}"),
            ["voters", names @ ..] => {
                let first = || self.running().first().cloned().unwrap();
                let at = self.primary().first().cloned().unwrap_or_else(first);
                let state = self.view(&at).published.unwrap();
                let voters: Vec<String> = state.electorate().iter().map(|v| v.id.node.to_string()).collect();
                assert_eq!(voters, *names, "{context}");
            }
            ["member", name, yes] => {
                let at = self.primary()[0].clone();
                let state = self.view(&at).published.unwrap();
                assert_eq!(state.nodes().contains_key(&id(name)), *yes == "yes", "{context}");
            }
            ["flags", name, flags] => {
                let at = self.running().first().cloned().unwrap();
                let state = self.view(&at).published.unwrap();
                let found = state.nodes().get(&id(name)).map(|n| n.flags.to_string());
                assert_eq!(found.as_deref().unwrap_or("none"), *flags, "{context}");
            }
            ["transaction", action] => {
                let at = self.running().first().cloned().unwrap();
                let state = self.view(&at).published.unwrap();
                let found = state.transaction().map_or("none", |t| t.action.as_str());
                assert_eq!(found, *action, "{context}");
            }
            ["stopping", name, yes] => {
                let found = self.view(name).published.is_some_and(|s| s.head().stopping);
                assert_eq!(found, *yes == "yes", "{context}");
            }
            ["bucket", at, name, yes] => {
                let has = self
                    .view(at)
                    .published
                    .unwrap()
                    .buckets()
                    .contains_key(&name.parse::<ais_meta::BucketName>().unwrap());
                assert_eq!(has, *yes == "yes", "{context}");
            }
            _ => panic!("cannot expect {words:?}"),
        }
    }

    /// L2: all running members publish the same stamp.
    fn expect_agreement(&self) {
        let stamps: Vec<_> =
            self.running().iter().map(|n| (n.clone(), self.view(n).published.map(|s| s.stamp()))).collect();
        assert!(stamps.iter().all(|(_, s)| *s == stamps[0].1 && s.is_some()), "{stamps:?}\n{}", self.log);
    }

    fn view(&self, name: &str) -> ais_ha::View {
        self.machines[name].node.as_ref().unwrap_or_else(|| panic!("{name} does not run")).view()
    }

    fn show(&mut self) {
        let names = self.running();
        for name in names {
            let v = self.view(&name);
            let stamp = |s: Option<String>| s.unwrap_or_else(|| "-".to_owned());
            let published = v.published.as_ref();
            let voter = |v: &VoterId| v.node.to_string();
            let voters: Vec<String> =
                published.map(|s| s.electorate().iter().map(|v| voter(&v.id)).collect()).unwrap_or_default();
            let nodes: Vec<String> =
                published.map(|s| s.nodes().keys().map(ToString::to_string).collect()).unwrap_or_default();
            let line = format!(
                "{name}: {}{}, promised {}, accepted {}, published {}, smap v{} [{}], voters [{}]{}{}",
                v.role.as_str(),
                if v.ready { "" } else { " (not ready)" },
                v.promised.epoch,
                stamp(v.accepted.map(|s| s.to_string())),
                stamp(published.map(|s| s.stamp().to_string())),
                published.map_or(0, |s| s.smap().version),
                nodes.join(" "),
                voters.join(" "),
                if v.reason.is_empty() { "" } else { "; " },
                v.reason,
            );
            let _ = writeln!(self.log, "        {line}");
        }
    }
}
