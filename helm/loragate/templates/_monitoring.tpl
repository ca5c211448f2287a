{{/* What Prometheus reads, and where. */}}

{{/* The service that has the HTTP port. */}}
{{- define "loragate.httpServiceName" -}}
{{ include "loragate.fullname" . }}{{ if ne .Values.service.type "ClusterIP" }}-http{{ end }}
{{- end }}

{{- define "loragate.scrape" -}}
- port: {{ ternary "http" "http-loragate" (eq .Values.mode "shared") }}
  path: /metrics
  interval: {{ .Values.monitoring.serviceMonitor.interval }}
  scrapeTimeout: {{ .Values.monitoring.serviceMonitor.scrapeTimeout }}
{{- end }}

{{/* The comparison drops NaN, which the quantile is while nothing waits. */}}
{{- define "loragate.queueWaitQuery" -}}
{{- $selector := printf "namespace=%q,service=%q" .Release.Namespace (include "loragate.httpServiceName" .) -}}
(histogram_quantile({{ .Values.keda.quantile }}, sum by (le) (rate(loragate_queue_wait_seconds_bucket{ {{- $selector -}} }[2m]))) >= 0) or vector(0)
{{- end }}
