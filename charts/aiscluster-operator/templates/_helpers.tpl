{{- define "aisop.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "aisop.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "aisop.labels" -}}
{{ include "aisop.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "aisop.serviceAccount" -}}
{{- default (include "aisop.name" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "aisop.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{/* What the operator may do with clusters and with what they consist of, and why. */}}
{{- define "aisop.rules" -}}
# Clusters: read; the finalizer is metadata. Nothing here lets it change a spec's meaning: it never writes one.
- apiGroups: [aiscluster.dev]
  resources: [aisclusters]
  verbs: [get, list, watch, patch]
- apiGroups: [aiscluster.dev]
  resources: [aisclusters/status]
  verbs: [patch]
# Owner references that block deletion of their owner.
- apiGroups: [aiscluster.dev]
  resources: [aisclusters/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [get, list, watch, create, patch, delete]
# By name only: one secret a cluster.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch]
# The primary's label; a pod of an old template is deleted when its turn has come.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch, delete]
# The label of a founded cluster; state volumes of a founding that was given up go.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [list, patch, delete]
{{- if not .Values.watchNamespace }}
# Which nodes are drained: their primary leaves beforehand. Nodes belong to no namespace.
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
{{- end }}
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}
