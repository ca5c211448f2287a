{{/* What the cluster does not have, what the network would not let through, and what a sidecar
cannot use. */}}

{{- define "loragate.problems.cluster" }}
{{- $needed := list
  (dict "when" (and .Values.tls.enabled .Values.tls.certManager.enabled) "group" "cert-manager.io/v1" "kind" "Certificate" "value" "tls.certManager.enabled" "remedy" "install cert-manager, or name a Secret of your own in tls.secretName")
  (dict "when" .Values.keda.enabled "group" "keda.sh/v1alpha1" "kind" "ScaledObject" "value" "keda.enabled" "remedy" "install KEDA, or use autoscaling.enabled")
  (dict "when" (eq .Values.monitoring.serviceMonitor.create "always") "group" "monitoring.coreos.com/v1" "kind" "ServiceMonitor" "value" "monitoring.serviceMonitor.create: always" "remedy" "install the Prometheus Operator, or set create: auto")
  (dict "when" (eq .Values.monitoring.prometheusRule.create "always") "group" "monitoring.coreos.com/v1" "kind" "PrometheusRule" "value" "monitoring.prometheusRule.create: always" "remedy" "install the Prometheus Operator, or set create: auto")
  (dict "when" .Values.httpRoute.enabled "group" "gateway.networking.k8s.io/v1" "kind" "HTTPRoute" "value" "httpRoute.enabled" "remedy" "install the Gateway API, or use ingress.enabled")
  (dict "when" (eq .Values.catalogue.kind "rayjob") "group" "ray.io/v1" "kind" "RayJob" "value" "catalogue.kind: rayjob" "remedy" "install KubeRay, or use kind: job")
}}
{{- range $needed }}
{{- if and .when (not (include "loragate.knows" (dict "root" $ "group" .group "kind" .kind))) }}
{{ .value }} needs the API {{ .group }}/{{ .kind }}, which this cluster does not have; {{ .remedy }}.
{{- end }}
{{- end }}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuerRef.name) }}
tls.certManager.enabled needs tls.certManager.issuerRef.name, who signs the certificate; set it.
{{- end }}
{{- $version := .Capabilities.KubeVersion.Version }}
{{- if and (eq .Values.library.source "artifact") (semverCompare "<1.33.0-0" $version) }}
library.source: artifact mounts an image as a volume, which Kubernetes {{ $version }} cannot; use 1.33 or newer, or library.source: image.
{{- end }}
{{- if and (not (include "loragate.isShared" .)) (semverCompare "<1.29.0-0" $version) }}
mode: sidecar needs native sidecars, which Kubernetes {{ $version }} does not have; use 1.29 or newer, or mode: shared.
{{- end }}
{{- end }}

{{- define "loragate.problems.network" }}
{{- if and .Values.networkPolicy.enabled (include "loragate.isShared" .) }}
{{- $schemes := dig "intake" "enabled_schemes" list .Values.config }}
{{- $needed := list
  (dict "when" (include "loragate.hasPostgres" .) "name" "database" "value" "database.existingSecret")
  (dict "when" (and .Values.console.enabled (eq .Values.console.auth "oidc")) "name" "oidc" "value" "console.auth: oidc")
  (dict "when" .Values.tracing.enabled "name" "tracing" "value" "tracing.enabled")
  (dict "when" $schemes "name" "objectStore" "value" "config.intake.enabled_schemes")
}}
{{- range $needed }}
{{- if and .when (not (index $.Values.networkPolicy .name).to) }}
{{ .value }} needs a way out, and networkPolicy.{{ .name }}.to is empty; name the peers there, or set networkPolicy.enabled: false.
{{- end }}
{{- end }}
{{- if and (dig "intercept" "http" false .Values.config) (not .Values.networkPolicy.web) }}
config.intercept.http answers proxies, and networkPolicy.web lets none in; name their pods there.
{{- end }}
{{- if and (dig "intercept" "relays" dict .Values.config) (not .Values.networkPolicy.web) }}
config.intercept.relays take WebSockets from proxies, and networkPolicy.web lets none in; name their pods there.
{{- end }}
{{- if and (dig "intercept" "relays" dict .Values.config) (not .Values.networkPolicy.extraEgress) }}
config.intercept.relays reach image servers, and networkPolicy.extraEgress lets nothing out to them; name their pods and ports there.
{{- end }}
{{- if and .Values.console.enabled (not .Values.networkPolicy.web) }}
console.enabled answers browsers, and networkPolicy.web lets nobody in; name the ingress controller or proxy there.
{{- end }}
{{- end }}
{{- if and .Values.tracing.enabled (not .Values.tracing.endpoint) }}
tracing.enabled needs tracing.endpoint, the OTLP address of a collector; set it.
{{- end }}
{{- end }}

