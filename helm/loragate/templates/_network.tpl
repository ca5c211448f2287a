{{/* Rules of network policies. */}}

{{- define "loragate.testPeer" -}}
- podSelector:
    matchLabels:
      {{- include "loragate.selectorLabels" (dict "root" . "component" "test") | nindent 6 }}
{{- end }}

{{- define "loragate.egress" -}}
{{- $policy := .Values.networkPolicy }}
{{- include "loragate.egress.dns" . }}
{{- if include "loragate.hasPostgres" . }}
{{ include "loragate.egress.rule" $policy.database }}
{{- end }}
{{- if and .Values.console.enabled (eq .Values.console.auth "oidc") }}
{{ include "loragate.egress.rule" $policy.oidc }}
{{- end }}
{{- if .Values.tracing.enabled }}
{{ include "loragate.egress.rule" $policy.tracing }}
{{- end }}
{{- if dig "intake" "enabled_schemes" list .Values.config }}
{{ include "loragate.egress.rule" $policy.objectStore }}
{{- end }}
{{- with $policy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "loragate.egress.dns" -}}
- to:
    {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end }}

{{/* Takes a dict of to and port. */}}
{{- define "loragate.egress.rule" -}}
- to:
    {{- toYaml .to | nindent 4 }}
  ports:
    - protocol: TCP
      port: {{ int .port }}
{{- end }}
