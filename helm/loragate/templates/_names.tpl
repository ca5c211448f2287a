{{/* Names, labels and the image: what every object of the chart has in common. */}}

{{- define "loragate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* Release and chart, or the release alone where it has the chart's name in it. 48 letters, so
that "-test-readiness" and what a StatefulSet adds still fit into 63. */}}
{{- define "loragate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- else if contains (include "loragate.name" .) .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "loragate.name" .) | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Labels that never change: a selector is immutable. Takes a dict of root and component. */}}
{{- define "loragate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "loragate.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "loragate.labels" -}}
{{ include "loragate.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The start of every object's metadata. Takes a dict of root, component, and name or suffix. */}}
{{- define "loragate.metadata" -}}
name: {{ .name | default (include "loragate.fullname" .root) }}{{ .suffix | default "" }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "loragate.labels" . | nindent 2 }}
{{- end }}

{{/* By digest where there is one: a tag can be pointed at other bytes. */}}
{{- define "loragate.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "loragate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "loragate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "loragate.tlsSecretName" -}}
{{- default (printf "%s-tls" (include "loragate.fullname" .)) .Values.tls.secretName -}}
{{- end }}

{{- define "loragate.policyConfigMapName" -}}
{{- default (printf "%s-policy" (include "loragate.fullname" .)) .Values.policy.existingConfigMap -}}
{{- end }}
