from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VerdictKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_KIND_UNSPECIFIED: _ClassVar[VerdictKind]
    VERDICT_KIND_ALLOW: _ClassVar[VerdictKind]
    VERDICT_KIND_REVIEW: _ClassVar[VerdictKind]
    VERDICT_KIND_BLOCK: _ClassVar[VerdictKind]
    VERDICT_KIND_INCONCLUSIVE: _ClassVar[VerdictKind]

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_ENFORCE: _ClassVar[Mode]
    MODE_PILOT: _ClassVar[Mode]

class Remedy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REMEDY_UNSPECIFIED: _ClassVar[Remedy]
    REMEDY_NONE: _ClassVar[Remedy]
    REMEDY_RETRAIN: _ClassVar[Remedy]
    REMEDY_REPLACE_DATA: _ClassVar[Remedy]
    REMEDY_QUARANTINE: _ClassVar[Remedy]
    REMEDY_WITHDRAW_AND_CALL_LEGAL: _ClassVar[Remedy]

class Severity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEVERITY_UNSPECIFIED: _ClassVar[Severity]
    SEVERITY_LOW: _ClassVar[Severity]
    SEVERITY_MEDIUM: _ClassVar[Severity]
    SEVERITY_HIGH: _ClassVar[Severity]
    SEVERITY_CRITICAL: _ClassVar[Severity]

class MeasureKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEASURE_KIND_UNSPECIFIED: _ClassVar[MeasureKind]
    MEASURE_KIND_LIBRARY_P_VALUE: _ClassVar[MeasureKind]
    MEASURE_KIND_OWN_P_VALUE: _ClassVar[MeasureKind]
    MEASURE_KIND_SCORE: _ClassVar[MeasureKind]
    MEASURE_KIND_DEGREE: _ClassVar[MeasureKind]

class AdapterKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ADAPTER_KIND_UNSPECIFIED: _ClassVar[AdapterKind]
    ADAPTER_KIND_LORA: _ClassVar[AdapterKind]
    ADAPTER_KIND_EMBEDDING: _ClassVar[AdapterKind]
VERDICT_KIND_UNSPECIFIED: VerdictKind
VERDICT_KIND_ALLOW: VerdictKind
VERDICT_KIND_REVIEW: VerdictKind
VERDICT_KIND_BLOCK: VerdictKind
VERDICT_KIND_INCONCLUSIVE: VerdictKind
MODE_UNSPECIFIED: Mode
MODE_ENFORCE: Mode
MODE_PILOT: Mode
REMEDY_UNSPECIFIED: Remedy
REMEDY_NONE: Remedy
REMEDY_RETRAIN: Remedy
REMEDY_REPLACE_DATA: Remedy
REMEDY_QUARANTINE: Remedy
REMEDY_WITHDRAW_AND_CALL_LEGAL: Remedy
SEVERITY_UNSPECIFIED: Severity
SEVERITY_LOW: Severity
SEVERITY_MEDIUM: Severity
SEVERITY_HIGH: Severity
SEVERITY_CRITICAL: Severity
MEASURE_KIND_UNSPECIFIED: MeasureKind
MEASURE_KIND_LIBRARY_P_VALUE: MeasureKind
MEASURE_KIND_OWN_P_VALUE: MeasureKind
MEASURE_KIND_SCORE: MeasureKind
MEASURE_KIND_DEGREE: MeasureKind
ADAPTER_KIND_UNSPECIFIED: AdapterKind
ADAPTER_KIND_LORA: AdapterKind
ADAPTER_KIND_EMBEDDING: AdapterKind

