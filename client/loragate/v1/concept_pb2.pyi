from loragate.v1 import audit_pb2 as _audit_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConceptRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONCEPT_ROLE_UNSPECIFIED: _ClassVar[ConceptRole]
    CONCEPT_ROLE_FORBIDDEN: _ClassVar[ConceptRole]
    CONCEPT_ROLE_NEUTRAL: _ClassVar[ConceptRole]
CONCEPT_ROLE_UNSPECIFIED: ConceptRole
CONCEPT_ROLE_FORBIDDEN: ConceptRole
CONCEPT_ROLE_NEUTRAL: ConceptRole

class Concept(_message.Message):
    __slots__ = ("concept_id", "name", "category", "severity", "role", "prompts", "picture_count", "picture_hands")
    CONCEPT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    PICTURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    PICTURE_HANDS_FIELD_NUMBER: _ClassVar[int]
    concept_id: str
    name: str
    category: str
    severity: _audit_pb2.Severity
    role: ConceptRole
    prompts: _containers.RepeatedScalarFieldContainer[str]
    picture_count: int
    picture_hands: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, concept_id: _Optional[str] = ..., name: _Optional[str] = ..., category: _Optional[str] = ..., severity: _Optional[_Union[_audit_pb2.Severity, str]] = ..., role: _Optional[_Union[ConceptRole, str]] = ..., prompts: _Optional[_Iterable[str]] = ..., picture_count: _Optional[int] = ..., picture_hands: _Optional[_Iterable[str]] = ...) -> None: ...

class ListConceptsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListConceptsResponse(_message.Message):
    __slots__ = ("concepts", "next_page_token", "library_digest")
    CONCEPTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LIBRARY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    concepts: _containers.RepeatedCompositeFieldContainer[Concept]
    next_page_token: str
    library_digest: str
    def __init__(self, concepts: _Optional[_Iterable[_Union[Concept, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., library_digest: _Optional[str] = ...) -> None: ...

class GetConceptRequest(_message.Message):
    __slots__ = ("concept_id",)
    CONCEPT_ID_FIELD_NUMBER: _ClassVar[int]
    concept_id: str
    def __init__(self, concept_id: _Optional[str] = ...) -> None: ...

class GetConceptResponse(_message.Message):
    __slots__ = ("concept",)
    CONCEPT_FIELD_NUMBER: _ClassVar[int]
    concept: Concept
    def __init__(self, concept: _Optional[_Union[Concept, _Mapping]] = ...) -> None: ...

class CreateConceptRequest(_message.Message):
    __slots__ = ("concept", "picture")
    CONCEPT_FIELD_NUMBER: _ClassVar[int]
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    concept: Concept
    picture: bytes
    def __init__(self, concept: _Optional[_Union[Concept, _Mapping]] = ..., picture: _Optional[bytes] = ...) -> None: ...

class CreateConceptResponse(_message.Message):
    __slots__ = ("concept", "library_digest")
    CONCEPT_FIELD_NUMBER: _ClassVar[int]
    LIBRARY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    concept: Concept
    library_digest: str
    def __init__(self, concept: _Optional[_Union[Concept, _Mapping]] = ..., library_digest: _Optional[str] = ...) -> None: ...

class DeleteConceptRequest(_message.Message):
    __slots__ = ("concept_id",)
    CONCEPT_ID_FIELD_NUMBER: _ClassVar[int]
    concept_id: str
    def __init__(self, concept_id: _Optional[str] = ...) -> None: ...

class DeleteConceptResponse(_message.Message):
    __slots__ = ("library_digest",)
    LIBRARY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    library_digest: str
    def __init__(self, library_digest: _Optional[str] = ...) -> None: ...