{{- define "loragate.problems.sidecar" }}
{{- if include "loragate.isShared" . }}
{{- if .Values.sidecar.example.enabled }}
sidecar.example.enabled shows a pod with the sidecar, and mode is shared; set mode: sidecar, or sidecar.example.enabled: false.
{{- end }}
{{- else }}
{{- $idle := list }}
{{- range $name, $set := dict
  "autoscaling.enabled" .Values.autoscaling.enabled
  "keda.enabled" .Values.keda.enabled
  "podDisruptionBudget.create: always" (eq .Values.podDisruptionBudget.create "always")
  "console.enabled" .Values.console.enabled
  "ingress.enabled" .Values.ingress.enabled
  "httpRoute.enabled" .Values.httpRoute.enabled
  "tls.certManager.enabled" .Values.tls.certManager.enabled
  "persistence.existingClaim" .Values.persistence.existingClaim
  "tritonCache.enabled" .Values.tritonCache.enabled
  "workload: StatefulSet" (include "loragate.isStateful" .)
  "replicaCount" (gt (int .Values.replicaCount) 1)
  "service.type" (ne .Values.service.type "ClusterIP")
  "affinity" .Values.affinity
  "priorityClassName" .Values.priorityClassName
  "podLabels" .Values.podLabels
  "podAnnotations" .Values.podAnnotations
  "runtimeClassName" (and .Values.runtimeClassName (not .Values.sidecar.example.enabled))
  "nodeSelector" (and .Values.nodeSelector (not .Values.sidecar.example.enabled))
  "tolerations" (and .Values.tolerations (not .Values.sidecar.example.enabled))
}}
{{- if $set }}{{ $idle = append $idle $name }}{{ end }}
{{- end }}
{{- with $idle }}
mode: sidecar runs in the pods of another application, where these have nothing to act on: {{ join ", " . }}; remove them, or set mode: shared.
{{- end }}
{{- if not .Values.acknowledge.decisionsLostWithPod }}
mode: sidecar keeps the decision log in the pod and loses it with the pod; set acknowledge.decisionsLostWithPod: true where something ships the log away, or mode: shared.
{{- end }}
{{- end }}
{{- end }}

{{- define "loragate.problems.catalogue" }}
{{- if include "loragate.wantsCatalogue" . }}
{{- $asked := .Values.catalogue }}
{{- if not (include "loragate.isShared" .) }}
catalogue.kind: {{ $asked.kind }} scans beside a service, which mode: sidecar has none of; set mode: shared.
{{- end }}
{{- if not $asked.source }}
catalogue.kind: {{ $asked.kind }} has nothing to scan; name a folder, a manifest or an address in catalogue.source.
{{- else if and (not (contains "://" $asked.source)) (not (hasPrefix .Values.adapters.mountPath $asked.source)) (not .Values.extraVolumeMounts) }}
catalogue.source {{ $asked.source }} lies on no volume; name a place below adapters.mountPath, or mount one by extraVolumes.
{{- else if and (hasPrefix .Values.adapters.mountPath $asked.source) (not .Values.adapters.existingClaim) }}
catalogue.source {{ $asked.source }} needs the volume with the adapters; name it in adapters.existingClaim.
{{- else if and (contains "://" $asked.source) .Values.networkPolicy.enabled (not .Values.networkPolicy.objectStore.to) }}
catalogue.source {{ $asked.source }} needs a way out, and networkPolicy.objectStore.to is empty; name the peers there, or set networkPolicy.enabled: false.
{{- end }}
{{- if and (eq $asked.kind "rayjob") (regexMatch "[^-A-Za-z0-9_./:@=+]" $asked.source) }}
catalogue.source goes through a shell with kind: rayjob, and has letters that a shell would read; use a name without them, or kind: job.
{{- end }}
{{- if not (or $asked.image.digest $asked.image.tag) }}
catalogue.image has neither digest nor tag; name an image with the extra `ray`, which the service's own does not have (docs/catalogue.md).
{{- else if and (not $asked.image.digest) (not .Values.acknowledge.mutableImageTag) }}
catalogue.image.tag {{ $asked.image.tag }} can be pointed at another image without anybody noticing; set catalogue.image.digest, or acknowledge.mutableImageTag: true.
{{- end }}
{{- if and (eq $asked.kind "rayjob") (not .Values.networkPolicy.enabled) }}
catalogue.kind: rayjob without networkPolicy.enabled lets everybody who reaches the pods run code in them; set networkPolicy.enabled: true, or kind: job.
{{- end }}
{{- if and (eq $asked.kind "rayjob") $asked.schedule }}
catalogue.schedule is for kind: job; a RayJob runs once, so empty one of them.
{{- end }}
{{- if and (eq $asked.kind "rayjob") (not $asked.ray.version) }}
catalogue.ray.version is empty, and head and workers have to speak one version; set it to that of the image.
{{- end }}
{{- end }}
{{- end }}
