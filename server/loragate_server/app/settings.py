"""What each room is told, from the configuration. Loads nothing heavy."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

from loragate_server.checkpoint.settings import CheckpointSettings
from loragate_server.config.schema import MIB, Config, StartError
from loragate_server.intake.settings import IntakeSettings
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.registry import make_extractor
from loragate_server.rpc.settings import (
    AuthSettings,
    KeepaliveSettings,
    PeerGrant,
    Permission,
    RpcSettings,
    TlsSettings,
    TokenGrant,
)


def intake_settings(config: Config) -> IntakeSettings:
    """What intake is told.

    Raises:
        StartError: the extra `s3` is needed and not installed.
    """
    section = config.intake
    if "s3" in section.enabled_schemes and importlib.util.find_spec("s3fs") is None:
        raise StartError(
            "intake.enabled_schemes: s3 needs the extra `s3`: pip install 'loragate-server[s3]'"
        )
    return IntakeSettings(
        roots=tuple(root.expanduser() for root in section.roots),
        store_dir=config.state_folder / "store",
        store_limit_bytes=section.store_limit_bytes,
        max_file_bytes=section.max_file_bytes,
        max_header_bytes=section.max_header_bytes,
        max_tensors=section.max_tensors,
        max_name_length=section.max_name_length,
        max_metadata_bytes=section.max_metadata_bytes,
        enabled_schemes=section.enabled_schemes,
        fetch_timeout_s=section.fetch_timeout_s,
        scrub_interval_s=section.scrub_interval_s,
    )


def rpc_settings(config: Config) -> RpcSettings:
    """What the gRPC front is told."""
    tls = config.tls
    return RpcSettings(
        addresses=(config.listen.grpc,),
        tls=None if tls is None else TlsSettings(tls.cert, tls.key, tls.client_ca),
        auth=AuthSettings(
            tokens=tuple(
                TokenGrant(token.name, token.sha256, _permissions(token.permissions))
                for token in config.tokens
            ),
            peers=tuple(
                PeerGrant(peer.identity, _permissions(peer.permissions)) for peer in config.peers
            ),
        ),
        keepalive=KeepaliveSettings(connection_age_s=config.listen.connection_age_s),
        reflection=config.reflection,
        insecure_off_loopback=config.insecure_off_loopback,
        max_message_bytes=_message_bytes(config),
        max_concurrent_calls=config.listen.max_concurrent_calls,
        max_upload_bytes=config.intake.max_file_bytes,
        drain_grace_s=config.drain_grace_s,
    )


def _message_bytes(config: Config) -> int:
    """Room for the largest body that a proxy may show, and for all that it tells beside it."""
    usual = RpcSettings().max_message_bytes
    if not config.intercept.extractors:
        return usual
    return max(usual, config.intercept.max_body_bytes + MIB)


def checkpoint_settings(config: Config) -> CheckpointSettings:
    """What the checkpoint is told."""
    section = config.intercept
    return CheckpointSettings(
        default_extractor=section.chosen_extractor,
        dry_run=section.dry_run,
        review_passes=section.on_review == "allow",
        max_body_bytes=section.max_body_bytes,
    )


def intercept_extractors(config: Config) -> Mapping[str, ImageServer]:
    """The configured extractors, by name.

    Raises:
        StartError: there is no such kind, or it cannot be told such settings.
    """
    made: dict[str, ImageServer] = {}
    for name, entry in config.intercept.extractors.items():
        try:
            made[name] = make_extractor(name, entry.kind, entry.settings)
        except ValueError as error:
            raise StartError(f"intercept.extractors.{name}: {error}") from error
    return made


def _permissions(names: Sequence[str] | frozenset[str]) -> frozenset[Permission]:
    return frozenset(Permission(name) for name in names)
