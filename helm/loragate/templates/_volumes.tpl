{{/* What the server mounts, and from where. Names begin with "loragate-", since a sidecar's volumes
lie beside those of another application. */}}

{{- define "loragate.volumeMounts" -}}
- name: loragate-config
  mountPath: /etc/loragate/config
  readOnly: true
{{- if include "loragate.hasPolicyFile" . }}
# As a folder: a file mounted by subPath would never change, and the policy is followed.
- name: loragate-policy
  mountPath: /etc/loragate/policy
  readOnly: true
{{- end }}
{{- if include "loragate.hasTls" . }}
- name: loragate-tls
  mountPath: /etc/loragate/tls
  readOnly: true
{{- if .Values.tls.clientAuth }}
- name: loragate-client-ca
  mountPath: /etc/loragate/client-ca
  readOnly: true
{{- end }}
{{- end }}
{{- if .Values.console.enabled }}
- name: loragate-console
  mountPath: /etc/loragate/console
  readOnly: true
{{- end }}
{{- if .Values.signing.existingSecret }}
- name: loragate-signing
  mountPath: /etc/loragate/signing
  readOnly: true
{{- end }}
{{- if .Values.auditDevices.existingSecret }}
- name: loragate-devices
  mountPath: /etc/loragate/devices
  readOnly: true
{{- end }}
{{- if .Values.events.existingSecret }}
- name: loragate-events
  mountPath: /etc/loragate/events
  readOnly: true
{{- end }}
- name: loragate-state
  mountPath: /var/lib/loragate
  {{- if and .Values.persistence.enabled (include "loragate.isShared" .) (not (include "loragate.claimsPerReplica" .)) (include "loragate.hasSeveralReplicas" .) }}
  # One process writes one decision log.
  subPathExpr: $(POD_NAME)
  {{- end }}
- name: loragate-tmp
  mountPath: /tmp
{{- if eq (include "loragate.kernelBackend" .) "triton" }}
- name: loragate-triton-cache
  mountPath: /var/cache/triton
{{- end }}
{{- if has .Values.library.source (list "claim" "image" "artifact") }}
- name: loragate-library
  mountPath: /srv/library
  readOnly: true
  {{- if and (eq .Values.library.source "claim") .Values.library.claim.subPath }}
  subPath: {{ .Values.library.claim.subPath }}
  {{- end }}
{{- end }}
{{- if .Values.models.existingClaim }}
- name: loragate-models
  mountPath: {{ .Values.models.mountPath }}
  readOnly: true
{{- end }}
{{- if .Values.adapters.existingClaim }}
- name: loragate-adapters
  mountPath: {{ .Values.adapters.mountPath }}
  readOnly: true
{{- end }}
{{- if not (include "loragate.isShared" .) }}
- name: loragate-socket
  mountPath: /run/loragate
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "loragate.volumes" -}}
- name: loragate-config
  configMap:
    name: {{ include "loragate.fullname" . }}-config
{{- if include "loragate.hasPolicyFile" . }}
- name: loragate-policy
  configMap:
    name: {{ include "loragate.policyConfigMapName" . }}
{{- end }}
{{- if include "loragate.hasTls" . }}
{{- include "loragate.tlsVolumes" . }}
{{- end }}
{{- if .Values.console.enabled }}
{{- include "loragate.consoleVolume" . }}
{{- end }}
{{- with .Values.signing.existingSecret }}
- name: loragate-signing
  secret:
    secretName: {{ . }}
    # The server refuses a private key that others than its owner and its group may read.
    defaultMode: 0440
{{- end }}
{{- with .Values.auditDevices.existingSecret }}
- name: loragate-devices
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .Values.events.existingSecret }}
- name: loragate-events
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- include "loragate.stateVolume" . }}
- name: loragate-tmp
  emptyDir:
    sizeLimit: {{ .Values.tmpSizeLimit }}
{{- include "loragate.tritonVolume" . }}
{{- include "loragate.libraryVolume" . }}
{{- with .Values.models.existingClaim }}
- name: loragate-models
  persistentVolumeClaim:
    claimName: {{ . }}
    readOnly: true
{{- end }}
{{- with .Values.adapters.existingClaim }}
- name: loragate-adapters
  persistentVolumeClaim:
    claimName: {{ . }}
    readOnly: true
{{- end }}
{{- if not (include "loragate.isShared" .) }}
- name: loragate-socket
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "loragate.tlsVolumes" }}
- name: loragate-tls
  secret:
    secretName: {{ include "loragate.tlsSecretName" . }}
    defaultMode: 0440
    items:
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
{{- if .Values.tls.clientAuth }}
- name: loragate-client-ca
  {{- if .Values.tls.clientCa.configMapName }}
  configMap:
    name: {{ .Values.tls.clientCa.configMapName }}
  {{- else }}
  secret:
    secretName: {{ default (include "loragate.tlsSecretName" .) .Values.tls.clientCa.secretName }}
    defaultMode: 0440
  {{- end }}
    items:
      - key: {{ .Values.tls.clientCa.key }}
        path: {{ .Values.tls.clientCa.key }}
{{- end }}
{{- end }}

