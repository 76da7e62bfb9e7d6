{{- define "lethe.name" -}}
{{- if contains "lethe" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-lethe" (.Release.Name | trunc 44 | trimSuffix "-") }}
{{- end }}
{{- end }}

{{- define "lethe.selector" -}}
app.kubernetes.io/name: lethe
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lethe.labels" -}}
{{ include "lethe.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: lethe
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "lethe.serviceAccount" -}}
{{- default (include "lethe.name" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "lethe.image" -}}
{{- with .Values.image.digest }}{{ $.Values.image.repository }}@{{ . }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The namespaces in which trainer pods are closed off. */}}
{{- define "lethe.trainerNamespaces" -}}
{{- .Values.networkPolicy.trainerNamespaces | default .Values.watchNamespaces | default (list .Release.Namespace) | toJson }}
{{- end }}

{{/* Whether the store is a folder of a volume. */}}
{{- define "lethe.storeIsVolume" -}}
{{- if hasPrefix "file://" .Values.store.uri }}true{{ end }}
{{- end }}

{{/* The volume source of the store, as JSON. */}}
{{- define "lethe.volume" -}}
{{- .Values.store.volume | default (dict "persistentVolumeClaim" (dict "claimName" "lethe-store")) | toJson }}
{{- end }}

{{/* The claim that holds the store; empty if it is another kind of volume. */}}
{{- define "lethe.claim" -}}
{{- dig "persistentVolumeClaim" "claimName" "" (fromJson (include "lethe.volume" .)) }}
{{- end }}

{{/* Where a store in a bucket listens. */}}
{{- define "lethe.storePorts" -}}
- ports:
  {{- range .Values.networkPolicy.storePorts }}
  - port: {{ . }}
    protocol: TCP
  {{- end }}
{{- end }}

{{/* What a pod may reach where the store is a bucket: the bucket, and names. */}}
{{- define "lethe.storeEgress" -}}
{{ include "lethe.storePorts" . }}
- to:
  - namespaceSelector: {}
  ports:
  - port: 53
    protocol: UDP
  - port: 53
    protocol: TCP
{{- end }}

{{/* The variables that say where a bucket is. */}}
{{- define "lethe.storeEnv" -}}
{{- range $name, $value := .Values.store.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- if .Values.store.credentialsSecret }}
- name: LETHE_STORE_CREDENTIALS
  value: /etc/lethe-store
{{- end }}
{{- end }}

{{/* How a container sees the store: as a volume, or by credentials. */}}
{{- define "lethe.storeMount" -}}
{{- if hasPrefix "file://" .values.store.uri -}}
- name: store
  mountPath: {{ .values.store.mountPath }}
  readOnly: {{ .readOnly }}
{{- else if .values.store.credentialsSecret -}}
- name: store-credentials
  mountPath: /etc/lethe-store
  readOnly: true
{{- end }}
{{- end }}

{{/* The folder of the audit log. */}}
{{- define "lethe.auditLog" -}}
{{- .Values.auditLog.uri | default (printf "%s/log" (trimSuffix "/" .Values.store.uri)) | trimSuffix "/" }}
{{- end }}

{{/* On a volume the kubelet makes the folder, and one that is not mounted is not there: it is not taken for an empty log. */}}
{{- define "lethe.logMount" -}}
{{- $uri := include "lethe.auditLog" . -}}
{{- $mount := trimSuffix "/" .Values.store.mountPath -}}
{{- if and .Values.auditLog.enabled (hasPrefix "file://" $uri) -}}
{{- $path := trimPrefix "file://" $uri -}}
{{- if not (and (include "lethe.storeIsVolume" .) (hasPrefix (print $mount "/") $path)) -}}
{{- fail (printf "auditLog.uri is %s, which is on no volume that the operator mounts: it must be below store.mountPath" $uri) -}}
{{- end -}}
- name: store
  mountPath: {{ $path }}
  subPath: {{ trimPrefix (print $mount "/") $path }}
{{- end }}
{{- end }}

{{- define "lethe.storeVolume" -}}
{{- if include "lethe.storeIsVolume" . -}}
- name: store
  {{- include "lethe.volume" . | fromJson | toYaml | nindent 2 }}
{{- else if .Values.store.credentialsSecret -}}
- name: store-credentials
  secret:
    secretName: {{ .Values.store.credentialsSecret }}
{{- end }}
{{- end }}

{{/* The keys that sign evidence and verify it, each a folder of its own: a Secret that is changed is seen without a restart. */}}
{{- define "lethe.keyMounts" -}}
{{- if .Values.evidence.signingKeySecret -}}
- name: signing-key
  mountPath: /etc/lethe-signing-key
  readOnly: true
{{- end }}
{{- if .Values.evidence.trustedKeysConfigMap }}
- name: trusted-keys
  mountPath: /etc/lethe-trusted-keys
  readOnly: true
{{- end }}
{{- end }}

{{- define "lethe.keyVolumes" -}}
{{- if .Values.evidence.signingKeySecret -}}
- name: signing-key
  secret:
    secretName: {{ .Values.evidence.signingKeySecret }}
    defaultMode: 0440
{{- end }}
{{- if .Values.evidence.trustedKeysConfigMap }}
- name: trusted-keys
  configMap:
    name: {{ .Values.evidence.trustedKeysConfigMap }}
{{- end }}
{{- end }}

{{/* The port of a URL. */}}
{{- define "lethe.portOf" -}}
{{- $url := urlParse . -}}
{{- $usual := ternary "443" "80" (eq $url.scheme "https") -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default $usual -}}
{{- end }}
