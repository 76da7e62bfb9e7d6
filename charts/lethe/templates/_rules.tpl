{{/*
What the operator may do in a namespace that it watches. Every verb is one that it uses; there is no wildcard, and
nothing here reads a Secret.
*/}}
{{- define "lethe.rules" -}}
# Read the kinds that people and the operator write.
- apiGroups: [lethe.dev]
  resources: [diffusionmodels, unlearnpolicies, unlearnrequests, unlearnruns]
  verbs: [get, list, watch]
# What people said to requests. Never looked up by name.
- apiGroups: [lethe.dev]
  resources: [unlearnapprovals]
  verbs: [list, watch]
# Add and remove the finalizer that keeps a model until its ledger is archived.
- apiGroups: [lethe.dev]
  resources: [diffusionmodels]
  verbs: [patch]
# Start runs, whose spec is immutable, and delete old ones.
- apiGroups: [lethe.dev]
  resources: [unlearnruns]
  verbs: [create, delete]
- apiGroups: [lethe.dev]
  resources: [diffusionmodels/status, unlearnrequests/status, unlearnruns/status]
  verbs: [patch]
# Plans, and the archive of a deleted model's ledger. Read by name only.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch]
# One Job per stage of a run. Never changed once created.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
# Termination messages, and the addresses of trainer and server pods.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# What the cluster says about a Job that gets no pod, or a pod that gets no container.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
# The bundle annotation on a serving target; and a second Deployment beside it, where a policy tries candidates first.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# Where audits ask that one.
- apiGroups: [""]
  resources: [services]
  verbs: [get, create, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- if .Values.kueue.enabled }}
# Why a Job waits in its queue. Only Kueue writes them.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list, watch]
{{- end }}
{{- end }}

{{/*
What the collector may read: whatever could name something in the store. It changes nothing in the cluster.
*/}}
{{- define "lethe.collectRules" -}}
- apiGroups: [lethe.dev]
  resources: [diffusionmodels, unlearnapprovals, unlearnrequests, unlearnruns]
  verbs: [list]
# Archived ledgers, of models that may be gone, and plans.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [list]
# What is served.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list]
{{- end }}
