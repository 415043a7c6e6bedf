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

{{/* The listeners with commas between, from a list or from one string. */}}
{{- define "peat-node.listen" -}}
{{- if kindIs "string" .Values.listen -}}
{{ .Values.listen | nospace }}
{{- else -}}
{{ join "," .Values.listen }}
{{- end -}}
{{- end -}}

{{/*
Not empty where a watched agent needs a generated id: the id of its node is random and goes with the pod.
A node with a volume keeps its own.
*/}}
{{- define "peat-node.generatedAgentId" -}}
{{- $volume := or .Values.persistence.enabled .Values.persistence.existingClaim -}}
{{- if and .Values.agentAddr (not .Values.agentId) (not .Values.nodeId) (not .Values.standalone) (not $volume) -}}
yes
{{- end -}}
{{- end -}}

{{/* Fails where several pods would have one id. */}}
{{- define "peat-node.refuseSharedIds" -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- range $name := list "nodeId" "agentId" -}}
{{- $value := index $.Values $name -}}
{{- if and $value (not (contains "$(POD_NAME)" $value)) -}}
{{- fail (printf "%s: %s would be the id of %d pods; write $(POD_NAME) in it, or leave it empty" $name $value (int $.Values.replicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The ports of the TCP listeners, each followed by a space, or nothing. */}}
{{- define "peat-node.apiPort" -}}
{{- range include "peat-node.listen" . | splitList "," -}}
{{- if hasPrefix "tcp://" . }}{{ regexFind "[0-9]+$" . }} {{ end -}}
{{- end -}}
{{- end -}}
