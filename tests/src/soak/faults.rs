//! Does a step to a cluster, and makes it whole again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;

use super::GUESTS;
use super::plan::{Fault, Step, Who};
use crate::client;
use crate::history::Random;
use crate::processes::{Kind, LOOK_EVERY, Starved};
use crate::scene::Scene;
use crate::wait::Wait;

/// How long a cluster may take to be whole after the worst fault: the replacement of two voters, on a busy machine.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(120);
/// A process that was told to end.
const END_TIMEOUT: Duration = Duration::from_secs(15);

/// One step under way.
pub(super) struct Surgeon<'a> {
    scene: &'a mut Scene,
    starved: Option<Starved>,
}

impl<'a> Surgeon<'a> {
    pub(super) fn new(scene: &'a mut Scene) -> Self {
        Self { scene, starved: None }
    }

    /// Does it, heals it, and waits until all is whole; how long that took.
    pub(super) fn perform(mut self, step: &Step) -> Result<Duration> {
        let victims = self.begin(&step.fault)?;
        self.scene.write_for(step.hold);
        self.end(&step.fault, &victims)?;
        let begin = Instant::now();
        self.whole()?;
        Ok(begin.elapsed())
    }

    fn id(&mut self, who: Who) -> Result<String> {
        let (primary, _) = self.scene.primary()?;
        let of = |kind: Kind| {
            let nodes = self.scene.cluster.nodes.iter();
            let fit = nodes.filter(|node| node.kind == kind && node.id != primary && node.answers());
            fit.map(|node| node.id.clone()).filter(|id| !is_guest(id)).collect::<Vec<_>>()
        };
        let pick = |ids: Vec<String>, n: usize| ids.get(n % ids.len().max(1)).cloned().context("nobody of that kind");
        match who {
            Who::Primary => Ok(primary),
            Who::Gateway(n) => pick(of(Kind::Gateway), n),
            Who::Target(n) => pick(of(Kind::Target), n),
        }
    }

    fn ids(&mut self, who: &[Who]) -> Result<Vec<String>> {
        who.iter().map(|who| self.id(*who)).collect()
    }

    fn begin(&mut self, fault: &Fault) -> Result<Vec<String>> {
        match fault {
            Fault::Kill(who) | Fault::Wipe(who) => {
                let ids = self.ids(who)?;
                for id in &ids {
                    self.scene.cluster.node_mut(id)?.kill9()?;
                }
                Ok(ids)
            }
            Fault::Split(bits) => self.split(*bits),
            Fault::Lossy(per_mille) => {
                let ids = self.scene.cluster.ids();
                let fabric = self.scene.cluster.fabric()?;
                fabric.change(|cuts| ids.iter().for_each(|id| cuts.lose(id, *per_mille)))?;
                Ok(Vec::new())
            }
            Fault::RestartAll(order) => self.restart_all(*order),
            Fault::HandOvers(count) => self.hand_overs(*count),
            Fault::JoinWhileElecting(guest) => self.join_while_electing(*guest),
            Fault::KillRestart(who)
            | Fault::Term(who)
            | Fault::Pause(who)
            | Fault::BlackHole(who)
            | Fault::Deaf(who)
            | Fault::Mute(who)
            | Fault::Cable(who)
            | Fault::DiskFull(who)
            | Fault::DiskHangs(who)
            | Fault::SlowDisk(who, _)
            | Fault::Clock(who, _)
            | Fault::Starve(who, _) => {
                let id = self.id(*who)?;
                self.strike(fault, &id)?;
                Ok(vec![id])
            }
        }
    }

    /// Faults of one node.
    fn strike(&mut self, fault: &Fault, id: &str) -> Result<()> {
        let others: Vec<String> = self.scene.cluster.ids().into_iter().filter(|other| other != id).collect();
        let cluster = &mut self.scene.cluster;
        match fault {
            Fault::KillRestart(_) => {
                cluster.node_mut(id)?.kill9()?;
                cluster.start_node(id)
            }
            Fault::Term(_) => {
                cluster.node_mut(id)?.sigterm()?;
                cluster.node_mut(id)?.reap(END_TIMEOUT).map(drop)
            }
            Fault::Pause(_) => {
                self.scene.pool.shut(id);
                cluster.node_mut(id)?.sigstop().map(drop)
            }
            Fault::BlackHole(_) => {
                self.scene.pool.shut(id);
                cluster.fabric()?.isolate(id)
            }
            Fault::Deaf(_) => {
                cluster.fabric()?.change(|cuts| others.iter().for_each(|other| cuts.one_way(&other.into(), &id.into())))
            }
            Fault::Mute(_) => {
                cluster.fabric()?.change(|cuts| others.iter().for_each(|other| cuts.one_way(&id.into(), &other.into())))
            }
            Fault::Cable(_) => {
                self.scene.pool.shut(id);
                cluster.fabric()?.link(id, false)
            }
            Fault::DiskFull(_) => cluster.volume(id)?.fill(),
            Fault::DiskHangs(_) => cluster.volume(id)?.freeze(),
            Fault::SlowDisk(_, more_ms) => {
                cluster.reconfigure(id, &[("debug_fsync_delay_ms", json!(more_ms))])?;
                cluster.node_mut(id)?.kill9()?;
                cluster.start_node(id)
            }
            Fault::Clock(_, seconds) => cluster.node(id)?.step_clock(*seconds),
            Fault::Starve(_, per_mille) => {
                let pid = cluster.node(id)?.pid().context("it does not run")?;
                self.starved = Some(Starved::hold(pid, *per_mille)?);
                Ok(())
            }
            _ => bail!("{fault:?} does not strike one node"),
        }
    }

