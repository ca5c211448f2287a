{{/* Questions that several templates ask. Each answers "true" or nothing, for use in `if include`. */}}

{{- define "loragate.isShared" -}}
{{- if eq .Values.mode "shared" }}true{{ end -}}
{{- end }}

{{- define "loragate.isStateful" -}}
{{- if eq .Values.workload "StatefulSet" }}true{{ end -}}
{{- end }}

{{- define "loragate.isScaled" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled }}true{{ end -}}
{{- end }}

{{- define "loragate.hasSeveralReplicas" -}}
{{- if or (include "loragate.isScaled" .) (gt (int .Values.replicaCount) 1) }}true{{ end -}}
{{- end }}

{{/* Whether every replica gets a claim of its own from the StatefulSet. */}}
{{- define "loragate.claimsPerReplica" -}}
{{- if and (include "loragate.isStateful" .) (not .Values.persistence.existingClaim) }}true{{ end -}}
{{- end }}

{{- define "loragate.hasPolicyFile" -}}
{{- if or .Values.policy.document .Values.policy.existingConfigMap }}true{{ end -}}
{{- end }}

{{- define "loragate.hasPostgres" -}}
{{- if .Values.database.existingSecret }}true{{ end -}}
{{- end }}

{{/* The ports of the relays for WebSockets, in a list. */}}
{{- define "loragate.relayPorts" -}}
{{- $ports := list -}}
{{- range dig "intercept" "relays" dict .Values.config -}}
  {{- $ports = append $ports (regexFind "[0-9]+$" .listen | int) -}}
{{- end -}}
{{- toYaml (sortAlpha $ports) -}}
{{- end }}

{{- define "loragate.hasTls" -}}
{{- if and .Values.tls.enabled (include "loragate.isShared" .) }}true{{ end -}}
{{- end }}

{{/* Whether two pods at once could write one volume that holds a decision log: then the old one
has to end before the new one starts. */}}
{{- define "loragate.hasSoleWriter" -}}
{{- if and .Values.persistence.enabled (ne .Values.persistence.accessMode "ReadWriteMany") }}true{{ end -}}
{{- end }}

{{/* Whether the cluster knows a kind. Takes a dict of root, group (with version) and kind. */}}
{{- define "loragate.knows" -}}
{{- $apis := .root.Capabilities.APIVersions -}}
{{- if or ($apis.Has (printf "%s/%s" .group .kind)) ($apis.Has .group) }}true{{ end -}}
{{- end }}

{{- define "loragate.knowsServiceMonitor" -}}
{{- include "loragate.knows" (dict "root" . "group" "monitoring.coreos.com/v1" "kind" "ServiceMonitor") -}}
{{- end }}

{{- define "loragate.knowsPrometheusRule" -}}
{{- include "loragate.knows" (dict "root" . "group" "monitoring.coreos.com/v1" "kind" "PrometheusRule") -}}
{{- end }}

{{/* always, never, or auto: where the cluster knows the kind. Takes a dict of create and known. */}}
{{- define "loragate.isWanted" -}}
{{- if or (eq .create "always") (and (eq .create "auto") .known) }}true{{ end -}}
{{- end }}

{{- define "loragate.wantsServiceMonitor" -}}
{{- include "loragate.isWanted" (dict "create" .Values.monitoring.serviceMonitor.create "known" (include "loragate.knowsServiceMonitor" .)) -}}
{{- end }}

{{- define "loragate.wantsPrometheusRule" -}}
{{- include "loragate.isWanted" (dict "create" .Values.monitoring.prometheusRule.create "known" (include "loragate.knowsPrometheusRule" .)) -}}
{{- end }}

{{- define "loragate.wantsDisruptionBudget" -}}
{{- $several := include "loragate.hasSeveralReplicas" . -}}
{{- if include "loragate.isShared" . -}}
{{- include "loragate.isWanted" (dict "create" .Values.podDisruptionBudget.create "known" $several) -}}
{{- end -}}
{{- end }}

{{- define "loragate.wantsMigrations" -}}
{{- if and .Values.migrations.enabled (include "loragate.hasPostgres" .) }}true{{ end -}}
{{- end }}
