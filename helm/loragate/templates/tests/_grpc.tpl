{{/* The health service of gRPC needs no token; with client certificates it needs one like any call. */}}
{{- define "loragate.tests.grpc" -}}
import pathlib, grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
{{- $address := printf "%s:%d" (include "loragate.fullname" .) (int .Values.service.grpcPort) }}
{{- if include "loragate.hasTls" . }}
read = lambda name: pathlib.Path("/tls", name).read_bytes()
credentials = grpc.ssl_channel_credentials(read("ca.crt"){{ if .Values.tls.clientAuth }}, read("tls.key"), read("tls.crt"){{ end }})
channel = grpc.secure_channel({{ $address | quote }}, credentials)
{{- else }}
channel = grpc.insecure_channel({{ $address | quote }})
{{- end }}
asked = health_pb2.HealthCheckRequest(service="loragate.v1.AuditService")
answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=10, wait_for_ready=True)
print("loragate.v1.AuditService:", health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
assert answer.status == health_pb2.HealthCheckResponse.SERVING
{{- end }}
