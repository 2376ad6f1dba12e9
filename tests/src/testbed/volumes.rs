//! Local volumes: folders of the state, offered as PersistentVolumes that only this node can use.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::layout::NODE;

/// The user of the project's image.
const USER: u32 = 65532;

impl Cluster {
    /// Offers `count` more volumes of `gib` GiB each; claims without a class bind to them. Returns their names.
    pub fn create_volumes(&self, count: usize, gib: u32) -> Result<Vec<String>> {
        let mut names = Vec::with_capacity(count);
        let mut objects = Vec::with_capacity(count);
        for index in 0.. {
            let name = format!("local-{index:03}");
            if names.len() == count {
                break;
            }
            // A volume that exists already, also one of an earlier life, has its folder.
            if self.volume_folder(&name).exists() {
                continue;
            }
            self.make_volume_folder(&name)?;
            objects.push(self.volume(&name, &format!("{gib}Gi")));
            names.push(name);
        }
        self.apply_volumes(objects)?;
        Ok(names)
    }

    /// Empties every volume whose claim is gone and offers it again. Returns how many.
    pub fn recycle_volumes(&self) -> Result<usize> {
        let kubectl = self.kubectl();
        let mut objects = Vec::new();
        for volume in kubectl.list("persistentvolumes", None)? {
            if volume["status"]["phase"] != "Released" || volume["spec"]["storageClassName"] != "local" {
                continue;
            }
            let name = volume["metadata"]["name"].as_str().context("a volume without a name")?;
            let size = volume["spec"]["capacity"]["storage"].as_str().context("a volume without a size")?;
            kubectl.delete(&format!("persistentvolume/{name}"), Duration::from_secs(30))?;
            let folder = self.volume_folder(name);
            fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
            self.make_volume_folder(name)?;
            objects.push(self.volume(name, size));
        }
        let count = objects.len();
        self.apply_volumes(objects)?;
        Ok(count)
    }

    /// Where a volume's data is on the host.
    pub fn volume_folder(&self, name: &str) -> PathBuf {
        self.layout().path("volumes").join(name)
    }

    fn make_volume_folder(&self, name: &str) -> Result<()> {
        let folder = self.volume_folder(name);
        let make = || {
            fs::create_dir_all(&folder)?;
            chown(&folder, Some(USER), Some(USER))?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o2770))
        };
        make().with_context(|| format!("cannot make {}", folder.display()))
    }

    fn volume(&self, name: &str, size: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": size},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "local",
                "local": {"path": self.volume_folder(name)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
                ]}]}},
            },
        })
    }

    fn apply_volumes(&self, objects: Vec<Value>) -> Result<()> {
        if objects.is_empty() {
            return Ok(());
        }
        self.kubectl().apply_json(&json!({"apiVersion": "v1", "kind": "List", "items": objects})).map(drop)
    }
}
