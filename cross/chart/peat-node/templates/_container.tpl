{{/*
The container, for this chart's pod and for a parent chart's:
  containers:
    {{- include "peat-node.container" (index .Subcharts "peat-node") | nindent 8 }}
  volumes:
    {{- include "peat-node.volumes" (index .Subcharts "peat-node") | nindent 8 }}
*/}}
{{- define "peat-node.container" -}}
- name: peat-node
  image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [run]
  env:
    {{- include "peat-node.env" . | nindent 4 }}
  ports:
    - name: quic
      containerPort: {{ .Values.port }}
      protocol: UDP
    {{- with include "peat-node.apiPort" . | splitList " " | first }}
    - name: api
      containerPort: {{ . }}
    {{- end }}
  startupProbe:
    exec: { command: [/peat-node, status] }
    {{- toYaml .Values.probes.startup | nindent 4 }}
  livenessProbe:
    exec: { command: [/peat-node, status] }
    {{- toYaml .Values.probes.liveness | nindent 4 }}
  readinessProbe:
    exec: { command: [/peat-node, health] }
    {{- toYaml .Values.probes.readiness | nindent 4 }}
  securityContext:
    {{- toYaml .Values.securityContext | nindent 4 }}
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
  volumeMounts:
    - name: peat-node-data
      mountPath: /data/peat-node
    - name: peat-node-socket
      mountPath: /run/peat-node
    {{- if .Values.sharedKey.existingSecret }}
    - name: peat-node-shared-key
      mountPath: /etc/peat-node/shared-key
      readOnly: true
    {{- end }}
    {{- if .Values.apiToken.existingSecret }}
    - name: peat-node-api-token
      mountPath: /etc/peat-node/api-token
      readOnly: true
    {{- end }}
{{- end -}}

{{- define "peat-node.env" -}}
{{- if or (contains "$(POD_NAME)" .Values.nodeId) (contains "$(POD_NAME)" .Values.agentId) }}
- name: POD_NAME
  valueFrom:
    fieldRef: { fieldPath: metadata.name }
{{- end }}
{{- with .Values.nodeId }}
- name: PEAT_NODE_NODE_ID
  value: {{ . | quote }}
{{- end }}
{{- if .Values.agentId }}
- name: PEAT_NODE_AGENT_ID
  value: {{ .Values.agentId | quote }}
{{- else if include "peat-node.generatedAgentId" . }}
- name: PEAT_NODE_AGENT_ID
  valueFrom:
    configMapKeyRef: { name: {{ include "peat-node.name" . }}-agent, key: agent-id }
{{- end }}
{{- /* The mount is the volume's root, which belongs to root and may hold lost+found; the node makes a private directory in it. */}}
- name: PEAT_NODE_DATA_DIR
  value: /data/peat-node/peat-node
- name: RUNTIME_DIRECTORY
  value: /run/peat-node
- name: PEAT_NODE_LISTEN
  value: {{ include "peat-node.listen" . | quote }}
- name: PEAT_NODE_BIND
  value: {{ printf "0.0.0.0:%d" (int .Values.port) | quote }}
- name: PEAT_NODE_AUTO_SYNC
  value: {{ .Values.autoSync | quote }}
{{- with .Values.peers }}
- name: PEAT_NODE_PEERS
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.agentAddr }}
- name: PEAT_NODE_AGENT_ADDR
  value: {{ . | quote }}
- name: PEAT_NODE_AGENT_POLL_INTERVAL
  value: {{ $.Values.agentPollInterval | quote }}
{{- end }}
{{- if .Values.sharedKey.existingSecret }}
- name: PEAT_NODE_SHARED_KEY_FILE
  value: /etc/peat-node/shared-key/shared.key
{{- end }}
{{- if .Values.apiToken.existingSecret }}
- name: PEAT_NODE_API_TOKEN_FILE
  value: /etc/peat-node/api-token/token
{{- else if and .Values.insecureApi (include "peat-node.apiPort" .) }}
- name: PEAT_NODE_INSECURE_API
  value: "true"
{{- end }}
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}
