{{/* A scan of a whole catalogue: what the pods of a Job, a CronJob and a RayJob have in common. */}}

{{- define "loragate.wantsCatalogue" -}}
{{- if ne .Values.catalogue.kind "none" }}true{{ end -}}
{{- end }}

{{/* The chart's own values, but for the volume: a decision log has one writer. As YAML. */}}
{{- define "loragate.catalogue.volumeValues" -}}
{{- $claim := default (printf "%s-catalogue" (include "loragate.fullname" .)) .Values.catalogue.persistence.existingClaim -}}
{{- $own := dict "workload" "Deployment" "replicaCount" 1
  "persistence" (dict "enabled" true "existingClaim" $claim "accessMode" "ReadWriteOnce")
  "autoscaling" (dict "enabled" false) "keda" (dict "enabled" false) -}}
{{- toYaml (merge $own (omit .Values "workload" "replicaCount" "persistence" "autoscaling" "keda")) -}}
{{- end }}

{{- define "loragate.catalogue.image" -}}
{{- include "loragate.image" (dict "Values" (dict "image" .Values.catalogue.image)) -}}
{{- end }}

{{- define "loragate.catalogue.command" -}}
{{- $asked := .Values.catalogue -}}
{{- $words := list "catalogue" "scan" $asked.source "--auditors" $asked.auditors "--readers" $asked.readers "--batch" $asked.batch "--http" (printf "%s:9464" .Values.bindAddress) -}}
{{- if $asked.retry -}}{{- $words = append $words "--retry" -}}{{- end -}}
{{- if eq $asked.kind "rayjob" -}}{{- $words = concat $words (list "--address" "auto" "--accept-refused") -}}{{- end -}}
{{- $text := list -}}
{{- range $words -}}{{- $text = append $text (toString .) -}}{{- end -}}
{{- toJson $text -}}
{{- end }}

{{/* Volumes or mounts, for workers without that of the configuration. Takes a dict of list and keeps. */}}
{{- define "loragate.catalogue.less" -}}
{{- if .keeps -}}
{{- .list -}}
{{- else -}}
{{- $kept := list -}}
{{- range .list | fromYamlArray -}}
{{- if ne .name "loragate-config" -}}{{- $kept = append $kept . -}}{{- end -}}
{{- end -}}
{{- toYaml $kept -}}
{{- end -}}
{{- end }}

{{/* Takes a dict of root, container (its name), args or nothing, ports, resources and keeps (whether
it has the volume with log and results). */}}
{{- define "loragate.catalogue.podSpec" -}}
{{- $root := .root -}}
{{- $values := include "loragate.catalogue.volumeValues" $root | fromYaml -}}
{{- if not .keeps -}}
{{- /* They open what strangers wrote: no password, token or key is where they are. */ -}}
{{- $bare := dict "persistence" (dict "enabled" false "size" $root.Values.catalogue.persistence.size)
  "tls" (dict "enabled" false) "console" (dict "enabled" false) "policy" dict
  "signing" dict "events" dict "auditDevices" dict -}}
{{- $values = merge $bare (omit $values "persistence" "tls" "console" "policy" "signing" "events" "auditDevices") -}}
{{- end -}}
{{- $own := merge (dict "Values" $values) (omit $root "Values") -}}
{{- with include "loragate.imagePullSecrets" $root }}
imagePullSecrets: {{ . }}
{{- end }}
serviceAccountName: {{ include "loragate.serviceAccountName" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .restartPolicy }}
restartPolicy: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ int $root.Values.terminationGracePeriodSeconds }}
securityContext:
  {{- include "loragate.podSecurityContext" $root | nindent 2 }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $root.Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- if eq $root.Values.library.source "image" }}
initContainers:
  - {{ include "loragate.libraryInitContainer" $root | indent 4 | trim }}
{{- end }}
containers:
  - name: {{ .container }}
    image: {{ include "loragate.catalogue.image" $root }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    {{- with .args }}
    args: {{ . }}
    {{- end }}
    env:
      {{- if .keeps }}
      {{- include "loragate.env" $root | nindent 6 }}
      {{- else }}
      - name: HOME
        value: /tmp
      {{- with $root.Values.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
      {{- end }}
      - name: RAY_TMPDIR
        value: /tmp
    {{- with .ports }}
    ports:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    resources:
      {{- toYaml .resources | nindent 6 }}
    securityContext:
      {{- include "loragate.containerSecurityContext" $root | nindent 6 }}
    volumeMounts:
      {{- include "loragate.catalogue.less" (dict "list" (include "loragate.volumeMounts" $own) "keeps" .keeps) | nindent 6 }}
      # Files wait for auditors in shared memory.
      - name: loragate-shared-memory
        mountPath: /dev/shm
volumes:
  {{- include "loragate.catalogue.less" (dict "list" (include "loragate.volumes" $own) "keeps" .keeps) | nindent 2 }}
  - name: loragate-shared-memory
    emptyDir:
      medium: Memory
      sizeLimit: {{ $root.Values.catalogue.sharedMemory }}
{{- with include "loragate.placement" $root }}
{{ . }}
{{- end }}
{{- end }}

{{/* The template of one machine's scan. */}}
{{- define "loragate.catalogue.podTemplate" -}}
metadata:
  labels:
    {{- include "loragate.labels" (dict "root" . "component" "catalogue") | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- $ports := list (dict "name" "http-loragate" "containerPort" 9464) }}
  {{- $pod := dict "root" . "container" "catalogue" "restartPolicy" "Never" "keeps" true "ports" $ports "resources" .Values.catalogue.resources "args" (include "loragate.catalogue.command" .) }}
  {{- include "loragate.catalogue.podSpec" $pod | trim | nindent 2 }}
{{- end }}

{{- define "loragate.catalogue.jobSpec" -}}
backoffLimit: {{ int .Values.catalogue.backoffLimit }}
{{- with .Values.catalogue.activeDeadlineSeconds }}
activeDeadlineSeconds: {{ int . }}
{{- end }}
{{- with .Values.catalogue.ttlSecondsAfterFinished }}
ttlSecondsAfterFinished: {{ int . }}
{{- end }}
# Refused files are a result and no reason to begin again.
podFailurePolicy:
  rules:
    - action: Ignore
      onPodConditions:
        - type: DisruptionTarget
          status: "True"
    - action: FailJob
      onExitCodes:
        containerName: catalogue
        operator: In
        values: [1, 2]
template:
  {{- include "loragate.catalogue.podTemplate" . | nindent 2 }}
{{- end }}

{{/* A group of machines in a cluster of KubeRay. Takes a dict of root, container, keeps, ports and resources. */}}
{{- define "loragate.catalogue.rayPod" -}}
metadata:
  labels:
    {{- include "loragate.labels" (dict "root" .root "component" "catalogue") | nindent 4 }}
    {{- with .root.Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "loragate.catalogue.podSpec" . | trim | nindent 2 }}
{{- end }}
