//! Disks that hang, fill up, are copied, restored or lost, and secrets that are rotated, on processes under load. Each
//! history is judged (protocol.md sections 2, 7 and 11). Needs root: small file systems are mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use ais_meta::auth::Secret;
use ais_tests::client::{self, View};
use ais_tests::cmd::wait_child;
use ais_tests::processes::{LocalCluster, Spec, node_binary};
use ais_tests::scene::{Scene, none_failed, summary};
use ais_tests::suite;
use ais_tests::wait::Wait;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

const BEAT: Duration = Duration::from_millis(500);
/// The machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// How `ais-node` ends when it has set its records aside.
const SET_ASIDE: i32 = 75;

fn main() -> ExitCode {
    suite::main(&[
        ("hung_disk_of_the_primary", hung_disk_of_the_primary),
        ("hung_disk_of_a_voter", hung_disk_of_a_voter),
        ("full_disk_of_the_primary", full_disk_of_the_primary),
        ("full_disks_of_all", full_disks_of_all),
        ("second_process_on_one_directory", second_process_on_one_directory),
        ("copied_volume", copied_volume),
        ("process_that_survived_its_replacement", process_that_survived_its_replacement),
        ("restored_volume", restored_volume),
        ("lost_state_directory_of_a_target", lost_state_directory_of_a_target),
        ("rotation_of_the_secret", rotation_of_the_secret),
    ])
}

/// Waits for a node's view.
fn seen(scene: &Scene, id: &str, what: &str, wanted: impl Fn(&View) -> bool) -> Result<View> {
    Wait::new(format!("{id} {what}"), PATIENCE).until(|| {
        let view = scene.cluster.node(id)?.view()?;
        ensure!(wanted(&view), "{id} is {} ({}), ready {}", view.role, view.reason, view.ready);
        Ok(Some(view))
    })
}

fn waits_for(what: &str, mut probe: impl FnMut() -> Result<bool>) -> Result<()> {
    Wait::new(what, PATIENCE).until(|| Ok(probe()?.then_some(())))
}

// ---- disks that fail

fn hung_disk_of_the_primary() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 2).on_volumes())?;
    let (victim, epoch) = scene.primary()?;
    scene.pool.close(&victim)?;
    scene.cluster.volume(&victim)?.freeze()?;
    let others = scene.others(&[&victim]);
    scene.led_among(&others, epoch)?;
    // Alive, not ready, and it says why.
    let hung = seen(&scene, &victim, "says that its disk hangs", |view| view.reason.contains("hangs"))?;
    ensure!(!hung.ready && !hung.leads(), "{hung:?}");
    scene.cluster.node_mut(&victim)?.check_alive()?;
    scene.write_for(2 * BEAT);
    scene.cluster.volume(&victim)?.thaw()?;
    let back = seen(&scene, &victim, "is back", |view| view.ready)?;
    ensure!(back.boot_id == hung.boot_id && back.run == hung.run, "the process was not the same: {back:?}");
    scene.led_after(epoch)?;
    scene.pool.open(&victim);
    scene.write_for(BEAT);
    none_failed(&scene.end()?)
}

fn hung_disk_of_a_voter() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 1).on_volumes())?;
    let (primary, epoch) = scene.primary()?;
    let victim = scene.cluster.survivors(&primary)[0].0.clone();
    let acked = |scene: &Scene| {
        let view = scene.cluster.node(&primary)?.view()?;
        let member = view.members.into_iter().find(|member| member.node_id == victim);
        member.and_then(|member| member.acked).context("the primary does not know the victim")
    };
    scene.cluster.volume(&victim)?.freeze()?;
    seen(&scene, &victim, "says that its disk hangs", |view| view.reason.contains("hangs") && !view.ready)?;
    let (before, newest) = (acked(&scene)?, scene.cluster.node(&primary)?.view()?.stamp);
    scene.write_for(2 * BEAT);
    ensure!(scene.cluster.node(&primary)?.view()?.stamp > newest, "without one voter nothing was committed");
    ensure!(acked(&scene)? == before, "a voter acknowledged what its disk does not have");
    scene.cluster.volume(&victim)?.thaw()?;
    seen(&scene, &victim, "is back", |view| view.ready)?;
    ensure!(scene.primary()? == (primary, epoch), "the voter's disk changed the primary");
    none_failed(&scene.end()?)
}

