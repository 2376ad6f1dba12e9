//! The test Kubernetes itself: it starts, runs pods, keeps data, can be disturbed, and leaves nothing behind.
//!
//! One test, because its steps share one cluster.

use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ais_tests::image::{self, Archive};
use ais_tests::progress::Progress;
use ais_tests::testbed::components::{API_SERVER, SCHEDULER};
use ais_tests::testbed::process::{all_pids, pid_namespace};
use ais_tests::testbed::{Cluster, HostProcess, Kubectl, pause};
use ais_tests::wait::Wait;
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

const NUMBER: u8 = 101;
const SECOND: u8 = 102;
const NAMESPACE: &str = "probe";
const PORT: u16 = 8080;
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_cluster_runs_pods_keeps_data_takes_faults_and_leaves_nothing() -> Result<()> {
    let progress = Progress::new("testbed test");
    let mut cluster = Cluster::up_fresh(NUMBER, &state(NUMBER), &progress)?;
    pods_run_under_the_restricted_label(&cluster)?;
    progress.line("pods Ready");
    names_resolve(&cluster)?;
    two_pods_are_cut_and_healed(&cluster)?;
    a_pod_is_cut_from_the_api(&cluster)?;
    progress.line("network faults done");
    a_killed_process_is_restarted(&cluster)?;
    progress.line("process faults done");
    components_are_held_and_killed(&cluster)?;
    progress.line("component faults done");
    data_survives_the_pod_and_a_reboot(&mut cluster)?;
    progress.line("data survived");
    volumes_are_recycled(&cluster)?;
    progress.line("volumes recycled");
    a_second_cluster_runs_beside_it(&progress)?;
    another_process_is_refused(&progress)?;
    an_image_of_a_dynamic_program_runs(&cluster)?;
    progress.line("own image ran");
    let inside = pid_namespace(cluster.init().pid()).context("the cluster's first process is gone")?;
    ensure!(processes_in(&inside)? > 10, "the cluster's processes are not seen");
    cluster.down()?;
    progress.line("down");
    ensure!(processes_in(&inside)? == 0, "processes live on");
    for number in [NUMBER, SECOND] {
        let left = Cluster::leftovers(number, &state(number))?;
        ensure!(left.is_empty(), "left of {number}: {left:#?}");
    }
    Ok(())
}

fn processes_in(namespace: &str) -> Result<usize> {
    let pids = all_pids()?;
    Ok(pids.into_iter().filter(|pid| pid_namespace(*pid).as_deref() == Some(namespace)).count())
}

fn state(number: u8) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("testbed-{number}"))
}

fn kubectl(cluster: &Cluster) -> Kubectl {
    cluster.kubectl().in_namespace(NAMESPACE)
}

/// A pod that greets callers, with the claim `data` mounted at /data.
fn pod(name: &str, claim: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "greeter"}},
        "spec": {
            "terminationGracePeriodSeconds": 2,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "greeter", "image": pause::REFERENCE, "imagePullPolicy": "IfNotPresent", "args": [PORT.to_string()],
                "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
                "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
        },
    })
}

fn claim(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    })
}

fn pods_run_under_the_restricted_label(cluster: &Cluster) -> Result<()> {
    cluster.kubectl().apply_json(&json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }))?;
    Wait::new("the namespace's service account", LONG).until(|| kubectl(cluster).try_get("serviceaccount/default"))?;
    cluster.create_volumes(2, 1)?;
    let kubectl = kubectl(cluster);
    for (name, data) in [("a", "data-a"), ("b", "data-b")] {
        kubectl.apply_json(&claim(data))?;
        kubectl.apply_json(&pod(name, data))?;
    }
    kubectl.wait_pods_ready("app=greeter", 2, LONG)?;
    Ok(())
}

fn process(cluster: &Cluster, pod: &str) -> Result<HostProcess> {
    cluster.container_process(NAMESPACE, pod, "greeter")
}

/// What a caller in pod `from` is told at this address; empty when nobody accepts in time.
fn call(cluster: &Cluster, from: &str, to: Ipv4Addr, port: u16) -> Result<String> {
    let script = format!("exec 3<>/dev/tcp/{to}/{port} && read -r -t 0.4 line <&3; echo \"connected $line\"");
    let cmd = cluster.in_network_of(&process(cluster, from)?).args(["timeout", "1.5", "bash", "-c", &script]);
    Ok(cmd.output()?.stdout.trim().to_owned())
}