class AdapterReference(_message.Message):
    __slots__ = ("path", "uri", "inline_bytes", "stored_sha256", "weight_name", "revision", "expected_sha256", "denoiser_strength", "text_encoder_strength", "kind", "declared_name")
    PATH_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    INLINE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORED_SHA256_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_SHA256_FIELD_NUMBER: _ClassVar[int]
    DENOISER_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    TEXT_ENCODER_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DECLARED_NAME_FIELD_NUMBER: _ClassVar[int]
    path: str
    uri: str
    inline_bytes: bytes
    stored_sha256: str
    weight_name: str
    revision: str
    expected_sha256: str
    denoiser_strength: float
    text_encoder_strength: float
    kind: AdapterKind
    declared_name: str
    def __init__(self, path: _Optional[str] = ..., uri: _Optional[str] = ..., inline_bytes: _Optional[bytes] = ..., stored_sha256: _Optional[str] = ..., weight_name: _Optional[str] = ..., revision: _Optional[str] = ..., expected_sha256: _Optional[str] = ..., denoiser_strength: _Optional[float] = ..., text_encoder_strength: _Optional[float] = ..., kind: _Optional[_Union[AdapterKind, str]] = ..., declared_name: _Optional[str] = ...) -> None: ...

class CallerContext(_message.Message):
    __slots__ = ("service", "tenant", "request_id")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    service: str
    tenant: str
    request_id: str
    def __init__(self, service: _Optional[str] = ..., tenant: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class AuditRequest(_message.Message):
    __slots__ = ("adapters", "base_model", "caller", "dry_run", "concept_ids")
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    CONCEPT_IDS_FIELD_NUMBER: _ClassVar[int]
    adapters: _containers.RepeatedCompositeFieldContainer[AdapterReference]
    base_model: str
    caller: CallerContext
    dry_run: bool
    concept_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, adapters: _Optional[_Iterable[_Union[AdapterReference, _Mapping]]] = ..., base_model: _Optional[str] = ..., caller: _Optional[_Union[CallerContext, _Mapping]] = ..., dry_run: bool = ..., concept_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class AuditResponse(_message.Message):
    __slots__ = ("verdict",)
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ...) -> None: ...