fn full_disk_of_the_primary() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 1).on_volumes())?;
    let (victim, epoch) = scene.primary()?;
    scene.pool.close(&victim)?;
    scene.cluster.volume(&victim)?.fill()?;
    let others = scene.others(&[&victim]);
    scene.led_among(&others, epoch)?;
    let full = |view: &View| !view.ready && view.reason.contains("No space left");
    seen(&scene, &victim, "says that its disk is full", full)?;
    // Started on a full disk it comes up, and says the same once it has something to write.
    scene.cluster.node_mut(&victim)?.kill9()?;
    scene.cluster.start_node(&victim)?;
    seen(&scene, &victim, "says again that its disk is full", full)?;
    scene.cluster.node_mut(&victim)?.check_alive()?;
    scene.cluster.volume(&victim)?.make_room()?;
    seen(&scene, &victim, "is back", |view| view.ready)?;
    scene.pool.open(&victim);
    scene.write_for(BEAT);
    none_failed(&scene.end()?)
}

fn full_disks_of_all() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 1).on_volumes())?;
    let ids = scene.cluster.ids();
    for id in &ids {
        scene.cluster.volume(id)?.fill()?;
    }
    // Whoever has something to write says so. With two of three voters full nothing is committed, and the third has
    // nothing more to write.
    waits_for("two voters say that their disks are full", || {
        let full = |id: &String| Ok(scene.cluster.node(id)?.view()?.reason.contains("No space left"));
        Ok(ids.iter().map(full).collect::<Result<Vec<bool>>>()?.into_iter().filter(|full| *full).count() >= 2)
    })?;
    for id in &ids {
        scene.cluster.volume(id)?.make_room()?;
    }
    for id in &ids {
        seen(&scene, id, "is back", |view| view.ready)?;
    }
    scene.led_after(0)?;
    scene.commit_through(&ids[0])?;
    Ok(summary(&scene.end()?))
}

// ---- one disk twice

/// A process beside the harness's nodes.
struct Twin {
    child: Child,
    control: String,
    log: PathBuf,
}