fn call_from_host(to: Ipv4Addr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((to, PORT)), Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn two_pods_are_cut_and_healed(cluster: &Cluster) -> Result<()> {
    let b = cluster.pod_ip(NAMESPACE, "b")?;
    ensure!(call(cluster, "a", b, PORT)? == "connected hello", "no way from a to b");
    let cut = cluster.cut_pods(NAMESPACE, "a", "b")?;
    ensure!(call(cluster, "a", b, PORT)?.is_empty(), "b answers a through the cut");
    ensure!(call_from_host(b)? == "hello\n", "the host was cut off too");
    cut.heal()?;
    ensure!(call(cluster, "a", b, PORT)? == "connected hello", "not healed");
    let isolated = cluster.isolate_pod(NAMESPACE, "b")?;
    ensure!(call_from_host(b).is_err(), "the host reaches an isolated pod");
    drop(isolated);
    ensure!(call_from_host(b)? == "hello\n", "not healed by dropping");
    Ok(())
}

fn a_pod_is_cut_from_the_api(cluster: &Cluster) -> Result<()> {
    let api = cluster.layout().network.api_service_ip();
    ensure!(call(cluster, "a", api, 443)?.starts_with("connected"), "no way from a to the API server");
    let cut = cluster.cut_from_api(NAMESPACE, "a")?;
    ensure!(call(cluster, "a", api, 443)?.is_empty(), "a reaches the API server through the cut");
    ensure!(call(cluster, "b", api, 443)?.starts_with("connected"), "b was cut off too");
    cut.heal()?;
    ensure!(call(cluster, "a", api, 443)?.starts_with("connected"), "not healed");
    Ok(())
}

fn a_killed_process_is_restarted(cluster: &Cluster) -> Result<()> {
    let first = process(cluster, "b")?;
    let b = cluster.pod_ip(NAMESPACE, "b")?;
    first.stop()?;
    // The kernel still accepts for a stopped process; nobody greets.
    let error = call_from_host(b).err().context("a stopped process greets")?;
    ensure!(
        error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
        "{error}"
    );
    first.cont()?;
    ensure!(call_from_host(b)? == "hello\n", "not continued");
    first.kill()?;
    first.wait_end(Duration::from_secs(5))?;
    kubectl(cluster).wait_for("pod/b", "restarted and Ready", LONG, |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"] == 1 && ais_tests::testbed::kubectl::is_ready(pod)
    })?;
    ensure!(process(cluster, "b")?.pid() != first.pid(), "the same process");
    Ok(())
}

fn components_are_held_and_killed(cluster: &Cluster) -> Result<()> {
    let scheduler = cluster.component(SCHEDULER)?;
    scheduler.hold()?;
    ensure!(scheduler.pid().is_err(), "a held component runs");
    let api = cluster.component(API_SERVER)?;
    let before = api.pid()?;
    api.kill()?;
    Wait::new("the API server to be back", LONG)
        .until(|| Ok((api.pid()? != before && cluster.kubectl().raw("/readyz")? == "ok").then_some(())))?;
    ensure!(scheduler.pid().is_err(), "a held component came back");
    scheduler.release()?;
    Wait::new("the scheduler", LONG).until(|| scheduler.pid().map(Some))?;
    Ok(())
}

fn data_survives_the_pod_and_a_reboot(cluster: &mut Cluster) -> Result<()> {
    let file = |cluster: &Cluster| -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/root/data/kept", process(cluster, "a")?.pid())))
    };
    fs::write(file(cluster)?, "precious").context("cannot write into the pod's volume")?;
    let kubectl = kubectl(cluster);
    kubectl.delete("pod/a", LONG)?;
    kubectl.apply_json(&pod("a", "data-a"))?;
    kubectl.wait_pods_ready("app=greeter", 2, LONG)?;
    ensure!(fs::read_to_string(file(cluster)?)? == "precious", "another volume after the pod's return");

    cluster.reboot()?;
    Wait::new("a's process after the reboot", LONG).until(|| process(cluster, "a").map(Some))?;
    kubectl.wait_pods_ready("app=greeter", 2, LONG)?;
    ensure!(fs::read_to_string(file(cluster)?)? == "precious", "another volume after the reboot");
    ensure!(call_from_host(cluster.pod_ip(NAMESPACE, "b")?)? == "hello\n", "b does not answer after the reboot");
    Ok(())
}

