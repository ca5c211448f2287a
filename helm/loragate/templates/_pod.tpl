{{/* The pod of the shared service, and what Deployment and StatefulSet have in common. */}}

{{- define "loragate.podTemplate" -}}
{{- $server := dict "root" . "component" "server" -}}
metadata:
  labels:
    {{- include "loragate.labels" $server | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # Not over the policy: the server follows it, and a new one needs no new pods.
    checksum/config: {{ include "loragate.config" . | sha256sum }}
    kubectl.kubernetes.io/default-container: loragate
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- with include "loragate.imagePullSecrets" . }}
  imagePullSecrets: {{ . }}
  {{- end }}
  serviceAccountName: {{ include "loragate.serviceAccountName" . }}
  automountServiceAccountToken: false
  # Variables like LORAGATE_SERVICE_HOST would be taken for settings.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ int .Values.terminationGracePeriodSeconds }}
  securityContext:
    {{- include "loragate.podSecurityContext" . | nindent 4 }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- if eq .Values.library.source "image" }}
  initContainers:
    - {{ include "loragate.libraryInitContainer" . | indent 6 | trim }}
  {{- end }}
  containers:
    - {{ include "loragate.container" . | indent 6 | trim }}
  volumes:
    {{- include "loragate.volumes" . | nindent 4 }}
  {{- with include "loragate.placement" . }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if include "loragate.hasSeveralReplicas" . }}
  {{- include "loragate.topologySpread" . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Which nodes a pod of the chart may run on, whatever it does. */}}
{{- define "loragate.placement" -}}
{{- $lines := list }}
{{- range $name := list "nodeSelector" "tolerations" "affinity" }}
{{- with index $.Values $name }}
{{- $lines = append $lines (toYaml (dict $name .)) }}
{{- end }}
{{- end }}
{{- join "\n" $lines }}
{{- end }}

{{- define "loragate.topologySpread" -}}
{{- with .Values.topologySpread }}
topologySpreadConstraints:
  {{- range . }}
  - topologyKey: {{ .topologyKey }}
    maxSkew: {{ int .maxSkew }}
    whenUnsatisfiable: {{ .whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "loragate.selectorLabels" (dict "root" $ "component" "server") | nindent 8 }}
    # Counts the pods of one rollout only, else the old ones would decide where the new ones go.
    {{- if not (include "loragate.isStateful" $) }}
    matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "loragate.claim" -}}
accessModes: [{{ .accessMode }}]
{{- with .storageClassName }}
storageClassName: {{ . | quote }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end }}

{{- define "loragate.claimTemplates" -}}
{{- $state := and .Values.persistence.enabled (include "loragate.claimsPerReplica" .) }}
{{- $triton := and .Values.tritonCache.enabled (not .Values.tritonCache.existingClaim) }}
{{- if or $state $triton }}
volumeClaimTemplates:
  {{- if $state }}
  - metadata:
      name: loragate-state
    spec:
      {{- include "loragate.claim" .Values.persistence | nindent 6 }}
  {{- end }}
  {{- if $triton }}
  - metadata:
      name: loragate-triton-cache
    spec:
      {{- include "loragate.claim" .Values.tritonCache | nindent 6 }}
  {{- end }}
{{- end }}
{{- end }}