impl Twin {
    /// As node `id` is configured, with other ports and these keys.
    fn start(cluster: &LocalCluster, id: &str, keys: &[(&str, Value)]) -> Result<Self> {
        let node = cluster.node(id)?;
        let dir = cluster.dir().join(format!("{id}-twin"));
        fs::create_dir_all(&dir)?;
        let mut config: serde_json::Map<String, Value> = serde_json::from_slice(&fs::read(node.config())?)?;
        let free = || Ok::<_, anyhow::Error>(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let control = free()?;
        for (key, port) in [("public_port", free()?), ("control_port", control), ("peer_port", free()?)] {
            config.insert(key.to_owned(), json!(port));
        }
        config.extend(keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let (file, log) = (dir.join("node.yaml"), dir.join("node.log"));
        fs::write(&file, serde_json::to_string(&config)?)?;
        let out = fs::File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(node_binary()?);
        command.arg("run").arg("--config").arg(file).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        Ok(Self { child: command.spawn()?, control: format!("127.0.0.1:{control}"), log })
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn ended(&mut self) -> Result<ExitStatus> {
        let ended = wait_child(&mut self.child, PATIENCE)?;
        ended.with_context(|| format!("the second process still runs: {}", self.log()))
    }

    fn view(&self, cluster: &LocalCluster) -> Result<View> {
        client::view(&self.control, cluster.secret())
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    drop(fs::remove_dir_all(to));
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn second_process_on_one_directory() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 0))?;
    let (primary, epoch) = scene.primary()?;
    let mut twin = Twin::start(&scene.cluster, &primary, &[])?;
    let status = twin.ended()?;
    ensure!(!status.success() && twin.log().contains("another process uses it"), "{status}: {}", twin.log());
    scene.write_for(BEAT);
    ensure!(scene.primary()? == (primary, epoch), "the attempt changed the primary");
    none_failed(&scene.end()?)
}

fn copied_volume() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 1))?;
    let (primary, epoch) = scene.primary()?;
    let victim = scene.cluster.survivors(&primary)[0].0.clone();
    // Copied while it is not written, then both run: one disk id, one run, two processes.
    scene.pool.close(&victim)?;
    scene.cluster.node_mut(&victim)?.kill9()?;
    let copy = scene.cluster.dir().join("copied");
    copy_dir(&scene.cluster.node(&victim)?.state_dir(), &copy)?;
    scene.bring_back(&victim)?;
    let first = scene.cluster.node(&victim)?.view()?;
    let twin = Twin::start(&scene.cluster, &victim, &[("state_dir", json!(copy))])?;
    // Both raised their run from the same one: whoever came second is refused, by name.
    waits_for("the copy is refused", || Ok(twin.log().contains("two processes run as") || refused(&scene, &primary)?))?;
    scene.write_for(2 * BEAT);
    let second = twin.view(&scene.cluster)?;
    ensure!(second.disk_id == first.disk_id && second.boot_id != first.boot_id, "not a copy: {second:?}");
    ensure!(!second.leads(), "the copy leads: {second:?}");
    let held = scene.cluster.node(&victim)?.view()?;
    ensure!(held.ready && held.boot_id == first.boot_id, "the first process was put out: {held:?}");
    ensure!(scene.primary()? == (primary, epoch), "the copy changed the primary");
    drop(twin);
    scene.write_for(BEAT);
    none_failed(&scene.end()?)
}

fn refused(scene: &Scene, id: &str) -> Result<bool> {
    Ok(fs::read_to_string(scene.cluster.node(id)?.log())?.contains("two processes run as"))
}

/// A pod that was deleted by force while its machine could not be asked: its replacement comes with an empty disk.
fn process_that_survived_its_replacement() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 1))?;
    let (primary, epoch) = scene.primary()?;
    let victim = scene.cluster.survivors(&primary)[0].0.clone();
    let old = scene.cluster.node(&victim)?.view()?;
    let empty = scene.cluster.dir().join("empty");
    let twin = Twin::start(&scene.cluster, &victim, &[("state_dir", json!(empty))])?;
    waits_for("the replacement answers", || Ok(twin.view(&scene.cluster).is_ok()))?;
    scene.write_for(4 * BEAT);
    let second = twin.view(&scene.cluster)?;
    ensure!(!second.ready, "two processes serve as {victim}: {second:?}");
    let held = scene.cluster.node(&victim)?.view()?;
    ensure!(held.ready && held.boot_id == old.boot_id, "the living process was put out: {held:?}");
    ensure!(scene.primary()? == (primary.clone(), epoch), "the replacement changed the primary");
    // Now the old one ends: the new one takes its place.
    scene.pool.close(&victim)?;
    scene.cluster.node_mut(&victim)?.kill9()?;
    waits_for("the replacement is let in", || Ok(twin.view(&scene.cluster)?.ready))?;
    drop(twin);
    scene.bring_back(&victim)?;
    scene.write_for(BEAT);
    none_failed(&scene.end()?)
}

