{{/* What would weaken the gate. Where it can be meant, `acknowledge` says so. */}}

{{- define "loragate.problems.image" }}
{{- with .Values.image }}
{{- if and (not .digest) (not .tag) }}
image has neither digest nor tag, so nothing says which server would run; set image.digest to what your registry shows for the image.
{{- else if and (not .digest) (not $.Values.acknowledge.mutableImageTag) }}
image.tag {{ .tag }} can be pointed at another image without anybody noticing; set image.digest, or acknowledge.mutableImageTag: true.
{{- end }}
{{- if and (not .digest) (eq .tag "latest") }}
image.tag latest is another image every day; set image.digest, or the tag of one version.
{{- end }}
{{- end }}
{{- end }}

{{- define "loragate.problems.exposure" }}
{{- if include "loragate.isShared" . }}
{{- if not .Values.tls.enabled }}
{{- if ne .Values.service.type "ClusterIP" }}
service.type {{ .Values.service.type }} shows the gRPC port outside the cluster without TLS; set tls.enabled: true, or service.type: ClusterIP.
{{- end }}
{{- if not .Values.acknowledge.insecureOffLoopback }}
tls.enabled is false, so adapters, verdicts and tokens cross the network in the clear; set tls.enabled: true, or acknowledge.insecureOffLoopback: true.
{{- end }}
{{- if .Values.tls.certManager.enabled }}
tls.certManager.enabled asks for a certificate that tls.enabled: false would never use; set tls.enabled: true, or tls.certManager.enabled: false.
{{- end }}
{{- else }}
{{- if and (not .Values.tls.clientAuth) (not .Values.config.tokens) }}
tls.clientAuth is false and config.tokens is empty, so everybody who reaches the port may ask; set tls.clientAuth: true, or add config.tokens.
{{- end }}
{{- if and .Values.tls.clientAuth (not .Values.tls.clientCa.key) }}
tls.clientAuth needs the CA that signs client certificates, but tls.clientCa.key is empty; name the key that holds it, or set tls.clientAuth: false and config.tokens.
{{- end }}
{{- if and .Values.tls.clientAuth .Values.tls.clientCa.secretName .Values.tls.clientCa.configMapName }}
tls.clientCa names both secretName and configMapName, and only one can be mounted; empty one of them.
{{- end }}
{{- end }}
{{- if and (not .Values.tls.clientAuth) .Values.config.peers }}
config.peers gives rights to client certificates, which nobody asks for with tls.clientAuth: false; set tls.clientAuth: true, or remove config.peers.
{{- end }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if hasPrefix "LORAGATE_" .name }}
extraEnv sets {{ .name }}, which would go around the checks of this chart; use the value of the chart for it, or config.
{{- end }}
{{- end }}
{{- end }}

{{- define "loragate.problems.openings" }}
{{- $intercept := default dict .Values.config.intercept }}
{{- if and $intercept.dry_run (not .Values.acknowledge.dryRun) }}
config.intercept.dry_run lets every request pass, whatever it loads; set it to false, or acknowledge.dryRun: true.
{{- end }}
{{- if and (eq (default "deny" $intercept.on_review) "allow") (not .Values.acknowledge.reviewPasses) }}
config.intercept.on_review: allow lets adapters pass that a person should look at first; set it to deny, or acknowledge.reviewPasses: true.
{{- end }}
{{- if $intercept.http }}
{{- if not $intercept.extractors }}
config.intercept.http answers checks, but config.intercept.extractors is empty and no request could be read; add an extractor, or set http: false.
{{- end }}
{{- if and (not .Values.config.tokens) (not .Values.acknowledge.insecureOffLoopback) }}
config.intercept.http answers on a port without client certificates, and config.tokens is empty; add a token with the permission check.
{{- end }}
{{- end }}
{{- range $name, $relay := $intercept.relays }}
{{- if not (hasKey (default dict $intercept.extractors) $name) }}
config.intercept.relays names {{ $name }}, which is not one of config.intercept.extractors; add it, or remove the relay.
{{- end }}
{{- $here := regexMatch "^(127\\..*|localhost|\\[::1\\]):" $relay.listen }}
{{- if and (include "loragate.isShared" $) $here }}
config.intercept.relays.{{ $name }} listens on {{ $relay.listen }}, which only its own pod reaches; listen on {{ $.Values.bindAddress }}, with the same port.
{{- end }}
{{- if and (not $here) (not $.Values.config.tokens) (not $.Values.acknowledge.insecureOffLoopback) }}
config.intercept.relays.{{ $name }} listens without client certificates, and config.tokens is empty; add a token with the permission check.
{{- end }}
{{- end }}
{{- with $intercept.default_extractor }}
{{- if not (hasKey (default dict $intercept.extractors) .) }}
config.intercept.default_extractor {{ . }} is not one of config.intercept.extractors; add it, or name one that is there.
{{- end }}
{{- end }}
{{- end }}

{{- define "loragate.problems.policy" }}
{{- with .Values.policy }}
{{- if and .document .existingConfigMap }}
policy.document and policy.existingConfigMap are both set, and only one can be in force; remove one of them.
{{- end }}
{{- if and .document (eq (default "" .document.mode | toString) "pilot") (not $.Values.acknowledge.pilotMode) }}
policy.document.mode: pilot answers ALLOW to everything; set mode: enforce, or acknowledge.pilotMode: true.
{{- end }}
{{- end }}
{{- end }}

