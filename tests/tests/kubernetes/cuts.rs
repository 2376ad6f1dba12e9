//! Two pods that do not hear each other.

use std::time::{Duration, Instant};

use ais_tests::client;
use ais_tests::product::NAMESPACE;
use anyhow::{Context, Result, ensure};

use crate::bed::Bed;

/// Longer than `suspect` and `lease` (1.5 s and 2 s), shorter than the time after which a member is taken out.
const CUT: Duration = Duration::from_secs(6);

pub(crate) fn pods_cut_from_each_other(bed: &mut Bed) -> Result<String> {
    let (primary, epoch) = bed.product.primary()?;
    let lonely = bed.other_gateway(&[&primary])?;
    let third = bed.other_gateway(&[&primary, &lonely])?;
    let clients = bed.clients()?;
    // Its own calls cannot reach the primary; that is no failure of anybody.
    clients.slow.insert(lonely.clone());
    clients.pool.close(&lonely)?;
    let cut = bed.testbed.cut_pods(NAMESPACE, &primary, &lonely)?;
    let begin = Instant::now();
    let (mut written, mut slowest) = (0, Duration::ZERO);
    let doors: Vec<String> =
        [&primary, &third].iter().map(|pod| Ok(bed.product.addresses(pod)?.0)).collect::<Result<_>>()?;
    while begin.elapsed() < CUT {
        let name = format!("cut-{written}");
        let asked = Instant::now();
        let reply = client::create_bucket(&doors[written % doors.len()], &name, None)?;
        ensure!(reply.is_success(), "{name}: {} {}", reply.status, reply.text());
        slowest = slowest.max(asked.elapsed());
        written += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    // Everybody else still hears the primary: it stays, and nobody else leads.
    let secret = bed.product.secret()?;
    for pod in bed.product.pod_names()? {
        let view = client::view(&bed.product.addresses(&pod)?.1, &secret)?;
        ensure!(view.leads() == (pod == primary), "{pod} is {} while {primary} and {lonely} are cut", view.role);
        ensure!(pod == lonely || view.primary.as_deref() == Some(primary.as_str()), "{pod} follows {:?}", view.primary);
    }
    cut.heal()?;
    let healed = Instant::now();
    let (still, now) = bed.product.primary().context("after the cut was healed")?;
    let took = healed.elapsed();
    ensure!(still == primary && now == epoch, "{still} leads in epoch {now}, {primary} led in {epoch}");
    bed.wait_told(&primary)?;
    let names = client::bmd_names(&bed.product.addresses(&lonely)?.0)?;
    ensure!((0..written).all(|n| names.contains(&format!("cut-{n}"))), "{lonely} lacks what was written meanwhile");
    bed.clients()?.pool.open(&lonely);
    Ok(format!("{primary} and {lonely} for {CUT:.0?}: {written} writes, slowest {slowest:.0?}; whole {took:.1?} after"))
}
