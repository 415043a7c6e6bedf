{{- define "peat-node.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "peat-node.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "peat-node.target" -}}
{{- if .Values.service.selector -}}
{{ toYaml .Values.service.selector }}
{{- else -}}
{{ include "peat-node.selector" . }}
{{- end -}}
{{- end -}}

{{- define "peat-node.labels" -}}
{{ include "peat-node.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "peat-node.claim" -}}
{{- .Values.persistence.existingClaim | default (printf "%s-data" (include "peat-node.name" .)) -}}
{{- end -}}

{{/* The port of the first TCP listener, or nothing. */}}
{{- define "peat-node.apiPort" -}}
{{- range .Values.listen -}}
{{- if hasPrefix "tcp://" . }}{{ regexFind "[0-9]+$" . }} {{ end -}}
{{- end -}}
{{- end -}}