{{- define "loragate.problems.console" }}
{{- $console := .Values.console }}
{{- if $console.enabled }}
{{- if not $console.publicUrl }}
console.enabled needs console.publicUrl, the https address at which browsers find it; set it.
{{- end }}
{{- if not $console.sessionSecret.name }}
console.enabled needs console.sessionSecret.name, a Secret with at least 32 random bytes that signs sessions; make one and name it.
{{- end }}
{{- if not (concat (default list $console.roles.viewer) (default list $console.roles.reviewer) (default list $console.roles.admin)) }}
console.enabled needs groups in console.roles, because nobody could enter it; name at least one.
{{- end }}
{{- if eq $console.auth "oidc" }}
{{- if not (and $console.oidc.issuer $console.oidc.clientId $console.oidc.clientSecret.name) }}
console.auth: oidc needs console.oidc.issuer, console.oidc.clientId and console.oidc.clientSecret.name; set all three.
{{- end }}
{{- else }}
{{- if not $console.proxy.trustedNetworks }}
console.auth: proxy needs console.proxy.trustedNetworks, since headers from anywhere else can be forged; name the proxy's addresses.
{{- end }}
{{- if ne (empty $console.proxy.secretHeader) (empty $console.proxy.secret.name) }}
console.proxy.secretHeader and console.proxy.secret.name belong together; set both, or neither.
{{- end }}
{{- if and (empty $console.proxy.secretHeader) (concat (default list $console.roles.reviewer) (default list $console.roles.admin)) }}
console.auth: proxy needs console.proxy.secretHeader and console.proxy.secret.name where console.roles names reviewers or admins, since any pod on a trusted address could name itself one; have the proxy send that secret, or name viewers alone.
{{- end }}
{{- end }}
{{- end }}
{{- range $kind := list "ingress" "httpRoute" }}
{{- if and (index $.Values $kind).enabled (not $console.enabled) }}
{{ $kind }}.enabled shows the console, which console.enabled: false switches off; set console.enabled: true, or {{ $kind }}.enabled: false.
{{- end }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.tlsSecretName) }}
ingress.tlsSecretName is empty, so sessions would cross the network in the clear; name the Secret with the certificate of console.publicUrl.
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
httpRoute.parentRefs is empty, so no gateway would take the route; name a Gateway with an HTTPS listener.
{{- end }}
{{- end }}

{{- define "loragate.problems.signing" }}
{{- $keys := dig "signing" "keys" list .Values.config }}
{{- $secret := .Values.signing.existingSecret }}
{{- $notes := dict "checkpoints" (dig "checkpoints" "key" dict .Values.config) "witness" (dig "witness" "key" dict .Values.config) }}
{{- if and $secret (not $keys) (not $notes.checkpoints) (not $notes.witness) }}
signing.existingSecret mounts keys that nothing signs with; name them in config.signing.keys, or leave it empty.
{{- end }}
{{- range $section, $key := $notes }}
{{- if and $key.file (hasPrefix "/etc/loragate/signing/" (toString $key.file)) (not $secret) }}
config.{{ $section }}.key: {{ $key.id }} is a file below /etc/loragate/signing, where nothing is mounted; name its Secret in signing.existingSecret.
{{- end }}
{{- end }}
{{- range $keys }}
{{- if and .file (hasPrefix "/etc/loragate/signing/" .file) (not $secret) }}
config.signing.keys: {{ .id }} is a file below /etc/loragate/signing, where nothing is mounted; name its Secret in signing.existingSecret.
{{- end }}
{{- end }}
{{- end }}

{{- define "loragate.problems.events" }}
{{- $receivers := dig "events" "receivers" list .Values.config }}
{{- $secret := .Values.events.existingSecret }}
{{- if and $secret (not $receivers) }}
events.existingSecret mounts secrets that nothing is signed with; name receivers in config.events.receivers, or leave it empty.
{{- end }}
{{- range $receivers }}
{{- if and (hasPrefix "/etc/loragate/events/" .secret_file) (not $secret) }}
config.events.receivers: {{ .name }} has its secret below /etc/loragate/events, where nothing is mounted; name its Secret in events.existingSecret.
{{- end }}
{{- end }}
{{- end }}

{{- define "loragate.problems.devices" }}
{{- $devices := default list .Values.config.audit_devices }}
{{- $secret := .Values.auditDevices.existingSecret }}
{{- if and $secret (not $devices) }}
auditDevices.existingSecret mounts files that no device uses; name devices in config.audit_devices, or leave it empty.
{{- end }}
{{- range $device := $devices }}
{{- if contains "/etc/loragate/devices/" (toJson $device) }}
{{- if not $secret }}
config.audit_devices: {{ $device.name }} names a file below /etc/loragate/devices, where nothing is mounted; name its Secret in auditDevices.existingSecret.
{{- end }}
{{- end }}
{{- if and (or $device.syslog $device.otlp) $.Values.networkPolicy.enabled (include "loragate.isShared" $) (not $.Values.networkPolicy.extraEgress) }}
config.audit_devices: {{ $device.name }} is reached over the network, and networkPolicy.extraEgress lets nothing out to it; name its peers and port there, or set networkPolicy.enabled: false.
{{- end }}
{{- end }}
{{- end }}