/// A snapshot of a volume is put back after the node went on from it. The others have seen a later run of that disk and
/// remember what it acknowledged: they tell it so, it sets its records aside by itself, and joins as new.
fn restored_volume() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 1))?;
    let (primary, _) = scene.primary()?;
    let victim = scene.cluster.survivors(&primary)[0].0.clone();
    let old = scene.cluster.dir().join("snapshot");
    let state_dir = scene.cluster.node(&victim)?.state_dir();
    // Started once after the snapshot, the copy repeats a run that another process had; started twice, it is behind.
    for starts in [1, 2] {
        scene.pool.close(&victim)?;
        scene.cluster.node_mut(&victim)?.kill9()?;
        copy_dir(&state_dir, &old)?;
        for start in 0..starts {
            if start > 0 {
                scene.pool.close(&victim)?;
                scene.cluster.node_mut(&victim)?.kill9()?;
            }
            scene.bring_back(&victim)?;
        }
        let before = scene.cluster.node(&victim)?.view()?;
        scene.write_for(2 * BEAT);
        scene.pool.close(&victim)?;
        scene.cluster.node_mut(&victim)?.kill9()?;
        copy_dir(&old, &state_dir)?;
        scene.cluster.start_node(&victim)?;
        let status = scene.cluster.node_mut(&victim)?.reap(PATIENCE).context("the older copy is not told")?;
        ensure!(
            status.code() == Some(SET_ASIDE),
            "it ended with {status}: {}",
            scene.cluster.node(&victim)?.log_tail()
        );
        scene.bring_back(&victim)?;
        let after = scene.cluster.node(&victim)?.view()?;
        ensure!(after.disk_id != before.disk_id, "it is back with the disk that forgot: {after:?}");
        scene.write_for(BEAT);
    }
    none_failed(&scene.end()?)
}

// ---- lost records

fn lost_state_directory_of_a_target() -> Result<String> {
    let mut cluster = LocalCluster::prepare(Spec::new(3, 2))?;
    let data: Vec<PathBuf> = ["a", "b"].iter().map(|name| cluster.dir().join("data").join(name)).collect();
    data.iter().try_for_each(fs::create_dir_all)?;
    cluster.reconfigure("t1", &[("mountpaths", json!(data))])?;
    for id in cluster.ids() {
        cluster.start_node(&id)?;
    }
    cluster.wait_agreed()?;
    let mut scene = Scene::on(cluster)?;
    let copies: Vec<PathBuf> = data.iter().map(|path| path.join(".ais.state")).collect();
    waits_for("both copies are written", || Ok(copies.iter().all(|copy| copy.exists())))?;
    let before = scene.cluster.node("t1")?.view()?;
    for damaged in [None, Some(&copies[0])] {
        scene.cluster.node_mut("t1")?.kill9()?;
        scene.cluster.node_mut("t1")?.wipe()?;
        if let Some(copy) = damaged {
            fs::write(copy, b"not a copy at all")?;
        }
        // Nothing else tells it where it belongs.
        let nobody = scene.cluster.dir().join("nobody.yaml");
        fs::write(&nobody, "peers: []\n")?;
        scene.cluster.reconfigure("t1", &[("mountpaths", json!(data)), ("discovery_file", json!(nobody))])?;
        scene.cluster.start_node("t1")?;
        let back = seen(&scene, "t1", "is back", |view| view.ready)?;
        ensure!(back.cluster_uuid == before.cluster_uuid && back.disk_id != before.disk_id, "{back:?}");
        let whole = |copy: &PathBuf| fs::metadata(copy).is_ok_and(|m| m.len() > 100);
        waits_for("the damaged copy is written anew", || Ok(copies.iter().all(whole)))?;
    }
    // Copies of another cluster decide nothing: the node says so and formats nothing.
    scene.cluster.node_mut("t1")?.kill9()?;
    scene.cluster.node_mut("t1")?.wipe()?;
    let foreign = [("mountpaths", json!(data)), ("cluster_uuid", json!("another-cluster"))];
    scene.cluster.reconfigure("t1", &foreign)?;
    scene.cluster.start_node("t1")?;
    let status = scene.cluster.node_mut("t1")?.reap(PATIENCE)?;
    let said = scene.cluster.node("t1")?.log_tail();
    ensure!(!status.success() && said.contains("another-cluster"), "{status}: {said}");
    ensure!(!scene.cluster.node("t1")?.state_dir().join("identity").exists(), "it was formatted");
    scene.cluster.reconfigure("t1", &[("mountpaths", json!(data))])?;
    scene.bring_back("t1")?;
    none_failed(&scene.end()?)
}

