"""The section `intake` of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, IPvAnyNetwork

from loragate_server.config.section import GIB, MIB, Positive, PositiveSeconds, Section

Loader = Literal["diffusers", "peft", "comfyui", "a1111", "sglang", "vllm-omni"]


class IntakeSection(Section):
    """Which files may come in, how large they may be, and who loads them.

    Attributes:
        loaders: the loaders that verdicts have to speak for. Where they read the same bytes
            otherwise, every reading is audited and the gravest stands.
        roots: folders that paths may point into; none means that paths are refused.
        enabled_schemes: kinds of address that may be fetched.
        reachable_networks: networks beside the public ones that addresses may lie in, on whatever
            redirections lead there; none means that no host of an internal network is asked.
        fetch_total_s: after so long a remote source is given up that still sends.
        fetch_timeout_s: after so long without a byte a remote source is given up.
        store_limit_bytes: size above which the stored files used longest ago are deleted.
        scrub_interval_s: between two looks through all that is stored.
        max_file_bytes: largest adapter file.
        max_header_bytes: largest safetensors header.
        max_tensors: most tensors in a file.
        max_name_length: longest tensor name, in characters.
        max_metadata_bytes: largest header metadata and adapter_config.json.
    """

    loaders: Annotated[tuple[Loader, ...], Field(min_length=1)] = get_args(Loader)
    roots: tuple[Path, ...] = ()
    enabled_schemes: frozenset[Literal["hf", "https", "http", "s3"]] = frozenset()
    reachable_networks: tuple[IPvAnyNetwork, ...] = ()
    fetch_timeout_s: PositiveSeconds = 60.0
    fetch_total_s: PositiveSeconds = 600.0
    store_limit_bytes: Positive = 20 * GIB
    scrub_interval_s: PositiveSeconds = 86_400.0
    max_file_bytes: Positive = 2 * GIB
    max_header_bytes: Positive = 8 * MIB
    max_tensors: Positive = 20_000
    max_name_length: Positive = 512
    max_metadata_bytes: Positive = MIB

    @property
    def folders(self) -> tuple[Path, ...]:
        """The roots, without `~`.

        Raises:
            RuntimeError: one begins with the name of a user who has no home here.
        """
        return tuple(root.expanduser() for root in self.roots)