fn volumes_are_recycled(cluster: &Cluster) -> Result<()> {
    let kubectl = kubectl(cluster);
    ensure!(cluster.recycle_volumes()? == 0, "a volume in use was recycled");
    let volume = kubectl.get("persistentvolumeclaim/data-a")?;
    let volume = volume["spec"]["volumeName"].as_str().context("a is not bound")?.to_owned();
    kubectl.delete("pod/a", LONG)?;
    kubectl.delete("persistentvolumeclaim/data-a", LONG)?;
    Wait::new("a released volume", LONG).until(|| Ok((cluster.recycle_volumes()? == 1).then_some(())))?;
    ensure!(fs::read_dir(cluster.volume_folder(&volume))?.next().is_none(), "its data is still there");
    kubectl.apply_json(&claim("data-a"))?;
    kubectl.apply_json(&pod("a", "data-a"))?;
    kubectl.wait_pods_ready("app=greeter", 2, LONG)?;
    Ok(())
}

/// The test's own `xtask`, with the libraries it needs and nothing else: the way the project's image is made.
fn an_image_of_a_dynamic_program_runs(cluster: &Cluster) -> Result<()> {
    let archive = cluster.layout().path("image/own.tar");
    Archive {
        reference: "localhost/own:1",
        entrypoint: &["/xtask"],
        user: image::USER,
        entries: image::with_libraries(&[xtask()?])?,
    }
    .write(&archive)?;
    cluster.import_image(&archive)?;
    let mut pod = pod("own", "data-a");
    pod["spec"]["containers"][0]["image"] = json!("localhost/own:1");
    pod["spec"]["containers"][0]["args"] = json!(["--help"]);
    pod["spec"]["restartPolicy"] = json!("Never");
    let kubectl = kubectl(cluster);
    kubectl.apply_json(&pod)?;
    kubectl.wait_for("pod/own", "done", LONG, |pod| pod["status"]["phase"] == "Succeeded")?;
    ensure!(kubectl.logs("own", "greeter")?.contains("test Kubernetes"), "its log is not its help");
    // In the other pod its port is taken already, and `kubectl exec` says so.
    let taken = kubectl.exec("b", "greeter", &["/pause", &PORT.to_string()]).err().context("a port was taken twice")?;
    ensure!(taken.to_string().contains("exit code 1"), "{taken}");
    Ok(())
}

fn xtask() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.ancestors().nth(2).context("no target folder")?.join("xtask"))
}

/// Asks the cluster's DNS from the host, the way a resolver does.
fn names_resolve(cluster: &Cluster) -> Result<()> {
    let network = cluster.layout().network;
    let known = ask(network.node_ip(), "kubernetes.default.svc.cluster.local")?;
    ensure!(known == Some(network.api_service_ip()), "the API server's name gives {known:?}");
    ensure!(ask(network.node_ip(), "nowhere.example")?.is_none(), "an unknown name has an address");
    Ok(())
}

fn ask(server: Ipv4Addr, name: &str) -> Result<Option<Ipv4Addr>> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    Wait::new(format!("an answer about {name}"), LONG).until(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.send_to(&query, SocketAddr::from((IpAddr::V4(server), 53)))?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer)?;
        match answer[3] & 0x0f {
            // The address is the last thing in an answer of one record.
            0 if answer[7] == 1 => {
                let address = <[u8; 4]>::try_from(&answer[length - 4..length])?;
                Ok(Some(Some(Ipv4Addr::from(address))))
            }
            3 => Ok(Some(None)),
            code => bail!("code {code}, {} answers", answer[7]),
        }
    })
}

fn a_second_cluster_runs_beside_it(progress: &Progress) -> Result<()> {
    let second = Cluster::up_fresh(SECOND, &state(SECOND), progress)?;
    ensure!(second.kubectl().raw("/readyz")? == "ok");
    // Left running, found by somebody who only knows its number and folder, left again, and swept away.
    second.detach()?;
    let again = Cluster::attach(SECOND, &state(SECOND), progress)?.context("a detached cluster is not found")?;
    ensure!(again.kubectl().raw("/readyz")? == "ok");
    again.detach()?;
    Cluster::remove(SECOND, &state(SECOND))?;
    ensure!(Cluster::attach(SECOND, &state(SECOND), progress)?.is_none(), "found after its end");
    progress.line("second cluster done");
    Ok(())
}

/// While this process works with the cluster, nobody else may bring it up or down.
fn another_process_is_refused(progress: &Progress) -> Result<()> {
    let down = ais_tests::cmd::Cmd::new(xtask()?)
        .args(["kubernetes", "down", "--number", &NUMBER.to_string(), "--state"])
        .arg(state(NUMBER))
        .output()?;
    ensure!(!down.ok() && down.stderr.contains("another process of this machine uses it"), "{}", down.stderr);
    progress.line("another process was refused");
    Ok(())
}
