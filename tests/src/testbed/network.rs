//! Addresses of a numbered cluster and its one link to the host.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::cmd::Cmd;
use crate::wait::Wait;

/// Name of the link's end inside the cluster's namespace.
pub const INSIDE: &str = "up0";

/// The ranges of cluster number N, all inside 10.N.0.0/16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    number: u8,
}

impl Network {
    /// The network of cluster `number`, 1 to 254.
    pub fn new(number: u8) -> Result<Self> {
        if !(1..=254).contains(&number) {
            bail!("cluster number {number} is not in 1..254");
        }
        Ok(Self { number })
    }

    /// The host's end of the link.
    pub fn host_ip(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.number, 1, 1)
    }

    /// The node's address: the API server, the kubelet and DNS listen there.
    pub fn node_ip(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.number, 1, 2)
    }

    /// Where pods get their addresses.
    pub fn pod_cidr(self) -> String {
        format!("10.{}.64.0/18", self.number)
    }

    /// Where Services get their addresses.
    pub fn service_cidr(self) -> String {
        format!("10.{}.128.0/20", self.number)
    }

    /// Addresses of pods that only the API server knows: whoever dials one from inside reaches this machine.
    pub fn simulated_cidr(self) -> String {
        format!("10.{}.192.0/18", self.number)
    }

    /// One of them.
    pub fn simulated_ip(self, index: u16) -> Ipv4Addr {
        let [high, low] = (index % (1 << 14)).to_be_bytes();
        Ipv4Addr::new(10, self.number, 192 | high, low)
    }

    /// Makes this machine answer for them, as long as the link is there.
    pub fn make_simulated(self) -> Result<()> {
        ip(&["route", "replace", "local", &self.simulated_cidr(), "dev", &self.link()])
    }

    /// The first Service address, which is the API server's.
    pub fn api_service_ip(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.number, 128, 1)
    }

    /// The whole range.
    pub fn range(self) -> String {
        format!("10.{}.0.0/16", self.number)
    }

    /// The host's interface.
    pub fn link(self) -> String {
        format!("aistest{}", self.number)
    }

    /// Refuses a range that the machine already uses for something else.
    pub fn check_free(self) -> Result<()> {
        let shown = Cmd::new("ip").args(["-j", "route", "show"]).run()?;
        let routes: Vec<Value> = serde_json::from_str(&shown)?;
        let prefix = format!("10.{}.", self.number);
        for route in routes {
            let to = route["dst"].as_str().unwrap_or_default();
            let ours = route["dev"] == self.link() || route["type"] == "blackhole";
            if !ours && (to.starts_with(&prefix) || to == "10.0.0.0/8") {
                bail!("this machine already has a route to {to}: choose another cluster number");
            }
        }
        Ok(())
    }

    /// From here on nothing for the range leaves the machine, whether the cluster is up or not.
    pub fn block(self) -> Result<()> {
        ip(&["route", "replace", "blackhole", &self.range(), "metric", "4000000"])
    }

    /// Whether [`Network::block`] is in force.
    pub fn is_blocked(self) -> Result<bool> {
        let shown = Cmd::new("ip").args(["route", "show", "type", "blackhole"]).run()?;
        Ok(shown.contains(&self.range()))
    }

    /// Undoes [`Network::block`]; nothing may dial the range afterwards.
    pub fn unblock(self) {
        // It may not be there.
        drop(ip(&["route", "del", "blackhole", &self.range(), "metric", "4000000"]));
    }

    /// Makes the link into the namespace of process `init`.
    pub fn make_link(self, init: u32) -> Result<()> {
        let link = self.link();
        ip(&["link", "add", &link, "type", "veth", "peer", "name", INSIDE, "netns", &init.to_string()])?;
        ip(&["addr", "add", &format!("{}/30", self.host_ip()), "dev", &link])?;
        ip(&["link", "set", &link, "up"])
    }

    /// Host routes for pods and Services; the other end of the link must be up.
    pub fn make_routes(self) -> Result<()> {
        for range in [self.pod_cidr(), self.service_cidr()] {
            Wait::new(format!("the route to {range}"), Duration::from_secs(10))
                .every(Duration::from_millis(20))
                .until(|| {
                    ip(&["route", "replace", &range, "via", &self.node_ip().to_string(), "dev", &self.link()]).map(Some)
                })?;
        }
        Ok(())
    }

    /// Whether the host's interface is there.
    pub fn has_link(self) -> bool {
        std::path::Path::new("/sys/class/net").join(self.link()).exists()
    }

    /// Removes the interface and waits until it is gone; its routes go with it.
    pub fn remove_link(self) -> Result<()> {
        if self.has_link() {
            // The namespace's end may take it away at this very moment.
            drop(ip(&["link", "del", &self.link()]));
        }
        Wait::new("the interface to go", Duration::from_secs(10))
            .every(Duration::from_millis(20))
            .until(|| Ok((!self.has_link()).then_some(())))
    }
}

/// Runs `ip`.
pub fn ip(args: &[&str]) -> Result<()> {
    Cmd::new("ip").args(args).timeout(Duration::from_secs(10)).run().map(drop)
}
