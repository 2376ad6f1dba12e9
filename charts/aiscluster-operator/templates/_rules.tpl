{{/*
What the operator may do with clusters and with what they consist of. Every rule says why in the comment before it;
tests fail for a rule without one, for one that no test ever used, and for a request that was forbidden.
*/}}
{{- define "aisop.clusterRules" -}}
# Which nodes are drained: their primary leaves beforehand. Nodes belong to no namespace, so in the scope `namespaces`
# evictions are what the operator sees of it.
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
{{- end -}}

{{- define "aisop.rules" -}}
# Clusters are read and watched; patched is their metadata: the finalizer. A spec is never written.
- apiGroups: [aiscluster.dev]
  resources: [aisclusters]
  verbs: [get, list, watch, patch]
# What it sees is told in status, by server-side apply.
- apiGroups: [aiscluster.dev]
  resources: [aisclusters/status]
  verbs: [patch]
# Owner references that block the deletion of their owner need this right on the owner.
- apiGroups: [aiscluster.dev]
  resources: [aisclusters/finalizers]
  verbs: [update]
# Discovery file, seed address, Services of gateways and targets: kept as wanted, removed when no longer wanted.
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [get, list, watch, create, patch, delete]
# The member secret of a cluster, its authority and certificate, and the Secret that its spec.tls.secretRef names, each by
# its name only: no list and no watch, so nobody else's secrets are read in passing. Names are those of clusters, so no
# rule can list them; the scope `namespaces` keeps it to the namespaces that are watched.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch]
# Pods are watched; patched is the label of the one that leads, and the note that makes a kubelet refresh files. A pod of
# an old template is deleted when its turn has come.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch, delete]
# Labels, by which kept volumes are adopted, and sizes. Deleted are state volumes of removed members and of a founding that
# was given up, and all of a cluster with deletionPolicy Delete.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [list, patch, delete]
# The workloads of gateways and targets. Deleted are those of a founding that was given up, and, without their pods,
# those whose volumes grow.
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
# Access gateways, which come and go with a field of the cluster, as the one or the other.
- apiGroups: [apps]
  resources: [deployments, daemonsets]
  verbs: [get, list, watch, create, patch, delete]
# Who may connect to the pods of a cluster; deleted when the spec turns it off.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# Where the Prometheus operator is installed, and a cluster asks for it. Looked at now and then, not watched: a watch of
# an API that is not there would fail for ever.
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, list, create, patch, delete]
# One budget over all pods of a cluster; deleted when the spec turns it off.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Each transition is told once, as an object of its own.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}