class UploadHeader(_message.Message):
    __slots__ = ("declared_size_bytes", "sha256", "file_name", "adapter", "base_model", "caller", "dry_run", "concept_ids")
    DECLARED_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    CONCEPT_IDS_FIELD_NUMBER: _ClassVar[int]
    declared_size_bytes: int
    sha256: str
    file_name: str
    adapter: AdapterReference
    base_model: str
    caller: CallerContext
    dry_run: bool
    concept_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, declared_size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., file_name: _Optional[str] = ..., adapter: _Optional[_Union[AdapterReference, _Mapping]] = ..., base_model: _Optional[str] = ..., caller: _Optional[_Union[CallerContext, _Mapping]] = ..., dry_run: bool = ..., concept_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class AuditUploadRequest(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: UploadHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[UploadHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class AuditUploadResponse(_message.Message):
    __slots__ = ("verdict",)
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ...) -> None: ...

class WatchAuditRequest(_message.Message):
    __slots__ = ("audit",)
    AUDIT_FIELD_NUMBER: _ClassVar[int]
    audit: AuditRequest
    def __init__(self, audit: _Optional[_Union[AuditRequest, _Mapping]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("stage", "fraction")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    stage: str
    fraction: float
    def __init__(self, stage: _Optional[str] = ..., fraction: _Optional[float] = ...) -> None: ...

class WatchAuditResponse(_message.Message):
    __slots__ = ("progress", "verdict")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    verdict: Verdict
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ...) -> None: ...

class GetAuditRequest(_message.Message):
    __slots__ = ("decision_id",)
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    def __init__(self, decision_id: _Optional[str] = ...) -> None: ...

class GetAuditResponse(_message.Message):
    __slots__ = ("verdict",)
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ...) -> None: ...

class ListAuditsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "adapter_sha256", "verdict", "service", "base_model", "decided_since", "decided_before")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_SHA256_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    DECIDED_SINCE_FIELD_NUMBER: _ClassVar[int]
    DECIDED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    adapter_sha256: str
    verdict: VerdictKind
    service: str
    base_model: str
    decided_since: _timestamp_pb2.Timestamp
    decided_before: _timestamp_pb2.Timestamp
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., adapter_sha256: _Optional[str] = ..., verdict: _Optional[_Union[VerdictKind, str]] = ..., service: _Optional[str] = ..., base_model: _Optional[str] = ..., decided_since: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., decided_before: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListAuditsResponse(_message.Message):
    __slots__ = ("verdicts", "next_page_token")
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedCompositeFieldContainer[Verdict]
    next_page_token: str
    def __init__(self, verdicts: _Optional[_Iterable[_Union[Verdict, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("concept_id", "concept_name", "category", "severity", "score", "p_value", "degree", "verdict", "remedy", "adapter_sha256s", "use", "measures_withheld", "decided_by", "library_p_value")
    CONCEPT_ID_FIELD_NUMBER: _ClassVar[int]
    CONCEPT_NAME_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    DEGREE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_SHA256S_FIELD_NUMBER: _ClassVar[int]
    USE_FIELD_NUMBER: _ClassVar[int]
    MEASURES_WITHHELD_FIELD_NUMBER: _ClassVar[int]
    DECIDED_BY_FIELD_NUMBER: _ClassVar[int]
    LIBRARY_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    concept_id: str
    concept_name: str
    category: str
    severity: Severity
    score: float
    p_value: float
    degree: float
    verdict: VerdictKind
    remedy: Remedy
    adapter_sha256s: _containers.RepeatedScalarFieldContainer[str]
    use: str
    measures_withheld: bool
    decided_by: Measured
    library_p_value: float
    def __init__(self, concept_id: _Optional[str] = ..., concept_name: _Optional[str] = ..., category: _Optional[str] = ..., severity: _Optional[_Union[Severity, str]] = ..., score: _Optional[float] = ..., p_value: _Optional[float] = ..., degree: _Optional[float] = ..., verdict: _Optional[_Union[VerdictKind, str]] = ..., remedy: _Optional[_Union[Remedy, str]] = ..., adapter_sha256s: _Optional[_Iterable[str]] = ..., use: _Optional[str] = ..., measures_withheld: bool = ..., decided_by: _Optional[_Union[Measured, _Mapping]] = ..., library_p_value: _Optional[float] = ...) -> None: ...

class FindingsLeftOut(_message.Message):
    __slots__ = ("count", "highest_score")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_SCORE_FIELD_NUMBER: _ClassVar[int]
    count: int
    highest_score: float
    def __init__(self, count: _Optional[int] = ..., highest_score: _Optional[float] = ...) -> None: ...

class Measured(_message.Message):
    __slots__ = ("kind", "value", "threshold")
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    kind: MeasureKind
    value: float
    threshold: float
    def __init__(self, kind: _Optional[_Union[MeasureKind, str]] = ..., value: _Optional[float] = ..., threshold: _Optional[float] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class KeyCoverage(_message.Message):
    __slots__ = ("weight_tensors", "mapped_tensors", "matched_modules", "unmapped")
    WEIGHT_TENSORS_FIELD_NUMBER: _ClassVar[int]
    MAPPED_TENSORS_FIELD_NUMBER: _ClassVar[int]
    MATCHED_MODULES_FIELD_NUMBER: _ClassVar[int]
    UNMAPPED_FIELD_NUMBER: _ClassVar[int]
    weight_tensors: int
    mapped_tensors: int
    matched_modules: int
    unmapped: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, weight_tensors: _Optional[int] = ..., mapped_tensors: _Optional[int] = ..., matched_modules: _Optional[int] = ..., unmapped: _Optional[_Iterable[str]] = ...) -> None: ...

class AuditedAdapter(_message.Message):
    __slots__ = ("sha256", "size_bytes", "format", "denoiser_strength", "text_encoder_strength", "coverage", "weights_sha256", "same_weights_as", "kind", "declared_name")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    DENOISER_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    TEXT_ENCODER_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    SAME_WEIGHTS_AS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DECLARED_NAME_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    size_bytes: int
    format: str
    denoiser_strength: float
    text_encoder_strength: float
    coverage: KeyCoverage
    weights_sha256: str
    same_weights_as: _containers.RepeatedScalarFieldContainer[str]
    kind: AdapterKind
    declared_name: str
    def __init__(self, sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ..., format: _Optional[str] = ..., denoiser_strength: _Optional[float] = ..., text_encoder_strength: _Optional[float] = ..., coverage: _Optional[_Union[KeyCoverage, _Mapping]] = ..., weights_sha256: _Optional[str] = ..., same_weights_as: _Optional[_Iterable[str]] = ..., kind: _Optional[_Union[AdapterKind, str]] = ..., declared_name: _Optional[str] = ...) -> None: ...

class Digests(_message.Message):
    __slots__ = ("base_model", "library", "policy")
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    LIBRARY_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    base_model: str
    library: str
    policy: str
    def __init__(self, base_model: _Optional[str] = ..., library: _Optional[str] = ..., policy: _Optional[str] = ...) -> None: ...

class StageTime(_message.Message):
    __slots__ = ("stage", "duration")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    stage: str
    duration: _duration_pb2.Duration
    def __init__(self, stage: _Optional[str] = ..., duration: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("decision_id", "verdict", "mode", "would_be_verdict", "remedy", "reasons", "findings", "adapters", "base_model", "digests", "engine_version", "kernel_backend", "stage_times", "decided_at", "expires_at", "cached", "dry_run", "binding", "restricted_to_concept_ids", "loaders", "dsse_envelope", "left_out")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    WOULD_BE_VERDICT_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_VERSION_FIELD_NUMBER: _ClassVar[int]
    KERNEL_BACKEND_FIELD_NUMBER: _ClassVar[int]
    STAGE_TIMES_FIELD_NUMBER: _ClassVar[int]
    DECIDED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    BINDING_FIELD_NUMBER: _ClassVar[int]
    RESTRICTED_TO_CONCEPT_IDS_FIELD_NUMBER: _ClassVar[int]
    LOADERS_FIELD_NUMBER: _ClassVar[int]
    DSSE_ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    verdict: VerdictKind
    mode: Mode
    would_be_verdict: VerdictKind
    remedy: Remedy
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    adapters: _containers.RepeatedCompositeFieldContainer[AuditedAdapter]
    base_model: str
    digests: Digests
    engine_version: str
    kernel_backend: str
    stage_times: _containers.RepeatedCompositeFieldContainer[StageTime]
    decided_at: _timestamp_pb2.Timestamp
    expires_at: _timestamp_pb2.Timestamp
    cached: bool
    dry_run: bool
    binding: bool
    restricted_to_concept_ids: _containers.RepeatedScalarFieldContainer[str]
    loaders: _containers.RepeatedScalarFieldContainer[str]
    dsse_envelope: bytes
    left_out: FindingsLeftOut
    def __init__(self, decision_id: _Optional[str] = ..., verdict: _Optional[_Union[VerdictKind, str]] = ..., mode: _Optional[_Union[Mode, str]] = ..., would_be_verdict: _Optional[_Union[VerdictKind, str]] = ..., remedy: _Optional[_Union[Remedy, str]] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., adapters: _Optional[_Iterable[_Union[AuditedAdapter, _Mapping]]] = ..., base_model: _Optional[str] = ..., digests: _Optional[_Union[Digests, _Mapping]] = ..., engine_version: _Optional[str] = ..., kernel_backend: _Optional[str] = ..., stage_times: _Optional[_Iterable[_Union[StageTime, _Mapping]]] = ..., decided_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., cached: bool = ..., dry_run: bool = ..., binding: bool = ..., restricted_to_concept_ids: _Optional[_Iterable[str]] = ..., loaders: _Optional[_Iterable[str]] = ..., dsse_envelope: _Optional[bytes] = ..., left_out: _Optional[_Union[FindingsLeftOut, _Mapping]] = ...) -> None: ...