{{- define "loragate.consoleVolume" }}
- name: loragate-console
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ .Values.console.sessionSecret.name }}
          items:
            - key: {{ .Values.console.sessionSecret.key }}
              path: session-secret
      {{- if eq .Values.console.auth "oidc" }}
      - secret:
          name: {{ .Values.console.oidc.clientSecret.name }}
          items:
            - key: {{ .Values.console.oidc.clientSecret.key }}
              path: oidc-client-secret
      {{- else if .Values.console.proxy.secret.name }}
      - secret:
          name: {{ .Values.console.proxy.secret.name }}
          items:
            - key: {{ .Values.console.proxy.secret.key }}
              path: proxy-secret
      {{- end }}
{{- end }}

{{/* Nothing where the StatefulSet's claim templates make the volume. */}}
{{- define "loragate.stateVolume" }}
{{- $claims := and (include "loragate.isShared" .) .Values.persistence.enabled }}
{{- if not (and $claims (include "loragate.claimsPerReplica" .)) }}
- name: loragate-state
  {{- if $claims }}
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-state" (include "loragate.fullname" .)) .Values.persistence.existingClaim }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .Values.persistence.size }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "loragate.tritonVolume" }}
{{- if eq (include "loragate.kernelBackend" .) "triton" }}
{{- if .Values.tritonCache.existingClaim }}
- name: loragate-triton-cache
  persistentVolumeClaim:
    claimName: {{ .Values.tritonCache.existingClaim }}
{{- else if not .Values.tritonCache.enabled }}
- name: loragate-triton-cache
  emptyDir:
    sizeLimit: {{ .Values.tritonCache.size }}
{{- else if not (include "loragate.isStateful" .) }}
- name: loragate-triton-cache
  persistentVolumeClaim:
    claimName: {{ include "loragate.fullname" . }}-triton-cache
{{- end }}
{{- end }}
{{- end }}

{{- define "loragate.libraryVolume" }}
{{- if eq .Values.library.source "claim" }}
- name: loragate-library
  persistentVolumeClaim:
    claimName: {{ .Values.library.claim.name }}
    readOnly: true
{{- else if eq .Values.library.source "image" }}
- name: loragate-library
  emptyDir:
    sizeLimit: {{ .Values.library.image.sizeLimit }}
{{- else if eq .Values.library.source "artifact" }}
- name: loragate-library
  image:
    reference: {{ .Values.library.artifact.reference }}
    pullPolicy: {{ .Values.library.artifact.pullPolicy }}
{{- end }}
{{- end }}

{{/* Copies the library out of an image, on clusters that cannot mount images. */}}
{{- define "loragate.libraryInitContainer" -}}
name: loragate-library
image: {{ .Values.library.image.reference }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [/bin/sh, -c, 'cp -R "$0"/. /srv/library/', {{ .Values.library.image.path | quote }}]
resources:
  requests: {cpu: 50m, memory: 64Mi}
  limits: {cpu: 500m, memory: 128Mi}
securityContext:
  {{- include "loragate.containerSecurityContext" . | nindent 2 }}
volumeMounts:
  - name: loragate-library
    mountPath: /srv/library
{{- end }}