// ---- secrets

/// Writes the secrets of all nodes and waits until every one of them has read them.
fn rotate(scene: &Scene, ids: &[String], lines: &[&str]) -> Result<()> {
    let told = |id: &String| -> Result<usize> {
        Ok(fs::read_to_string(scene.cluster.node(id)?.log())?.matches("the secrets changed").count())
    };
    let before = ids.iter().map(told).collect::<Result<Vec<_>>>()?;
    let (path, new) = (scene.cluster.dir().join("secret"), scene.cluster.dir().join("secret.new"));
    fs::write(&new, lines.join("\n"))?;
    fs::rename(&new, &path)?;
    waits_for("everybody has read the secrets", || {
        let now = ids.iter().map(told).collect::<Result<Vec<_>>>()?;
        Ok(now.iter().zip(&before).all(|(now, before)| now > before))
    })
}

fn rotation_of_the_secret() -> Result<String> {
    let (old, new) = ("the-first-secret-of-the-cluster", "the-second-secret-of-the-cluster");
    let mut spec = Spec::new(3, 1);
    spec.secret = Some(old.to_owned());
    let mut cluster = LocalCluster::prepare(spec)?;
    // One node has a file of its own, which nobody will edit.
    cluster.add("forgotten", ais_tests::processes::Kind::Target, &[])?;
    let own = cluster.dir().join("forgotten-secret");
    fs::write(&own, old)?;
    cluster.reconfigure("forgotten", &[("secret_file", json!(own))])?;
    cluster.write_discovery(&[])?;
    for id in cluster.ids() {
        cluster.start_node(&id)?;
    }
    cluster.wait_agreed()?;
    let mut scene = Scene::on(cluster)?;
    let (primary, epoch) = scene.primary()?;
    let ids: Vec<String> = scene.cluster.ids().into_iter().filter(|id| id != "forgotten").collect();
    let view_with = |scene: &Scene, id: &str, secret: &str| {
        let secret = Secret::from_file_content(secret.as_bytes()).context("too short")?;
        client::view(&scene.cluster.node(id)?.control, &secret)
    };
    rotate(&scene, &ids, &[old, new])?;
    scene.write_for(BEAT);
    rotate(&scene, &ids, &[new, old])?;
    scene.write_for(BEAT);
    ensure!(scene.primary()? == (primary.clone(), epoch), "the rotation changed the primary");
    rotate(&scene, &ids, &[new])?;
    // The old one is worth nothing any more; the new one is.
    ensure!(view_with(&scene, &primary, old).is_err(), "the old secret is still accepted");
    ensure!(view_with(&scene, &primary, new)?.leads(), "the rotation changed the primary");
    let locked_out = || Ok(view_with(&scene, "forgotten", old)?.reason.contains("secret"));
    waits_for("the forgotten node says why it is alone", locked_out)?;
    let log = fs::read_to_string(scene.cluster.node("forgotten")?.log())?;
    ensure!(log.contains("compare the cluster secrets"), "its log does not say so");
    scene.write_for(BEAT);
    // And back, so that the harness may look again; the forgotten one finds its way by itself.
    for lines in [&[new, old][..], &[old, new], &[old]] {
        rotate(&scene, &ids, lines)?;
    }
    seen(&scene, "forgotten", "is back", |view| view.ready)?;
    if scene.primary()?.1 != epoch {
        bail!("the way back changed the primary");
    }
    none_failed(&scene.end()?)
}
