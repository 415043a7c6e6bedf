{{/* All volumes of "peat-node.container". */}}
{{- define "peat-node.volumes" -}}
- name: peat-node-data
  {{- if or .Values.persistence.enabled .Values.persistence.existingClaim }}
  persistentVolumeClaim: { claimName: {{ include "peat-node.claim" . }} }
  {{- else }}
  emptyDir: {}
  {{- end }}
{{ include "peat-node.volumesBesideData" . }}
{{- end -}}

{{- define "peat-node.volumesBesideData" -}}
- name: peat-node-socket
  emptyDir: {}
{{- with .Values.sharedKey.existingSecret }}
- name: peat-node-shared-key
  secret: { secretName: {{ . }}, defaultMode: 0440 }
{{- end }}
{{- with .Values.apiToken.existingSecret }}
- name: peat-node-api-token
  secret: { secretName: {{ . }}, defaultMode: 0440 }
{{- end }}
{{- end -}}
