"""`loragate.v1.ConceptService`: the library of concepts over gRPC."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator

import grpc

from loragate.v1 import audit_pb2, concept_pb2_grpc
from loragate.v1 import concept_pb2 as wire
from loragate_server.concepts.concept import MAX_PICTURES, Concept, Role
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.library import LibraryKeeper
from loragate_server.rpc.convert import severity_name
from loragate_server.rpc.leash import call_leash
from loragate_server.severity import SEVERITIES, Severity

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 100
MAX_TOTAL_BYTES = 64 << 20

_SEVERITIES: dict[int, Severity] = {
    audit_pb2.Severity.Value(severity_name(one)): one for one in SEVERITIES
}
_ROLES: dict[int, Role] = {
    wire.CONCEPT_ROLE_FORBIDDEN: "forbidden",
    wire.CONCEPT_ROLE_NEUTRAL: "neutral",
}


class ConceptService(concept_pb2_grpc.ConceptServiceServicer):
    """Answers callers; whatever is raised becomes a status in the interceptors."""

    def __init__(self, keeper: LibraryKeeper) -> None:
        self._keeper = keeper

    async def ListConcepts(  # noqa: N802
        self, request: wire.ListConceptsRequest, context: grpc.aio.ServicerContext
    ) -> wire.ListConceptsResponse:
        """A page of concepts, by id."""
        if request.page_size < 0:
            raise _invalid("page_size", f"The page size {request.page_size} is negative.")
        size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        after = _read_token(request.page_token)
        library = self._keeper.library
        rest = [each for each in library.concepts if each.concept_id > after]
        page = rest[:size]
        return wire.ListConceptsResponse(
            concepts=[concept_message(each) for each in page],
            next_page_token=_token(page[-1].concept_id) if len(rest) > size else "",
            library_digest=library.digest,
        )

    async def GetConcept(  # noqa: N802
        self, request: wire.GetConceptRequest, context: grpc.aio.ServicerContext
    ) -> wire.GetConceptResponse:
        """One concept."""
        concept = self._keeper.library.get(request.concept_id)
        return wire.GetConceptResponse(concept=concept_message(concept))

    async def CreateConcept(  # noqa: N802
        self,
        request_iterator: AsyncIterator[wire.CreateConceptRequest],
        context: grpc.aio.ServicerContext,
    ) -> wire.CreateConceptResponse:
        """Takes a concept in; it is in force when the call returns."""
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("part") != "concept":
            raise _invalid("concept", "The stream does not begin with a concept.")
        concept = _concept(first.concept)
        pictures = await _pictures(request_iterator)
        with call_leash(context) as leash:
            digest = await self._keeper.create(concept, pictures, leash)
        stored = concept_message(self._keeper.library.get(concept.concept_id))
        return wire.CreateConceptResponse(concept=stored, library_digest=digest)

    async def DeleteConcept(  # noqa: N802
        self, request: wire.DeleteConceptRequest, context: grpc.aio.ServicerContext
    ) -> wire.DeleteConceptResponse:
        """Takes a concept out; audits no longer know it when the call returns."""
        with call_leash(context) as leash:
            digest = await self._keeper.remove(request.concept_id, leash)
        return wire.DeleteConceptResponse(library_digest=digest)


def concept_message(concept: Concept) -> wire.Concept:
    """A concept as it goes out: its pictures are counted, never sent."""
    return wire.Concept(
        concept_id=concept.concept_id,
        name=concept.name,
        category=concept.category,
        severity=severity_name(concept.severity),
        role=f"CONCEPT_ROLE_{concept.role.upper()}",
        prompts=concept.prompts,
        picture_count=len(concept.picture_files),
        picture_hands=concept.picture_hands,
    )


def _concept(message: wire.Concept) -> Concept:
    severity, role = _SEVERITIES.get(message.severity), _ROLES.get(message.role)
    if severity is None:
        raise _invalid("concept.severity", "The concept has no severity.")
    if role is None:
        raise _invalid("concept.role", "The concept has no role.")
    return Concept(
        concept_id=message.concept_id,
        name=message.name,
        category=message.category,
        severity=severity,
        role=role,
        prompts=tuple(message.prompts),
        picture_hands=tuple(message.picture_hands),
    )


async def _pictures(messages: AsyncIterator[wire.CreateConceptRequest]) -> list[bytes]:
    """The pictures of the stream, refused as soon as there is one too many."""
    pictures: list[bytes] = []
    total_bytes = 0
    async for message in messages:
        if message.WhichOneof("part") != "picture":
            raise _invalid("picture", "After the concept came something that is no picture.")
        pictures.append(message.picture)
        total_bytes += len(message.picture)
        if len(pictures) > MAX_PICTURES or total_bytes > MAX_TOTAL_BYTES:
            raise NoDecisionError(
                ErrorReason.CONCEPT_PICTURES_INVALID,
                f"The concept came with {len(pictures)} pictures of {total_bytes} bytes, and more.",
                remedy=f"Send at most {MAX_PICTURES} pictures of {MAX_TOTAL_BYTES} bytes together.",
            )
    return pictures


def _token(concept_id: str) -> str:
    return base64.urlsafe_b64encode(concept_id.encode()).decode()


def _read_token(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise NoDecisionError(
            ErrorReason.PAGE_TOKEN_INVALID,
            "The page token is none that this server gave.",
            remedy="Use next_page_token of the page before, or none for the first page.",
        ) from None


def _invalid(field: str, message: str) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.REQUEST_INVALID,
        message,
        remedy="Send what concept.proto describes.",
        metadata={"field": field},
    )
