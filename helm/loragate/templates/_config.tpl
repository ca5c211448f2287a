{{/* The server's configuration file, as a dict in YAML: what `config` says, and what the chart
knows better because it makes the mounts. */}}

{{- define "loragate.config" -}}
{{- $values := .Values -}}
{{- $config := dict -}}
{{- range $key, $value := $values.config -}}
  {{- /* An empty section says nothing; the server then has its own default. */ -}}
  {{- if not (or (kindIs "invalid" $value) (and (or (kindIs "map" $value) (kindIs "slice" $value)) (empty $value)) (eq (toString $value) "")) -}}
    {{- $_ := set $config $key $value -}}
  {{- end -}}
{{- end -}}
{{- $_ := set $config "listen" (include "loragate.config.listen" . | fromYaml) -}}
{{- $_ := set $config "state_dir" "/var/lib/loragate" -}}
{{- $_ := set $config "kernel_backend" (include "loragate.kernelBackend" .) -}}
{{- with include "loragate.config.baseModels" . | fromYamlArray -}}
  {{- $_ := set $config "base_models" . -}}
{{- end -}}
{{- if include "loragate.hasTls" . -}}
  {{- $_ := set $config "tls" (include "loragate.config.tls" . | fromYaml) -}}
{{- else if include "loragate.isShared" . -}}
  {{- $_ := set $config "insecure_off_loopback" true -}}
{{- end -}}
{{- if include "loragate.hasPolicyFile" . -}}
  {{- $_ := set $config "policy" (printf "/etc/loragate/policy/%s" $values.policy.key) -}}
{{- end -}}
{{- with include "loragate.libraryFolder" . -}}
  {{- $_ := set $config "library" . -}}
{{- end -}}
{{- if $values.adapters.existingClaim -}}
  {{- $intake := deepCopy (default dict $values.config.intake) -}}
  {{- $roots := append (default list $intake.roots) $values.adapters.mountPath | uniq -}}
  {{- $_ := set $config "intake" (set $intake "roots" $roots) -}}
{{- end -}}
{{- if $values.console.enabled -}}
  {{- $_ := set $config "console" (include "loragate.config.console" . | fromYaml) -}}
{{- end -}}
{{- if $values.tracing.enabled -}}
  {{- $_ := set $config "tracing" (include "loragate.config.tracing" . | fromYaml) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{- define "loragate.config.listen" -}}
{{- $listen := deepCopy (default dict .Values.config.listen) -}}
{{- if include "loragate.isShared" . -}}
  {{- $_ := set $listen "grpc" (printf "%s:50051" .Values.bindAddress) -}}
{{- else -}}
  {{- $_ := set $listen "grpc" "unix:/run/loragate/loragate.sock" -}}
{{- end -}}
{{- $_ := set $listen "http" (printf "%s:9464" .Values.bindAddress) -}}
{{- toYaml $listen -}}
{{- end }}

{{- define "loragate.config.tls" -}}
cert: /etc/loragate/tls/tls.crt
key: /etc/loragate/tls/tls.key
{{- if .Values.tls.clientAuth }}
client_ca: /etc/loragate/client-ca/{{ .Values.tls.clientCa.key }}
{{- end }}
{{- end }}

{{- define "loragate.config.baseModels" -}}
{{- $models := list -}}
{{- range .Values.config.base_models -}}
  {{- $models = append $models (merge (dict) . (dict "device" $.Values.device)) -}}
{{- end -}}
{{- toYaml $models -}}
{{- end }}

{{- define "loragate.kernelBackend" -}}
{{- default (ternary "triton" "reference" (eq .Values.device "cuda")) .Values.config.kernel_backend -}}
{{- end }}

{{/* Where the concept library lies; nothing for the embedded one. */}}
{{- define "loragate.libraryFolder" -}}
{{- with .Values.library -}}
{{- if eq .source "path" -}}
{{ .path }}
{{- else if eq .source "claim" -}}
/srv/library
{{- else if eq .source "image" -}}
/srv/library
{{- else if eq .source "artifact" -}}
{{ printf "/srv/library/%s" (trimPrefix "/" .artifact.path) | trimSuffix "/" }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "loragate.config.console" -}}
{{- with .Values.console -}}
enabled: true
public_url: {{ .publicUrl | quote }}
auth: {{ .auth }}
{{- if eq .auth "oidc" }}
oidc:
  issuer: {{ .oidc.issuer | quote }}
  client_id: {{ .oidc.clientId | quote }}
  client_secret_file: /etc/loragate/console/oidc-client-secret
  scopes: {{ toJson .oidc.scopes }}
  user_claim: {{ .oidc.userClaim | quote }}
  groups_claim: {{ .oidc.groupsClaim | quote }}
{{- else }}
proxy:
  user_header: {{ .proxy.userHeader | quote }}
  groups_header: {{ .proxy.groupsHeader | quote }}
  trusted_networks: {{ toJson .proxy.trustedNetworks }}
  {{- if .proxy.secret.name }}
  secret_header: {{ .proxy.secretHeader | quote }}
  secret_file: /etc/loragate/console/proxy-secret
  {{- end }}
{{- end }}
roles:
  viewer: {{ toJson .roles.viewer }}
  reviewer: {{ toJson .roles.reviewer }}
  admin: {{ toJson .roles.admin }}
session_secret_file: /etc/loragate/console/session-secret
session_s: {{ int .sessionSeconds }}
four_eyes_severities: {{ toJson .fourEyesSeverities }}
sensitive_categories: {{ toJson .sensitiveCategories }}
max_approval_s: {{ int .maxApprovalSeconds }}
{{- end -}}
{{- end }}

{{- define "loragate.config.tracing" -}}
{{- with .Values.tracing -}}
enabled: true
endpoint: {{ .endpoint | quote }}
sample_ratio: {{ .sampleRatio }}
service_name: {{ .serviceName | quote }}
{{- end -}}
{{- end }}
