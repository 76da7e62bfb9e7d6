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

{{/* The volume source of the store, as JSON. */}}
{{- define "lethe.volume" -}}
{{- .Values.store.volume | default (dict "persistentVolumeClaim" (dict "claimName" "lethe-store")) | toJson }}
{{- end }}

{{/* The claim that holds the store; empty if it is another kind of volume. */}}
{{- define "lethe.claim" -}}
{{- dig "persistentVolumeClaim" "claimName" "" (fromJson (include "lethe.volume" .)) }}
{{- end }}
