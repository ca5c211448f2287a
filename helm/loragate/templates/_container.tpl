{{/* The container that runs the server, in the shared service and as a sidecar. */}}

{{- define "loragate.container" -}}
name: loragate
image: {{ include "loragate.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if include "loragate.isShared" . }}
args: [serve]
{{- else }}
# The socket belongs to the pod's group, so that a container with another user can ask.
command: [/bin/sh, -c, "umask 0007 && exec loragate-server serve"]
{{- end }}
env:
  {{- include "loragate.env" . | nindent 2 }}
ports:
  {{- if include "loragate.isShared" . }}
  - name: grpc
    containerPort: 50051
  {{- end }}
  - name: http-loragate
    containerPort: 9464
  {{- range include "loragate.relayPorts" . | fromYamlArray }}
  - name: relay-{{ . }}
    containerPort: {{ . }}
  {{- end }}
{{- include "loragate.probes" . }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- include "loragate.containerSecurityContext" . | nindent 2 }}
volumeMounts:
  {{- include "loragate.volumeMounts" . | nindent 2 }}
{{- end }}

{{- define "loragate.env" -}}
- name: LORAGATE_CONFIG
  value: /etc/loragate/config/loragate.yaml
{{- include "loragate.databaseEnv" . }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: HOME
  value: /tmp
{{- if eq (include "loragate.kernelBackend" .) "triton" }}
- name: TRITON_CACHE_DIR
  value: /var/cache/triton
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "loragate.databaseEnv" -}}
{{- if include "loragate.hasPostgres" . }}
- name: LORAGATE_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.existingSecret }}
      key: {{ .Values.database.key }}
{{- end }}
{{- end }}

{{/* /healthz answers as soon as the process runs, /readyz when it can decide. A sidecar has started
only when it can decide: the image server waits for that. */}}
{{- define "loragate.probes" }}
startupProbe:
  httpGet:
    path: {{ ternary "/healthz" "/readyz" (eq .Values.mode "shared") }}
    port: http-loragate
  {{- toYaml (ternary .Values.probes.startup .Values.probes.sidecarStartup (eq .Values.mode "shared")) | nindent 2 }}
livenessProbe:
  httpGet:
    path: /healthz
    port: http-loragate
  {{- toYaml .Values.probes.liveness | nindent 2 }}
readinessProbe:
  httpGet:
    path: /readyz
    port: http-loragate
  {{- toYaml .Values.probes.readiness | nindent 2 }}
{{- end }}
