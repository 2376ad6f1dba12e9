//! `bench failover --kubernetes`: the drills that pods can take, in a test Kubernetes of their own.

use anyhow::{Context, Result};

use super::bench::{Figures, measure};
use crate::drill::Drill;
use crate::product::{self, PodDrills, Product};
use crate::progress::Progress;
use crate::testbed::Cluster;

/// Its addresses are not those of `up` and not those of the tests, so that all can run side by side.
const NUMBER: u8 = 104;
const GATEWAYS: usize = 3;
const TARGETS: usize = 3;

/// The cluster that is measured.
#[derive(Debug)]
pub struct Place {
    testbed: Cluster,
    product: Product,
}

impl Place {
    /// Brings everything up from nothing.
    pub fn up(progress: &Progress) -> Result<Self> {
        let programs = product::binaries(progress)?;
        let testbed = Cluster::up_fresh(NUMBER, &super::state_dir().join("bench"), progress)?;
        let product = Product::in_testbed(&testbed, GATEWAYS, TARGETS);
        product::import(&testbed, &programs)?;
        testbed.create_volumes(product.volumes(), product::VOLUME_GIB)?;
        product.install_operator()?;
        product.make_namespace()?;
        product.kubectl.apply(&product.manifest())?;
        product.wait_ready(progress)?;
        Ok(Self { testbed, product })
    }

    /// One drill; `None` for those that are made on processes only.
    pub fn measure(&self, drill: Drill, n: u32, progress: &Progress) -> Result<Option<Figures>> {
        match drill {
            Drill::Kill9 | Drill::Sigterm | Drill::Planned => {}
            Drill::PlannedDead | Drill::TwoPlusOne | Drill::Sigstop | Drill::BlackHole => return Ok(None),
        }
        let mut drills = PodDrills::new(&self.product, Some(&self.testbed));
        let figures = measure(&mut drills, drill, n, progress).with_context(|| self.product.diagnosis())?;
        Ok(Some(figures))
    }

    /// Removes all of it.
    pub fn down(self) -> Result<()> {
        self.testbed.down()
    }
}