    fn split(&mut self, bits: u64) -> Result<Vec<String>> {
        let ids: Vec<String> = self.scene.cluster.ids().into_iter().filter(|id| !is_guest(id)).collect();
        let side: Vec<String> =
            ids.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, id)| id.clone()).collect();
        self.scene.cluster.fabric()?.split(&side)?;
        Ok(Vec::new())
    }

    fn restart_all(&mut self, order: u64) -> Result<Vec<String>> {
        let mut ids: Vec<String> = self.scene.others(&[]);
        for id in &ids {
            self.scene.cluster.node(id)?.kill9_now()?;
        }
        for id in &ids {
            self.scene.cluster.node_mut(id)?.reap(END_TIMEOUT)?;
        }
        let mut random = Random::new(order);
        while !ids.is_empty() {
            let id = ids.swap_remove(random.below(ids.len()));
            self.scene.cluster.start_node(&id)?;
            std::thread::sleep(Duration::from_millis(random.between(0, 300)));
        }
        Ok(Vec::new())
    }

    fn hand_overs(&mut self, count: usize) -> Result<Vec<String>> {
        for _ in 0..count {
            let (primary, epoch) = self.scene.primary()?;
            let gateways = self.scene.cluster.survivors("");
            let at = gateways.iter().position(|(id, _)| *id == primary).context("the primary is no gateway")?;
            let (next, _) = &gateways[(at + 1) % gateways.len()];
            let reply = client::set_primary(&gateways[at].1, next, "")?;
            // Busy with another change, just not leading, or the next is a State behind: no fault of anybody.
            let behind = reply.status == 422 && reply.text().contains("has not caught up");
            let fine = reply.is_success() || behind || [409, 412, 503, 504].contains(&reply.status);
            ensure!(fine, "hand-over to {next} in {epoch}: {} {}", reply.status, reply.text());
        }
        Ok(Vec::new())
    }

    fn join_while_electing(&mut self, guest: usize) -> Result<Vec<String>> {
        let (guest, _) = GUESTS[guest % GUESTS.len()];
        let primary = self.id(Who::Primary)?;
        self.scene.cluster.node_mut(&primary)?.kill9()?;
        self.scene.cluster.start_node(guest)?;
        Ok(vec![primary])
    }

    fn end(&mut self, fault: &Fault, victims: &[String]) -> Result<()> {
        self.starved = None;
        let cluster = &mut self.scene.cluster;
        cluster.fabric()?.heal()?;
        for id in victims {
            match fault {
                Fault::Wipe(_) => cluster.node_mut(id)?.wipe()?,
                Fault::Pause(_) => cluster.node_mut(id)?.sigcont()?,
                Fault::DiskFull(_) => cluster.volume(id)?.make_room()?,
                Fault::DiskHangs(_) => cluster.volume(id)?.thaw()?,
                Fault::Clock(..) => cluster.node(id)?.step_clock(0)?,
                Fault::SlowDisk(..) => {
                    cluster.reconfigure(id, &[])?;
                    cluster.node_mut(id)?.kill9()?;
                }
                _ => {}
            }
            if cluster.node(id)?.pid().is_none() {
                cluster.start_node(id)?;
            }
        }
        if let Fault::JoinWhileElecting(guest) = fault {
            let (guest, _) = GUESTS[*guest % GUESTS.len()];
            self.whole()?;
            self.scene.cluster.node_mut(guest)?.sigterm()?;
            self.scene.cluster.node_mut(guest)?.reap(END_TIMEOUT)?;
        }
        Ok(())
    }

    /// Waits until all follow one primary and every seat of the electorate is held by a disk that lives.
    fn whole(&mut self) -> Result<()> {
        let mut last = String::new();
        let cluster = &mut self.scene.cluster;
        let found = Wait::new("the cluster to be whole", WHOLE_TIMEOUT).every(LOOK_EVERY).until(|| {
            let views = cluster.views()?;
            let leader = crate::processes::led(&views).map_err(|why| anyhow!("{why}"))?;
            for seat in &leader.electorate {
                let held = views.iter().any(|view| (&view.node_id, &view.disk_id) == (&seat.node_id, &seat.disk_id));
                ensure!(held, "nobody lives who holds the seat of {} ({})", seat.node_id, seat.disk_id);
            }
            last = leader.node_id.clone();
            Ok(Some(()))
        });
        found.with_context(|| format!("files in {}", cluster.dir().display()))?;
        for id in cluster.ids() {
            self.scene.pool.open(&id);
        }
        Ok(())
    }
}

fn is_guest(id: &str) -> bool {
    GUESTS.iter().any(|(guest, _)| *guest == id)
}
