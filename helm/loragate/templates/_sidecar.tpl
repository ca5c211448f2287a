{{/*
loragate beside an image server in its own pod, as a native sidecar: it has started before the image
server starts, and ends after it. A chart that has this one as a dependency can use these in its
own pod template, with the dependency's values as context:

  labels:
    {{- include "loragate.sidecar.labels" $loragate | nindent 4 }}
  initContainers:
    - {{ include "loragate.sidecar.container" $loragate | indent 6 | trim }}
  volumes:
    {{- include "loragate.sidecar.volumes" $loragate | nindent 4 }}

and in the image server's container:

  env:
    - {name: LORAGATE_TARGET, value: "unix:/run/loragate/loragate.sock"}
  volumeMounts:
    {{- include "loragate.sidecar.clientMounts" $loragate | nindent 4 }}
*/}}

{{- define "loragate.sidecar.labels" -}}
loragate-sidecar: {{ include "loragate.fullname" . }}
{{- end }}

{{- define "loragate.sidecar.container" -}}
{{ include "loragate.container" . }}
restartPolicy: Always
{{- end }}

{{- define "loragate.sidecar.volumes" -}}
{{ include "loragate.volumes" . }}
{{- end }}

{{- define "loragate.sidecar.clientMounts" -}}
- name: loragate-socket
  mountPath: /run/loragate
  readOnly: true
{{- end }}

{{- define "loragate.sidecar.podSpec" -}}
securityContext:
  # Owns the socket; whoever is in this group may ask.
  fsGroup: {{ int .Values.runAs.group }}
  fsGroupChangePolicy: OnRootMismatch
initContainers:
  {{- if eq .Values.library.source "image" }}
  - {{ include "loragate.libraryInitContainer" . | indent 4 | trim }}
  {{- end }}
  - {{ include "loragate.sidecar.container" . | indent 4 | trim }}
{{- end }}

{{- define "loragate.sidecar.clientPatch" -}}
env:
  - name: LORAGATE_TARGET
    value: unix:/run/loragate/loragate.sock
volumeMounts:
  {{- include "loragate.sidecar.clientMounts" . | nindent 2 }}
{{- end }}
