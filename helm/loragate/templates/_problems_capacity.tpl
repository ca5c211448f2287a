{{/* What cannot run, or not so many times, or would lose what must be kept. */}}

{{- define "loragate.problems.replicas" }}
{{- $several := include "loragate.hasSeveralReplicas" . }}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled }}
autoscaling.enabled and keda.enabled would both set the number of replicas, against each other; switch one of them off.
{{- end }}
{{- range $kind := list "autoscaling" "keda" }}
{{- $scaler := index $.Values $kind }}
{{- if $scaler.enabled }}
{{- if lt (int $scaler.minReplicas) 2 }}
{{ $kind }}.minReplicas is {{ int $scaler.minReplicas }}, so that one node's end would stop every load; set it to 2 or more.
{{- end }}
{{- if lt (int $scaler.maxReplicas) (int $scaler.minReplicas) }}
{{ $kind }}.maxReplicas {{ int $scaler.maxReplicas }} is below minReplicas {{ int $scaler.minReplicas }}; raise it.
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.autoscaling.enabled (eq .Values.device "cuda") }}
autoscaling.enabled looks at the CPU, which says nothing about how busy a GPU is; use keda.enabled, or device: cpu.
{{- end }}
{{- if and .Values.keda.enabled (not .Values.keda.prometheusAddress) }}
keda.enabled needs keda.prometheusAddress to read the queue wait from; set it.
{{- end }}
{{- if and (eq .Values.podDisruptionBudget.create "always") (not $several) }}
podDisruptionBudget.create: always with one replica would either forbid every drain of a node or protect nothing; set replicaCount to 2 or more, or create: auto.
{{- end }}
{{- if and $several (not (include "loragate.hasPostgres" .)) (include "loragate.isShared" .) }}
Several replicas would each have an SQLite database of their own, and answer differently about the past; set database.existingSecret to a PostgreSQL URL, or replicaCount: 1.
{{- end }}
{{- if and $several (include "loragate.mayChangeLibrary" .) }}
A token or peer has the permission concepts, but each of several replicas has a library of its own, and they would differ; take the permission away and give all the same library by library.source, or set replicaCount: 1.
{{- end }}
{{- $least := addf .Values.config.drain_delay_s .Values.config.drain_grace_s }}
{{- if le (float64 .Values.terminationGracePeriodSeconds) $least }}
terminationGracePeriodSeconds {{ int .Values.terminationGracePeriodSeconds }} is not longer than config.drain_delay_s and config.drain_grace_s together ({{ $least }} s), so requests in flight would be killed; raise it above that.
{{- end }}
{{- end }}

{{- define "loragate.mayChangeLibrary" -}}
{{- range concat (default list .Values.config.tokens) (default list .Values.config.peers) -}}
{{- if has "concepts" (default list .permissions) }}true{{ end -}}
{{- end -}}
{{- end }}

{{- define "loragate.problems.storage" }}
{{- if include "loragate.isShared" . }}
{{- $several := include "loragate.hasSeveralReplicas" . }}
{{- if not .Values.persistence.enabled }}
{{- if not .Values.acknowledge.decisionsLostWithPod }}
persistence.enabled is false, so the decision log ends with its pod; set it to true, or acknowledge.decisionsLostWithPod: true where something ships the log away.
{{- end }}
{{- if .Values.persistence.existingClaim }}
persistence.existingClaim {{ .Values.persistence.existingClaim }} would not be mounted with persistence.enabled: false; set it to true, or remove the claim.
{{- end }}
{{- else if and $several (not (include "loragate.claimsPerReplica" .)) (ne .Values.persistence.accessMode "ReadWriteMany") }}
Several replicas cannot share one {{ .Values.persistence.accessMode }} volume; set workload: StatefulSet, which gives each its own, or persistence.accessMode: ReadWriteMany.
{{- end }}
{{- if and .Values.tritonCache.enabled $several (not (include "loragate.isStateful" .)) (ne .Values.tritonCache.accessMode "ReadWriteMany") }}
tritonCache is one {{ .Values.tritonCache.accessMode }} volume for several replicas; set workload: StatefulSet, tritonCache.accessMode: ReadWriteMany, or tritonCache.enabled: false.
{{- end }}
{{- if and (include "loragate.isStateful" .) (not .Values.service.headless) }}
workload: StatefulSet needs the headless Service for the names of its pods; set service.headless: true.
{{- end }}
{{- if and (include "loragate.isStateful" .) .Values.updateStrategy }}
updateStrategy is that of a Deployment, and workload is StatefulSet; remove it.
{{- end }}
{{- end }}
{{- if and (eq .Values.library.source "embedded") .Values.config.base_models }}
library.source: embedded shows emoji, which say little about {{ (first .Values.config.base_models).name }}; make a library of your own (docs/your-own-model.md), and set library.source to where it is.
{{- end }}
{{- with .Values.library }}
{{- if and (eq .source "path") (not .path) }}
library.source: path needs library.path, a folder that the image or extraVolumeMounts has; set it.
{{- else if and (eq .source "claim") (not .claim.name) }}
library.source: claim needs library.claim.name; set it.
{{- else if and (eq .source "image") (not (contains "@sha256:" .image.reference)) }}
library.source: image needs library.image.reference with a digest (NAME@sha256:...), since the library decides what is forbidden; set it.
{{- else if and (eq .source "artifact") (not (contains "@sha256:" .artifact.reference)) }}
library.source: artifact needs library.artifact.reference with a digest (NAME@sha256:...), since the library decides what is forbidden; set it.
{{- end }}
{{- end }}
{{- end }}

{{- define "loragate.problems.device" }}
{{- $gpu := "" }}
{{- range $name, $amount := (default dict .Values.resources.limits) }}
{{- if regexMatch "/(gpu|mig-)" $name }}{{ $gpu = $name }}{{ end }}
{{- end }}
{{- if eq .Values.device "cuda" }}
{{- if not $gpu }}
device: cuda needs a GPU, and resources.limits names none; add nvidia.com/gpu: 1.
{{- end }}
{{- if not .Values.config.base_models }}
device: cuda has nothing to run there, because config.base_models is empty and the embedded model runs on the CPU; name a base model.
{{- end }}
{{- else }}
{{- if $gpu }}
device: cpu would hold {{ $gpu }} without using it; set device: cuda, or remove it from resources.limits.
{{- end }}
{{- if eq (toString .Values.config.kernel_backend) "triton" }}
config.kernel_backend: triton needs a GPU, and device is cpu; set device: cuda, or kernel_backend: reference.
{{- end }}
{{- range .Values.config.base_models }}
{{- if hasPrefix "cuda" (default "" .device) }}
config.base_models {{ .name }} runs on {{ .device }}, and device is cpu; set device: cuda, or remove its device.
{{- end }}
{{- end }}
{{- if .Values.tritonCache.enabled }}
tritonCache.enabled keeps compiled kernels, and device: cpu compiles none; set device: cuda, or tritonCache.enabled: false.
{{- end }}
{{- end }}
{{- end }}
